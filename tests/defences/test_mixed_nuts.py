"""MixedNUTS: its map written again by hand, exact values with a surrogate's gradient, attacks that see or not."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor, nn

from hauberk import registry
from hauberk.attacks import APGD, Attack, Query
from hauberk.attacks.gradients import attackable
from hauberk.attacks.part import PartAttack
from hauberk.batch import Batch
from hauberk.certificates import MixedCertificate
from hauberk.classifier import check_eval, classes, frozen, predictor_name, traits, weights_hash
from hauberk.conformance import LinearOracle, check_classifier
from hauberk.defences.mixed_nuts import MixedNuts, mixed_nuts, normalise, sharpen
from hauberk.errors import HauberkError
from hauberk.models import small_cnn
from hauberk.randomness import PerSample
from hauberk.threats import L2

TASK: dict[str, Any] = {"input_shape": (1, 4, 4), "num_classes": 5, "mean": (0.5,), "std": (0.2,)}
SETTINGS: dict[str, Any] = {"alpha": 0.98, "scale": 2.5, "shift": -0.8, "power": 3.1, "top_k": 4}


class Table(nn.Module):
    """Answers rows of a table: an image's first pixel is its row."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, images: Tensor) -> Tensor:
        return self.rows[(images.flatten(1)[:, 0] * 255).round().long()]


def table_images(rows: int) -> Tensor:
    return (torch.arange(rows) / 255).reshape(-1, 1, 1, 1)


def logits(seed: int, rows: int = 40, kinds: int = 6) -> Tensor:
    return 3 * torch.randn(rows, kinds, generator=torch.Generator().manual_seed(seed))


def by_hand(g: Any, h: Any, alpha: float, scale: float, shift: float, power: float, top_k: int) -> tuple[Any, Any]:
    """The mix's and the surrogate's probabilities of one image (with weight 0.7 there), number by number."""
    g, h = [float(v) for v in g], [float(v) for v in h]
    top = sorted(h)[-top_k:]
    centre = math.fsum(top) / len(top)
    spread = math.sqrt(math.fsum((v - centre) ** 2 for v in top) / (len(top) - 1) + 1e-8)
    bent = []
    for value in h:
        z = (value - centre) / spread + shift
        a = z * 0.5 * (1 + math.erf(z / math.sqrt(2)))
        bent.append(scale * math.copysign(abs(a) ** power, a))
    soft, raw, plain = special.softmax(bent), special.softmax(h), special.softmax(g)
    one_hot = np.array([float(i == g.index(max(g))) for i in range(len(g))])
    return (1 - alpha) * one_hot + alpha * soft, 0.3 * plain + 0.7 * (0.9 * raw + 0.1 * soft)


@pytest.mark.parametrize("top_k", [3, 4, 6, 250])
def test_values_are_the_formulas(top_k: int) -> None:
    g, h = logits(0), logits(1)
    settings = SETTINGS | {"top_k": top_k}
    model = MixedNuts(Table(g), Table(h), **settings, surrogate_alpha=0.7).eval()
    images = table_images(40)
    hands = [by_hand(a, b, **settings) for a, b in zip(g, h, strict=True)]
    pairs = zip((model, model.parts()["surrogate"]), zip(*hands, strict=True), strict=True)
    for found, expected in ((part(images), hand) for part, hand in pairs):
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.numpy(), np.log(expected), rtol=2e-6, atol=1e-6)


def test_a_shift_and_a_factor_of_all_logits_change_nothing() -> None:
    h = logits(1).double()
    torch.testing.assert_close(normalise(7.0 * h + 100.0, 4), normalise(h, 4), atol=1e-6, rtol=1e-6)


def test_gelu_can_turn_the_order_around_where_all_logits_are_low() -> None:
    """Its minimum lies at -0.75, so what lies further down ends above it: a class may change."""
    z = torch.tensor([[0.0, -3.0, -3.5]], dtype=torch.float64)
    assert sharpen(z, 1.0, 0.0, 1.0).argmax() == 0
    assert sharpen(z, 1.0, -0.75, 1.0).argmax() != 0


def test_the_sharp_answer_hands_on_nan() -> None:
    g, h = logits(0, 3), logits(1, 3)
    g[0, 2], h[1, 3] = math.nan, math.nan
    model = MixedNuts(Table(g), Table(h), **SETTINGS, surrogate_alpha=0.7).eval()
    assert classes(model(table_images(3))).tolist()[:2] == [-1, -1]
    assert int(classes(model(table_images(3)))[2]) >= 0


