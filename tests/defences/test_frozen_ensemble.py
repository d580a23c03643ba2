"""The frozen ensemble: one function, certified without sampling error and attacked like every net."""

from pathlib import Path

import pytest
import torch
from tests.random_nets import RandomMask, net
from torch import nn

from hauberk import registry
from hauberk.attacks import APGD, PGD
from hauberk.audit.certificates import certify_again
from hauberk.batch import Batch
from hauberk.certificates import LipschitzCertificate, freeze
from hauberk.classifier import logits_of, predictor_name
from hauberk.conformance import check_classifier
from hauberk.defences.frozen_ensemble import frozen_draws, frozen_ensemble
from hauberk.defences.smoothed import SmoothedClassifier
from hauberk.draws import drawn
from hauberk.errors import HauberkError
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import certificate_records
from hauberk.evaluation.work import Work
from hauberk.layers import AOLLinear, MaxMin, NoiseInjection, UnitRowLinear
from hauberk.layers.lipschitz import walk
from hauberk.models.building import with_spec
from hauberk.noises import Gaussian
from hauberk.randomness import PublicDraw
from hauberk.records import group
from hauberk.threats import L2
from hauberk.verify.proofs import verify_part


def batch(rows: int = 16, first: int = 0) -> Batch:
    images = torch.rand(rows, 1, 2, 4, generator=torch.Generator().manual_seed(7))
    return Batch(images, torch.arange(rows) % 3, torch.arange(rows) + first)


def logits_by_hand(model: nn.Module, draws: int, seed: int) -> torch.Tensor:
    """The mean logits of whole draws, with noise of the same names as in the ensemble's body."""
    body, head = model[:-1], model[-1]
    return torch.stack([head(drawn(body, PublicDraw(seed, k))(batch().images)) for k in range(draws)]).mean(0)


@pytest.mark.parametrize("draws", [1, 4])
def test_it_is_the_mean_of_the_logits_of_its_draws(draws: int) -> None:
    model = frozen_draws(net(), draws, seed=3)
    torch.testing.assert_close(model(batch().images), logits_by_hand(net(), draws, 3))
    check_classifier(model, (1, 2, 4))
    assert len(model.state_dict()) == len(net().state_dict())


def test_a_linear_head_commutes_and_keeps_the_pairwise_constants() -> None:
    r"""Features times :math:`\|w_i - w_j\|`, where the whole would have :math:`\sqrt2` times its bound."""
    model = frozen_draws(net(), 3)
    nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    bounds = walk(freeze(model, (1, 2, 4)), (1, 2, 4))
    rows = model.head.weight.detach().double()
    features = walk(freeze(model, (1, 2, 4))[1][:1].eval(), (1, 2, 4)).total().value
    expected = features * torch.cdist(rows, rows)
    torch.testing.assert_close(bounds.pairwise(), expected, rtol=1e-6, atol=1e-12)
    assert float(bounds.pairwise().max()) < 0.99 * 2.0**0.5 * bounds.total().value


def test_what_is_a_head_and_what_is_none() -> None:
    torch.manual_seed(0)
    noise, twice = NoiseInjection(Gaussian(0.1)), MaxMin()
    inner = nn.Sequential(AOLLinear(8, 8), twice, noise, twice, UnitRowLinear(8, 3))
    nested = nn.Sequential(nn.Flatten(), inner).eval()
    made = frozen_draws(nested, 2)
    assert [name for name, _ in made.named_children()] == ["mean", "head"]
    assert len(made.mean.body[1]) == 4  # a layer that stands twice is there twice
    assert made.head is nested[1][-1]
    late = nn.Sequential(nn.Flatten(), nn.Linear(8, 3), noise).eval()
    assert [name for name, _ in frozen_draws(late, 2).named_children()] == ["mean"]
    one = nn.Sequential(nn.Sequential(nn.Flatten()), noise, nn.Sequential(nn.Linear(8, 3))).eval()
    assert [name for name, _ in frozen_draws(one, 2).named_children()] == ["mean"]

    class Bent(nn.Linear):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return super().forward(features).relu()

    bent = nn.Sequential(nn.Flatten(), noise, Bent(8, 3)).eval()
    assert [name for name, _ in frozen_draws(bent, 2).named_children()] == ["mean"]


