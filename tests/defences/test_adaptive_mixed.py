"""The adaptive mix: its formula, its range, what passes gradients, frozen bases, and the loss of its adversary."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hauberk import registry
from hauberk.attacks import APGD, PGD, AutoAttack
from hauberk.batch import Batch
from hauberk.classifier import named_outputs, predictor_name, traits, weights_hash
from hauberk.conformance import check_classifier
from hauberk.defences import MixedClassifier
from hauberk.defences.adaptive_mixed import (
    AdaptiveMixedClassifier,
    AlphaDown,
    MixView,
    adaptive_mixed,
    log_weights,
)
from hauberk.errors import HauberkError
from hauberk.models import small_cnn
from hauberk.threats import L2, Linf

SHAPE = (1, 6, 6)
TASK = {"input_shape": SHAPE, "num_classes": 4, "mean": (0.5,), "std": (0.2,)}
TAPS = {"accurate_taps": ("3", "6"), "robust_taps": ("3", "6")}


def base(seed: int, factor: float = 3.0, strides: tuple[int, int] = (1, 2)) -> nn.Module:
    torch.manual_seed(seed)
    net = small_cnn(**TASK, widths=(4, 6), strides=strides).eval()
    with torch.no_grad():
        net[-1].weight.mul_(factor)
        for module in net:
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2.0)
    return net


def build(**settings: object) -> AdaptiveMixedClassifier:
    torch.manual_seed(9)
    chosen = TAPS | {"alpha_min": 0.3, "alpha_max": 0.9, "widths": (4, 4)} | settings
    model = adaptive_mixed(base(0), base(1), **chosen)
    model.eval()
    with torch.no_grad():  # the score is standardised over images, so that alpha moves
        score = (model.mix(images(64, seed=7))["alpha_logit"] - model.logit[1]) / model.logit[0]
        model.mixing.norm.running_mean.fill_(score.mean())
        model.mixing.norm.running_var.fill_(score.var())
    return model


def images(rows: int, seed: int = 1) -> Tensor:
    return torch.rand(rows, *SHAPE, generator=torch.Generator().manual_seed(seed))


class Says(nn.Module):
    """A mixing network of a few given scores."""

    def __init__(self, *scores: float) -> None:
        super().__init__()
        self.scores = torch.tensor(scores)

    def forward(self, first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> Tensor:
        return self.scores + 0.0 * first[0].flatten(1)[:, 0]


# --- the formula ---------------------------------------------------------------------------------------------------


def test_it_is_equation_5_with_a_weight_for_each_image() -> None:
    model, x = build(accurate_scale=2.0, robust_scale=0.7), images(20)
    with torch.no_grad():
        told = named_outputs(model, x)
        g, h = 2.0 * model.accurate(x), 0.7 * model.robust(x)
    assert set(told) == {"logits", "alpha", "alpha_logit", "accurate", "robust"}
    torch.testing.assert_close(told["accurate"], g)
    torch.testing.assert_close(told["robust"], h)
    alpha = 0.3 + 0.6 / (1 + np.exp(-told["alpha_logit"].double().numpy()))
    np.testing.assert_allclose(told["alpha"].numpy(), alpha, rtol=1e-6)
    assert alpha.max() - alpha.min() > 0.1
    mix = (1 - alpha)[:, None] * g.double().softmax(1).numpy() + alpha[:, None] * h.double().softmax(1).numpy()
    np.testing.assert_allclose(told["logits"].double().exp().numpy(), mix, rtol=1e-5)
    assert torch.equal(model(x), told["logits"])


def test_what_comes_out_are_log_probabilities() -> None:
    with torch.no_grad():
        total = build()(images(20)).exp().sum(1)
    torch.testing.assert_close(total, torch.ones(20))


def test_the_logit_is_the_score_times_a_factor_plus_a_shift() -> None:
    net = build(logit=(3.0, -1.0), training_logit=(5.0, 0.5))
    net.mixing = Says(-0.4, 0.1, 2.0)
    x = images(3)
    torch.testing.assert_close(net.mix(x)["alpha_logit"], torch.tensor([-2.2, -0.7, 5.0]))
    torch.testing.assert_close(net.mix(x, as_trained=True)["alpha_logit"], torch.tensor([-1.5, 1.0, 10.5]))
    torch.testing.assert_close(net.train().mix(x)["alpha_logit"], torch.tensor([-1.5, 1.0, 10.5]))


@pytest.mark.parametrize("limits", [(0.0, 1.0), (0.96, 1.0), (0.815, 0.915), (0.0, 0.2)])
def test_the_logarithms_of_the_weights(limits: tuple[float, float]) -> None:
    low, high = limits
    t = torch.linspace(-15, 15, 61, dtype=torch.float64)
    rest, weight = log_weights(t, low, high)
    alpha = low + (high - low) / (1 + np.exp(-t.numpy()))
    np.testing.assert_allclose(weight.numpy(), np.log(alpha), atol=1e-12)
    np.testing.assert_allclose(rest.numpy(), np.log1p(-alpha), atol=1e-8)


def test_the_logarithms_keep_their_digits_where_the_sigmoid_has_none() -> None:
    t = torch.tensor([-200.0, 200.0], requires_grad=True)
    rest, weight = log_weights(t, 0.0, 1.0)
    assert weight.tolist() == [-200.0, 0.0]
    assert rest.tolist() == [0.0, -200.0]
    assert torch.autograd.grad(weight.sum(), t, retain_graph=True)[0].tolist() == [1.0, 0.0]
    assert torch.autograd.grad(rest.sum(), t)[0].tolist() == [0.0, -1.0]


# --- the range -----------------------------------------------------------------------------------------------------

HOSTILE = (-3e38, -1e5, -80.0, -1.0, 0.0, 1.0, 80.0, 1e5, 3e38)


# of the last, low + (high - low) is larger than high in float32
@pytest.mark.parametrize("limits", [(0.0, 1.0), (0.96, 1.0), (0.815, 0.915), (0.0, 0.2), (0.7, 0.7), (0.01, 0.195)])
def test_no_score_leaves_the_range_or_spoils_a_gradient(limits: tuple[float, float]) -> None:
    model = build(alpha_min=limits[0], alpha_max=limits[1], logit=(1.0, 0.0))
    model.mixing = Says(*HOSTILE)
    x = images(9).requires_grad_(True)
    told = model.outputs(x)
    low, high = (torch.tensor(limit) for limit in limits)
    assert bool(((told["alpha"] >= low) & (told["alpha"] <= high)).all())
    assert told["alpha"][0] == low
    assert told["alpha"][-1] == high
    assert bool(told["logits"].isfinite().all())
    (gradient,) = torch.autograd.grad(told["logits"].sum(), x)
    assert bool(gradient.isfinite().all())
    floor = limits[0] * told["robust"].softmax(1)  # the robust model has at least its share of every class
    assert bool((told["logits"].exp() >= floor * (1 - 1e-5)).all())


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_no_image_leaves_the_range(scale: float) -> None:
    model = build(logit=(scale, 0.0))
    with torch.no_grad():
        for x in (images(30), torch.zeros(2, *SHAPE), torch.ones(2, *SHAPE), (images(30) > 0.5).float()):
            alpha = model.outputs(x)["alpha"]
            assert float(alpha.min()) >= 0.3 - 1e-7
            assert float(alpha.max()) <= 0.9 + 1e-7


def test_training_has_the_full_range() -> None:
    model, x = build(alpha_min=0.8, alpha_max=0.81, logit=(50.0, 0.0), training_logit=(50.0, 0.0)), images(20)
    with torch.no_grad():
        assert float(model.mix(x, as_trained=True)["alpha"].min()) < 0.1
        assert float(MixView(model, as_trained=True).outputs(x)["alpha"].max()) > 0.9
        assert float(model.train().outputs(x)["alpha"].min()) < 0.1
        assert float(model.outputs(x)["alpha"].max()) > 0.9


@pytest.mark.parametrize("alpha", [0.0, 1e-9, 0.3, 0.84, 1.0])
def test_equal_limits_are_the_constant_mix_exactly(alpha: float) -> None:
    scales = {"accurate_scale": 1.7, "robust_scale": 0.6}
    model, x = build(alpha_min=alpha, alpha_max=alpha, **scales), images(20)
    constant = MixedClassifier(model.accurate, model.robust, alpha, **scales).eval()
    with torch.no_grad():
        assert torch.equal(model(x), constant(x))
        assert model.outputs(x)["alpha"].tolist() == torch.full((20,), alpha).tolist()
    assert model.least_alpha == constant.least_alpha == alpha


def test_the_least_alpha_is_the_lower_limit() -> None:
    assert build().least_alpha == 0.3


# --- the bases -----------------------------------------------------------------------------------------------------


def test_each_base_runs_once() -> None:
    model, calls = build(), []
    for name in ("accurate", "robust"):
        getattr(model, name).register_forward_hook(lambda *_, name=name: calls.append(name))
        getattr(model, name)[3].register_forward_hook(lambda *_, name=name: calls.append(f"{name}.3"))
    model(images(3))
    assert sorted(calls) == ["accurate", "accurate.3", "robust", "robust.3"]


def test_the_bases_are_frozen_and_stay_in_eval_mode() -> None:
    model = build()
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all(name.startswith("mixing.") for name in trained)
    model.train()
    assert model.training
    assert all(m.training for m in model.mixing.modules())
    assert not any(m.training for part in (model.accurate, model.robust) for m in part.modules())
    before = weights_hash(model.accurate), weights_hash(model.robust), weights_hash(model.mixing)
    model(images(8))
    assert (weights_hash(model.accurate), weights_hash(model.robust)) == before[:2]
    assert weights_hash(model.mixing) != before[2]  # its running statistics


def test_a_base_in_train_mode_is_put_into_eval_mode() -> None:
    model = adaptive_mixed(base(0).train(), base(1).train(), **TAPS, alpha_min=0.3, alpha_max=0.9, widths=(4,))
    assert not any(m.training for part in (model.accurate, model.robust) for m in part.modules())


def test_the_mixing_network_reads_the_taps_of_both() -> None:
    model, x, seen = build(accurate_taps=("0", "5"), robust_taps=("2", "9")), images(3), []
    model.mixing.register_forward_pre_hook(lambda _module, given: seen.append(given))
    with torch.no_grad():
        model(x)
        (first, second) = seen[0]
        for found, part, end in zip((*first, *second), "grgr", (1, 3, 6, 10), strict=True):
            net = model.accurate if part == "g" else model.robust
            assert torch.equal(found, net[:end](x))


def test_bases_of_different_sizes_meet() -> None:
    model = adaptive_mixed(base(0), base(1, strides=(2, 2)), **TAPS, alpha_min=0.3, alpha_max=0.9, widths=(4,)).eval()
    check_classifier(model, SHAPE)


# --- parts and gradients -------------------------------------------------------------------------------------------


def test_the_parts_are_the_scaled_bases_and_the_gray_box() -> None:
    model, x = build(accurate_scale=2.0, robust_scale=0.7), images(5)
    parts = model.parts()
    assert set(parts) == {"accurate", "robust", "gray_box"}
    assert not any(m.training for part in parts.values() for m in part.modules())
    with torch.no_grad():
        assert torch.equal(parts["accurate"](x), 2.0 * model.accurate(x))
        assert torch.equal(parts["robust"](x), 0.7 * model.robust(x))
        for name, value in named_outputs(parts["gray_box"], x).items():
            assert torch.equal(value, model.outputs(x)[name])
    constant = MixedClassifier(model.accurate, model.robust, 0.3, 2.0, 0.7).parts()
    assert set(constant) == {"accurate", "robust"}


def test_gradients_with_and_without_alpha_are_those_of_finite_differences() -> None:
    """In float64; without alpha's gradient the function differentiated is the mix at the weight of the image."""
    model, x = build().double(), images(3).double()
    with torch.no_grad():
        weight = model.outputs(x)["alpha"]
    direction = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(5)).double()

    def whole(at: Tensor) -> Tensor:
        return model(at)[:, 1]

    def held(at: Tensor) -> Tensor:
        g, h = model.accurate(at).softmax(1)[:, 1], model.robust(at).softmax(1)[:, 1]
        return ((1 - weight) * g + weight * h).log()

    slopes = []
    for function, part in ((whole, model), (held, model.parts()["gray_box"])):
        leaf = x.clone().requires_grad_(True)
        gradient = torch.autograd.grad(part(leaf)[:, 1].sum(), leaf)[0]
        slope = (gradient * direction).flatten(1).sum(1)
        with torch.no_grad():
            expected = (function(x + 1e-6 * direction) - function(x - 1e-6 * direction)) / 2e-6
        torch.testing.assert_close(slope, expected, atol=1e-6, rtol=1e-4)
        slopes.append(slope)
    assert float((slopes[0] - slopes[1]).abs().min()) > 1e-3