def test_conformance_of_the_mix_and_its_parts() -> None:
    g, h = (LinearOracle.random((1, 3, 3), 4, seed=s) for s in (0, 1))
    model = MixedNuts(g, h, **SETTINGS, surrogate_alpha=0.8).eval()
    for part in (model, *model.parts().values()):
        check_classifier(part, (1, 3, 3))
    assert traits(model).gradient == "none"
    assert traits(model.parts()["surrogate"]).gradient == "exact"


# --- attacks --------------------------------------------------------------------------------------------------------

EPS = 0.3


@pytest.fixture(scope="module")
def frail() -> tuple[MixedNuts, Batch]:
    """A mix in which the accurate model decides, with images at 0.7 of the budget from its nearest boundary.

    The bent logits are so flat that no margin of theirs reaches (1 - alpha) / alpha = 2/3.
    """
    g, h = (LinearOracle.random((1, 8, 8), 5, seed=s) for s in (0, 1))
    batch = g.at_distance(0.7 * EPS, "l2")
    return MixedNuts(g, h, 0.6, scale=0.2, shift=-0.5, power=2.0, top_k=250, surrogate_alpha=0.5).eval(), batch


@pytest.fixture(scope="module")
def sure() -> tuple[MixedNuts, Batch]:
    """A mix that both models agree on, and whose robust part is sure to the last bit of float32."""
    g = LinearOracle.random((1, 8, 8), 5, seed=0)
    batch = g.at_distance(0.7 * EPS, "l2")
    return MixedNuts(g, g, 0.9, scale=3000.0, shift=0.0, power=2.0, top_k=250, surrogate_alpha=0.5).eval(), batch


def search(attack: Attack, model: nn.Module, batch: Batch) -> Query:
    """The search alone, without the surrogates that ``Attack.__call__`` puts in."""
    with frozen(model):
        query = attack.query(model, batch)
        query.value(batch.images)
        attack.search(query, PerSample(0, batch.ids, "attack"))
    return query


def test_inside_an_attack_values_are_exact_and_gradients_the_surrogates(frail: tuple[MixedNuts, Batch]) -> None:
    model, batch = frail
    expected, incoming = model(batch.images), logits(5, len(batch), 5)
    gradients = []
    with attackable(model):
        leaf = batch.images.clone().requires_grad_(True)
        found = model(leaf)
        assert torch.equal(found, expected)
        gradients.append(torch.autograd.grad(found, leaf, incoming)[0])
    leaf = batch.images.clone().requires_grad_(True)
    gradients.append(torch.autograd.grad(model.parts()["surrogate"](leaf), leaf, incoming)[0])
    torch.testing.assert_close(*gradients)
    assert float(gradients[0].abs().amax((1, 2, 3)).min()) > 1e-3


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_without_its_surrogate_an_attack_does_not_see_the_accurate_model(
    frail: tuple[MixedNuts, Batch], loss: Any
) -> None:
    """The truth is known: every image has an error at 0.7 of the budget."""
    model, batch = frail
    attack = APGD(L2(EPS), loss, steps=15)
    blind = search(attack, model, batch)
    seen = attack(model, batch)
    assert float(blind.misclassified.float().mean()) < 0.3
    assert bool(seen.success.all())
    with torch.no_grad():
        assert torch.equal(seen.prediction, model(seen.adversarial).argmax(1))  # judged by the mix as it is


def test_cross_entropy_is_blind_where_the_mix_is_sure_and_the_surrogate_is_not(sure: tuple[MixedNuts, Batch]) -> None:
    model, batch = sure
    attack = APGD(L2(EPS), "ce", steps=15)
    blind = attack(model, batch)  # the value of the mix itself has nothing to multiply a gradient with
    margin = APGD(L2(EPS), "margin", steps=15)(model, batch)
    whole = PartAttack(L2(EPS), "margin", part="surrogate", attack=attack)(model, batch)
    assert not bool(blind.success.any())
    assert torch.equal(blind.zero_gradients, blind.backwards)
    assert bool(margin.success.all())
    assert bool(whole.success.all())


@pytest.mark.parametrize("part", ["accurate", "robust"])
def test_the_bases_are_parts(frail: tuple[MixedNuts, Batch], part: str) -> None:
    model, batch = frail
    found = model.parts()[part]
    assert found is getattr(model, part)
    attack = PartAttack(L2(EPS), part=part, attack=APGD(L2(EPS), "margin", steps=15))
    success = attack(model, batch).success
    assert bool(success.all()) == (part == "accurate")


