"""Eq. 1-4: gradients known in closed form or by finite differences, the plain mix, and what an attack sees."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hauberk import registry
from hauberk.attacks import PGD
from hauberk.attacks.gradients import attackable
from hauberk.batch import Batch
from hauberk.certificates import LipschitzCertificate
from hauberk.classifier import predictor_name, traits, weights_hash
from hauberk.conformance import LinearOracle, check_classifier
from hauberk.defences.locally_biased import (
    Direction,
    GradientMixed,
    LocallyBiased,
    gradient_mixed,
    locally_biased,
    log_length,
)
from hauberk.defences.mixed import mixed
from hauberk.defences.nearest_neighbour import nearest_neighbour
from hauberk.errors import HauberkError
from hauberk.models import small_cnn
from hauberk.threats import Linf

TASK = {"input_shape": (1, 4, 4), "num_classes": 3, "mean": (0.5,), "std": (0.2,), "widths": (4,), "strides": (2,)}
TRUSTS = ["constant", "gradient", "top_gradient", "gradient_ratio"]
DUAL = {"linf": 1, "l2": 2}


def images(rows: int = 5, seed: int = 1) -> Tensor:
    return torch.rand(rows, 1, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair() -> tuple[nn.Module, nn.Module]:
    """Smooth bases, so that finite differences are exact enough."""
    torch.manual_seed(3)
    return tuple(
        nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 3)).double().eval() for _ in range(2)
    )


def jacobian(function, image: Tensor, step: float = 1e-5) -> np.ndarray:
    """Central differences, (K, 16)."""
    columns = []
    for k in range(16):
        moved = torch.zeros(16, dtype=torch.float64)
        moved[k] = step
        moved = moved.reshape(1, 1, 4, 4)
        with torch.no_grad():
            columns.append(((function(image + moved) - function(image - moved)) / (2 * step))[0].numpy())
    return np.stack(columns, 1)


def by_hand(g, h, image: Tensor, gamma: float, trust: str, on: str, norm: str) -> np.ndarray:
    """Eq. 4 as printed, one image, with gradients by finite differences."""

    def values(base):
        return (lambda x: base(x).softmax(1)) if on == "probabilities" else base

    own, other = values(g)(image)[0].detach().numpy(), values(h)(image)[0].detach().numpy()
    steep = np.linalg.norm(jacobian(values(g), image), ord=DUAL[norm], axis=1)
    rival = np.linalg.norm(jacobian(values(h), image), ord=DUAL[norm], axis=1)
    weight = {
        "constant": np.ones(3), "gradient": steep, "top_gradient": np.full(3, steep[own.argmax()]),
        "gradient_ratio": steep / rival,
    }[trust]  # fmt: skip
    mix = (own + gamma * weight * other) / (1 + gamma * weight)
    return np.log(mix) if on == "probabilities" else mix


# --- Equation 4 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("on", ["probabilities", "logits"])
@pytest.mark.parametrize("trust", TRUSTS)
def test_equation_4_with_gradients_by_finite_differences(trust, on, norm):
    g, h = pair()
    model = GradientMixed(g, h, 1.7, trust, on, norm)
    found = model(images()).detach().numpy()
    expected = np.stack([by_hand(g, h, x[None], 1.7, trust, on, norm) for x in images()])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_equation_4_on_linear_logits_is_closed_form():
    g, h = (LinearOracle.random((1, 4, 4), 3, seed=s).double() for s in (0, 1))
    w, v = (model.layers[1].weight.detach() for model in (g, h))
    for norm, lengths in (("linf", lambda a: a.abs().sum(1)), ("l2", lambda a: a.square().sum(1).sqrt())):
        ratio = 0.6 * lengths(w) / lengths(v)
        expected = (g(images()) + ratio * h(images())) / (1 + ratio)
        found = GradientMixed(g, h, 0.6, "gradient_ratio", "logits", norm)(images())
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.25, 3.0, 40.0])
def test_constant_trust_on_probabilities_is_the_plain_mix(gamma):
    torch.manual_seed(0)
    g, h = small_cnn(**TASK).eval(), small_cnn(**TASK).eval()
    few = images().float()
    with torch.no_grad():
        expected = mixed(g, h, gamma / (1 + gamma))(few)
        torch.testing.assert_close(gradient_mixed(g, h, gamma)(few), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("on", ["probabilities", "logits"])
@pytest.mark.parametrize("trust", TRUSTS)
def test_the_ends_of_gamma_are_the_bases(trust, on):
    g, h = pair()
    ends = [b(images()).log_softmax(1) if on == "probabilities" else b(images()) for b in (g, h)]
    torch.testing.assert_close(GradientMixed(g, h, 0.0, trust, on, "l2")(images()), ends[0], rtol=0, atol=0)
    torch.testing.assert_close(GradientMixed(g, h, 1e12, trust, on, "l2")(images()), ends[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("on", ["probabilities", "logits"])
@pytest.mark.parametrize("trust", TRUSTS)
def test_an_attack_differentiates_through_the_gradient_length(trust, on, norm):
    g, h = pair()
    model = GradientMixed(g, h, 0.8, trust, on, norm)
    image = images(1).requires_grad_(True)
    logits = model(image)
    found = torch.cat([torch.autograd.grad(logits[0, k], image, retain_graph=True)[0].reshape(1, -1) for k in range(3)])
    np.testing.assert_allclose(found.numpy(), jacobian(model, image.detach()), rtol=1e-5, atol=1e-7)
    if trust != "constant":  # without the graph of the lengths the gradient is another one
        blind = GradientMixed(g, h, 0.8, "constant", on, norm)
        assert not np.allclose(found.numpy(), jacobian(blind, image.detach()), rtol=1e-2)


@pytest.mark.parametrize("trust", TRUSTS)
def test_it_works_where_gradients_are_off_and_leaves_no_graph(trust):
    model = GradientMixed(*pair(), 0.8, trust, "probabilities", "linf")
    wanted = model(images()).detach()
    asked = images().requires_grad_(True)
    with torch.no_grad():
        for given in (images(), asked):
            silent = model(given)
            assert not silent.requires_grad
            torch.testing.assert_close(silent, wanted, rtol=0, atol=0)
        assert not torch.is_grad_enabled()
    assert asked.grad is None
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("trust", TRUSTS)
@pytest.mark.parametrize("on", ["probabilities", "logits"])
def test_flat_and_saturated_bases_give_finite_gradients(trust, on, norm):
    flat = LinearOracle(torch.zeros(3, 16), torch.tensor([1.0, 0.0, -1.0]), (1, 4, 4))
    sure = LinearOracle(300.0 * torch.eye(3, 16), torch.tensor([0.0, 0.0, -300.0]), (1, 4, 4))
    for g, h in ((flat, sure), (sure, flat), (flat, flat), (sure, sure)):
        leaf = images().float().requires_grad_(True)
        logits = GradientMixed(g, h, 0.5, trust, on, norm)(leaf)
        assert bool(logits.isfinite().all())
        for column in logits.unbind(1):
            (gradient,) = torch.autograd.grad(column.sum(), leaf, retain_graph=True)
            assert bool(gradient.isfinite().all())


def test_two_flat_bases_have_ratio_1():
    flat = [LinearOracle(torch.zeros(3, 16), torch.tensor(b), (1, 4, 4)) for b in ([1.0, 0.0, 0.0], [0.0, 2.0, 0.0])]
    found = GradientMixed(*flat, 3.0, "gradient_ratio", "logits", "l2")(images().float())
    torch.testing.assert_close(found, torch.tensor([[0.25, 1.5, 0.0]]).expand(5, 3))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_lengths_neither_underflow_nor_overflow(norm):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(4, 9, generator=generator) * torch.tensor([[1e-30], [1e30], [1.0], [0.0]])
    found = log_length(vectors, norm).numpy()
    expected = np.log(np.linalg.norm(vectors.double().numpy()[:3], ord=DUAL[norm], axis=1))
    np.testing.assert_allclose(found[:3], expected, rtol=1e-5, atol=1e-5)
    assert -400 < found[3] < -80


@pytest.mark.parametrize("on", ["probabilities", "logits"])
@pytest.mark.parametrize("trust", TRUSTS)
def test_a_convolutional_mix_keeps_the_contract_and_can_be_attacked(trust, on):
    torch.manual_seed(0)
    model = gradient_mixed(small_cnn(**TASK), small_cnn(**TASK), 0.7, trust, on).eval()
    check_classifier(model, (1, 4, 4))
    assert traits(model).gradient == "exact"
    few = images(8).float()
    with torch.no_grad():
        labels = model(few).argmax(1)
    result = PGD(Linf(0.3), steps=5)(model, Batch(few, labels, torch.arange(8)))
    assert bool(result.success.any())
    again = registry.build(model.spec).eval()
    again.load_state_dict(model.state_dict())
    assert again.spec == model.spec
    assert predictor_name(again) == predictor_name(model)
    assert torch.equal(again(few), model(few))


def test_the_bases_stay_as_they_are_in_training():
    torch.manual_seed(0)
    model = gradient_mixed(small_cnn(**TASK), small_cnn(**TASK), 0.7, "gradient").train()
    before = weights_hash(model)
    model(images().float()).sum().backward()
    assert model.training
    assert not any(m.training for m in [*model.accurate.modules(), *model.robust.modules()])
    assert weights_hash(model) == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"gamma": -0.1}, "gamma of 0 or more"),
        ({"gamma": math.inf}, "gamma of 0 or more"),
        ({"gamma": math.nan}, "gamma of 0 or more"),
        ({"gamma": 1.0, "trust": "gradients"}, "did you mean 'gradient'"),
        ({"gamma": 1.0, "on": "logit"}, "did you mean 'logits'"),
        ({"gamma": 1.0, "norm": "l1"}, "no norm 'l1'"),
    ],
)
def test_impossible_settings_are_refused(settings, words):
    base = small_cnn(**TASK)
    with pytest.raises(HauberkError) as caught:
        gradient_mixed(base, base, **settings)
    assert words in str(caught.value)


def test_a_base_without_gradients_and_a_lipschitz_certificate_are_refused():
    oracle = LinearOracle.random((1, 4, 4), 3)
    batch = oracle.batch(2)
    hard = Direction(oracle)
    with pytest.raises(HauberkError, match="no gradient"), torch.no_grad():
        GradientMixed(hard, hard, 1.0, "gradient", "logits", "linf")(batch.images)
    with pytest.raises(HauberkError, match="GradientMixed"):
        LipschitzCertificate()(GradientMixed(oracle, oracle, 1.0, "gradient", "logits", "l2").eval(), batch)


# --- Equations 1 to 3 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_equation_1_of_an_affine_base_is_the_best_point_of_the_ball(norm):
    base, oracle = (LinearOracle.random((1, 4, 4), 2, seed=s).double() for s in (0, 5))
    w = (base.layers[1].weight[1] - base.layers[1].weight[0]).detach()
    unit = w.sign() if norm == "linf" else w / w.norm()
    named = 2.0 * oracle(images(20)).argmax(1).double() - 1.0
    assert set(named.tolist()) == {-1.0, 1.0}
    there = images(20) + 0.03 * named[:, None, None, None] * unit.reshape(1, 1, 4, 4)
    found = LocallyBiased(base, oracle, 0.03, "binary", norm)(images(20))
    expected = base(there)
    torch.testing.assert_close(found[:, 1] - found[:, 0], expected[:, 1] - expected[:, 0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found[:, 0], -found[:, 1])


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("form", ["multiclass", "normalised"])
def test_equations_2_and_3_with_gradients_by_finite_differences(form, norm):
    g, oracle = pair()
    found = LocallyBiased(g, oracle, 0.4, form, norm)(images()).detach().numpy()
    for row, image in zip(found, images(), strict=True):
        reach = 0.4 * np.linalg.norm(jacobian(g, image[None]), ord=DUAL[norm], axis=1)
        sign = np.full(3, -1.0)
        sign[int(oracle(image[None]).argmax())] = 1.0
        expected = g(image[None])[0].detach().numpy() + reach * sign
        np.testing.assert_allclose(row, expected / (1 + reach) if form == "normalised" else expected, rtol=1e-6)


def test_equations_1_and_2_agree_where_one_logit_is_constant_and_only_there():
    weight = torch.cat([torch.zeros(1, 16), torch.randn(1, 16, generator=torch.Generator().manual_seed(0))])
    oracle = LinearOracle.random((1, 4, 4), 2, seed=5)
    for own, same in ((weight, True), (weight.flip(0) + 1.0, False)):
        base = LinearOracle(own, torch.tensor([0.0, 0.1]), (1, 4, 4))
        one, two = (LocallyBiased(base, oracle, 0.1, f, "l2")(images().float()) for f in ("binary", "multiclass"))
        gaps = [z[:, 1] - z[:, 0] for z in (one, two)]
        assert torch.allclose(*gaps, atol=1e-5) is same


def test_with_a_step_of_zero_it_is_the_base():
    g, oracle = pair()
    for form in ("multiclass", "normalised"):
        torch.testing.assert_close(LocallyBiased(g, oracle, 0.0, form, "linf")(images()), g(images()))


def test_its_gradient_is_exact_where_the_oracle_does_not_change_its_mind():
    g, oracle = pair()
    model = LocallyBiased(g, oracle, 0.4, "normalised", "linf")
    image = images(1).requires_grad_(True)
    logits = model(image)
    found = [torch.autograd.grad(logits[0, k], image, retain_graph=True)[0].reshape(-1).numpy() for k in range(3)]
    np.testing.assert_allclose(np.stack(found), jacobian(model, image.detach()), rtol=1e-5, atol=1e-7)


def test_an_attack_sees_the_oracle_through_its_soft_direction():
    flat = LinearOracle(torch.tensor([[0.0], [1e-3]]).expand(2, 16), torch.zeros(2), (1, 4, 4)).double()
    oracle = LinearOracle.random((1, 4, 4), 2, seed=5).double()
    model = LocallyBiased(flat, oracle, 5.0, "binary", "linf").eval()
    assert traits(model).gradient == "none"
    leaf = images(1).requires_grad_(True)
    with attackable(model):
        logits = model(leaf)
        torch.testing.assert_close(logits, model(leaf.detach()), rtol=0, atol=0)
        (gradient,) = torch.autograd.grad(logits[0, 1], leaf)
    slope = (oracle.layers[1].weight[1] - oracle.layers[1].weight[0]).detach()
    with torch.no_grad():
        p = oracle(leaf).softmax(1)[0, 1]
    reach = 5.0 * 16 * 1e-3
    expected = 0.5 * (1e-3 + reach * 2 * p * (1 - p) * slope)
    torch.testing.assert_close(gradient.flatten(), expected, rtol=1e-5, atol=1e-9)


def test_the_baseline_with_a_nearest_neighbour_oracle_keeps_the_contract_and_is_rebuilt():
    torch.manual_seed(0)
    oracle = nearest_neighbour((1, 4, 4), 3, 30).remember(images(30, 2).float(), torch.arange(30) % 3)
    model = locally_biased(small_cnn(**TASK), oracle, 0.1).eval()
    check_classifier(model, (1, 4, 4))
    again = registry.build(model.spec, "defence").eval()
    again.load_state_dict(model.state_dict())
    few = images().float()
    assert torch.equal(again(few), model(few))
    assert predictor_name(again) == predictor_name(model)
    with torch.no_grad():
        assert not model(few).requires_grad
    assert not any(m.training for m in model.train().base.modules())


def test_equation_1_wants_two_classes():
    g, oracle = pair()
    with pytest.raises(HauberkError, match="for 2 classes"):
        LocallyBiased(g, oracle, 0.1, "binary", "l2")(images())
    with pytest.raises(HauberkError, match="did you mean 'multiclass'"):
        LocallyBiased(g, oracle, 0.1, "multi_class", "l2")