def test_the_gray_box_has_no_gradient_through_alpha_at_all() -> None:
    leaf = images(3).requires_grad_(True)
    told = build().parts()["gray_box"].outputs(leaf)
    assert told["logits"].requires_grad
    assert not told["alpha_logit"].requires_grad
    assert not told["alpha"].requires_grad


# --- building ------------------------------------------------------------------------------------------------------


def test_the_contract_and_the_spec() -> None:
    model = build(accurate_scale=2.0, logit=(2.0, 1.3), blocks=2, momentum=0.01)
    check_classifier(model, SHAPE)
    assert (traits(model).stochastic, traits(model).gradient, traits(model).declared) == (False, "exact", True)
    again = registry.build(registry.spec(model), kind="defence").eval()
    again.load_state_dict(model.state_dict())
    assert registry.spec(again) == registry.spec(model)
    for name, value in model.outputs(images(3)).items():
        assert torch.equal(value, again.outputs(images(3))[name])
    assert predictor_name(again) == predictor_name(model)
    assert again.mixing.norm.momentum == 0.01


def test_the_name_holds_all_that_the_decision_depends_on() -> None:
    model = build()
    names = {predictor_name(model)}
    for attribute, value in {
        "alpha": 0.31, "alpha_max": 0.91, "logit": (2.0, 1.1), "accurate_scale": 1.5, "robust_scale": 1.5,
        "accurate_taps": ("2", "6"),
    }.items():  # fmt: skip
        other = copy.deepcopy(model)
        setattr(other, attribute, value)
        names.add(predictor_name(other))
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.mixing.norm.running_mean.add_(0.1)
    assert len(names | {predictor_name(other)}) == 8


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"alpha_min": 0.9, "alpha_max": 0.8}, "range of alpha"),
        ({"alpha_max": 1.1}, "range of alpha"),
        ({"alpha_max": math.nan}, "range of alpha"),
        ({"alpha_min": -0.1}, r"alpha in \[0, 1\]"),
        ({"logit": (-1.0, 0.0)}, "positive factors"),
        ({"training_logit": (0.0, 0.0)}, "positive factors"),
        ({"logit": (1.0, 0.0, 0.0)}, "two logit"),
        ({"robust_taps": ("3", "fc")}, "no module 'fc'"),
        ({"robust_taps": "36"}, "two robust_taps"),
        ({"widths": ()}, "at least one width"),
    ],
)
def test_what_cannot_be_built_is_named(settings: dict[str, object], words: str) -> None:
    with pytest.raises(HauberkError, match=words):
        build(**settings)