# --- settings and names ---------------------------------------------------------------------------------------------


def test_it_is_rebuilt_from_its_spec() -> None:
    torch.manual_seed(0)
    g, h = (small_cnn(**TASK, widths=(width,), strides=(1,)) for width in (2, 3))
    model = mixed_nuts(g, h, 0.97, 4.0, -1.1, 3.0, surrogate_alpha=0.8).eval()
    description = json.loads(json.dumps(registry.spec(model)))
    again = registry.build(description, "defence")
    again.load_state_dict(model.state_dict())
    assert registry.spec(again) == registry.spec(model)
    assert weights_hash(again) == weights_hash(model)
    assert (again.mix.top_k, again.mix.surrogate_alpha, again.alpha) == (250, 0.8, 0.97)
    assert predictor_name(again) == predictor_name(model)
    images = torch.rand(3, 1, 4, 4)
    assert torch.equal(again.eval()(images), model(images))


def test_settings_that_decide_are_in_the_name_and_the_surrogate_is_not() -> None:
    g = LinearOracle.random((1, 3, 3), 4)
    names = {
        MixedNuts(g, g, **(SETTINGS | {key: value}), surrogate_alpha=surrogate).predictor
        for surrogate in (0.5, 0.9)
        for key, value in (("alpha", 0.9), ("scale", 3.0), ("shift", 0.1), ("power", 2.0), ("top_k", 3))
    }
    assert len(names) == 5


def test_its_bases_stay_in_eval_mode() -> None:
    model = mixed_nuts(*(small_cnn(**TASK, widths=(2,), strides=(1,)) for _ in range(2)), 0.97, 4.0, -1.1, 3.0)
    model.train()
    check_eval(model.accurate)
    check_eval(model.robust)
    check_eval(model.parts()["surrogate"])
    assert model.training


@pytest.mark.parametrize(
    ("change", "words"),
    [
        *(({name: value}, name) for name in ("alpha", "surrogate_alpha") for value in (0.0, 1.0, math.nan)),
        *(({name: value}, "power >= 1") for name, value in (
            ("scale", 0.0), ("scale", math.inf), ("shift", math.nan), ("power", 0.9), ("power", math.inf), ("top_k", 2),
        )),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(change: dict[str, float], words: str) -> None:
    g = LinearOracle.random((1, 3, 3), 4)
    with pytest.raises(HauberkError, match=words):
        MixedNuts(g, g, **(SETTINGS | {"surrogate_alpha": 0.8} | change))


def test_of_two_classes_the_robust_model_answers_beyond_a_gap_and_the_accurate_one_below() -> None:
    """With p = 1 and c = 0 the margin is tanh(s d / 4), which is 1/2 at d = 2 ln 3 / s: there alpha = 2/3 decides."""
    g, h = logits(4, kinds=2), logits(5, kinds=2)
    gaps = h[:, 1] - h[:, 0]
    threshold = float(gaps.abs().median()) + 1e-3
    settings = SETTINGS | {"alpha": 2 / 3, "scale": math.log(3) / threshold * 2, "shift": 0.0, "power": 1.0}
    model = MixedNuts(Table(g), Table(h), **settings, surrogate_alpha=0.7).eval()
    said = model(table_images(40)).argmax(1)
    assert torch.equal(said, torch.where(gaps.abs() > threshold, h.argmax(1), g.argmax(1)))
    assert bool((h.argmax(1) != g.argmax(1))[gaps.abs() > threshold].any())


def test_three_logits_of_three_are_normalised() -> None:
    found = normalise(torch.tensor([[1.0, 2.0, 6.0]]), 250)
    assert torch.allclose(found, torch.tensor([[-2.0, -1.0, 3.0]], dtype=torch.float64) / math.sqrt(7.0 + 1e-8))


def test_three_logits_of_more_are_the_least_to_normalise_by() -> None:
    with pytest.raises(HauberkError, match="at least 3 logits"):
        normalise(logits(0), 2)


def test_the_certificate_of_a_mix_refuses_it() -> None:
    """It would read the robust model's own margin, which says nothing about the bent one."""
    g = LinearOracle.random((1, 3, 3), 4)
    model = MixedNuts(g, g, **SETTINGS, surrogate_alpha=0.8).eval()
    with pytest.raises(HauberkError, match="certifies a mixed classifier"):
        MixedCertificate()(model, g.batch(4))