@pytest.mark.parametrize("draws", [1, 5])
def test_no_attack_flips_inside_the_radius(draws: int) -> None:
    model, images = frozen_draws(net(), draws), batch(24)
    found = LipschitzCertificate()(model, images)
    assert (found.kind, found.failure_probability) == ("deterministic", 0.0)
    assert int((found.radius > 0.01).sum()) >= 20
    assert found.prediction.tolist() == model(images.images).argmax(1).tolist()
    for radius in sorted(found.radius.tolist())[4::6]:
        rows = found.radius >= radius
        inside = Batch(images.images[rows], found.prediction[rows], images.ids[rows])
        for attack in (PGD(L2(0.99 * radius), steps=40, restarts=2), APGD(L2(0.99 * radius), steps=40)):
            assert not attack(model, inside).success.any()
    far = APGD(L2(3.0), steps=60)(model, Batch(images.images, found.prediction, images.ids))
    assert int(far.success.sum()) >= 12  # nothing is hidden: well outside most of them flip


def test_the_radius_is_the_true_one_where_a_quarter_of_the_margin_is_too_small_by_root_two() -> None:
    r"""Of the 2-Lipschitz map 2x and noise the border is at :math:`\Delta/2\sqrt2 = \Delta/(\sqrt2 L)`, not at
    :math:`\Delta/4`, which a sum of two constants gives: without a head, in which no constants are known pair by pair.
    """
    double = nn.Linear(2, 2, bias=False)
    double.weight.data = 2.0 * torch.eye(2)
    model = frozen_draws(nn.Sequential(nn.Flatten(), double, NoiseInjection(Gaussian(1e-3))).eval(), 4)
    images = Batch(torch.tensor([[[[0.8, 0.3]]]]), torch.zeros(1, dtype=torch.int64), torch.tensor([5]))
    found = LipschitzCertificate()(model, images)
    logits = model(images.images)[0].detach()
    gap = float(logits[0] - logits[1])
    assert float(found.radius[0]) == pytest.approx(gap / (2.0**0.5 * 2.0), rel=1e-6)
    assert float(found.radius[0]) == pytest.approx(2.0**0.5 * gap / 4.0, rel=1e-6)
    border = torch.tensor([[[[-1.0, 1.0]]]]) / 2.0**0.5 * float(found.radius[0])
    assert int(model(images.images + 0.999 * border).argmax(1)) == 0
    assert int(model(images.images + 1.001 * border).argmax(1)) == 1


def test_answers_depend_on_neither_ids_nor_company_nor_the_seed_of_an_evaluation() -> None:
    model = frozen_draws(net(), 3)
    logits = logits_of(model, batch(16), 8)
    torch.testing.assert_close(logits_of(model, batch(16, first=900), 16, (5, 2, "other")), logits)
    torch.testing.assert_close(logits_of(model, batch(16).select([11]), 1)[0], logits[11])


def test_its_name_tells_apart_draws_seeds_and_weights() -> None:
    base = with_spec(net(), "toy")
    names = {predictor_name(frozen_ensemble(base, **how)) for how in ({}, {"draws": 2}, {"draws": 2, "seed": 1})}
    names.add(predictor_name(frozen_ensemble(with_spec(net(seed=1), "toy"))))
    assert len(names) == 4
    assert all(name.startswith("frozen_ensemble[") for name in names)
    assert registry.spec(frozen_ensemble(base, 2, 1)) == {
        "name": "frozen_ensemble", "base": {"name": "toy"}, "draws": 2, "seed": 1,
    }  # fmt: skip
    bare = [predictor_name(frozen_draws(net(), 2, seed)) for seed in (0, 1)]
    assert bare[0] != bare[1]


def test_records_verify_and_the_weights_give_them_again(tmp_path: Path) -> None:
    model, images = frozen_draws(net(), 2), batch(8)
    setting = Setting("toy", "test", tuple("abc"), tile=4, seed=0)
    (part,) = group(certificate_records(model, images, LipschitzCertificate(), setting, Work(tmp_path)))
    assert verify_part(part).problems == ()
    assert part.facts["proof"] == "deterministic"
    target = type("Target", (), {"model": model})()
    again = certify_again(part, target, images, None, [])  # type: ignore[arg-type]
    assert list(again) == []
    other = type("Target", (), {"model": frozen_draws(net(), 2, seed=1)})()
    assert list(certify_again(part, other, images, None, []))  # type: ignore[arg-type]


def test_a_model_that_cannot_be_frozen_so_is_refused() -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(8, 3)).eval()
    with pytest.raises(HauberkError, match="no random parts whose draws"):
        frozen_draws(plain, 2)
    with pytest.raises(HauberkError, match="has a decision rule of its own"):
        frozen_draws(SmoothedClassifier(net(), Gaussian(0.1), 2, 10, 0.1), 2)
    with pytest.raises(HauberkError, match="no random parts whose draws"):
        frozen_draws(frozen_draws(net(), 2), 2)
    mask = nn.Sequential(nn.Flatten(), RandomMask(), nn.Linear(8, 3))
    assert frozen_draws(mask, 2).training
    assert not frozen_draws(mask.eval(), 2).training