def test_bases_that_do_not_tell_their_shape_need_it() -> None:
    nets = base(0), base(1)
    for net in nets:
        net.spec = {"name": "mine"}
    with pytest.raises(HauberkError, match="input shape"):
        adaptive_mixed(*nets, **TAPS, alpha_min=0.3, alpha_max=0.9)
    found = adaptive_mixed(*nets, **TAPS, alpha_min=0.3, alpha_max=0.9, input_shape=SHAPE)
    assert found.spec["input_shape"] == list(SHAPE)


# --- the adversary's loss ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"), [("ce", math.log(1 + math.e + math.exp(-1))), ("margin", 1.0), ("dlr", 1.0 / 2.0)]
)
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_loss_by_hand(name: str, value: float, weight: float) -> None:
    outputs = {"logits": torch.tensor([[0.0, 1.0, -1.0]]), "alpha_logit": torch.tensor([-0.7])}
    found = AlphaDown(weight=weight, base=name)(outputs, torch.tensor([0]), None)
    assert found.tolist() == pytest.approx([(1 - weight) * value + weight * math.log(1 + math.exp(0.7))])


@pytest.mark.parametrize(
    ("name", "value"), [("ce", -1 - math.log(1 + math.e + math.exp(-1))), ("margin", -2.0), ("dlr", -1.0)]
)
def test_the_targeted_loss_wants_that_class(name: str, value: float) -> None:
    outputs = {"logits": torch.tensor([[0.0, 1.0, -1.0]]), "alpha_logit": torch.tensor([-0.7])}
    found = AlphaDown(weight=0.3, base=name)(outputs, torch.tensor([0]), torch.tensor([2]))
    assert found.tolist() == pytest.approx([0.7 * value + 0.3 * math.log(1 + math.exp(0.7))])


def test_it_needs_a_mixing_network_and_has_a_spec() -> None:
    with pytest.raises(HauberkError, match="needs the output alpha_logit"):
        AlphaDown()({"logits": torch.zeros(1, 3)}, torch.tensor([0]), None)
    attack = AutoAttack(Linf(0.1), losses=(AlphaDown(weight=0.25, base="margin"),))
    assert registry.build(registry.spec(attack)) == attack


def labelled(model: nn.Module, rows: int) -> Batch:
    x = images(rows)
    with torch.no_grad():
        return Batch(x, model(x).argmax(1), torch.arange(rows))


def test_its_attack_lowers_alpha() -> None:
    model = build()
    batch = labelled(model, 30)
    attack = APGD(Linf(0.02), loss=AlphaDown(weight=1.0), steps=20, early_stop=False)
    with torch.no_grad():
        before = model.outputs(batch.images)["alpha_logit"]
        after = model.outputs(attack(model, batch).best_loss_point)["alpha_logit"]
    assert bool((after < before).all())


@pytest.mark.parametrize("threat", [Linf(0.03), L2(0.08)], ids=str)
@pytest.mark.parametrize("loss", [AlphaDown(), AlphaDown(weight=0.2, base="dlr")], ids=str)
def test_the_adaptive_suite_is_at_least_as_strong_on_every_image(threat: Linf | L2, loss: AlphaDown) -> None:
    model = build()
    batch = labelled(model, 40)
    stages = (PGD(threat, steps=1, random_start=False), APGD(threat, steps=1, loss="dlr", targets=2))
    plain = AutoAttack(threat, version="custom", attacks=stages)
    adaptive = AutoAttack(threat, version="custom", attacks=stages, losses=(loss,))
    assert adaptive.stages()[:-2] == plain.stages()
    assert adaptive.stages()[-2:] == (APGD(threat, loss=loss), APGD(threat, loss=loss, targets=9))
    found, before = adaptive(model, batch), plain(model, batch)
    assert bool((found.success >= before.success).all())
    assert 0 < int(before.success.sum()) <= int(found.success.sum()) < 40
    assert bool((found.logit_margin <= before.logit_margin).all())
    assert bool((found.logit_margin < before.logit_margin).any())
