"""The mixed classifier: Eq. 5 in logarithms, its ends, its gradients and its names."""

import math

import pytest
import torch
from torch import Tensor, nn

from hauberk.conformance import LinearOracle, check_classifier
from hauberk.defences import MixedClassifier, mixed
from hauberk.defences.mixed import mix_log_probabilities
from hauberk.errors import HauberkError
from hauberk.models import small_cnn


class Never(nn.Module):
    """A base that must not be run."""

    def forward(self, images: Tensor) -> Tensor:
        raise AssertionError("this base has no weight in the mix")


def logits(seed: int, scale: float, rows: int = 20, classes: int = 4) -> Tensor:
    return scale * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("alpha", [1e-6, 0.1, 0.5, 0.84, 1 - 1e-6])
@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_it_is_equation_5(alpha: float, scale: float) -> None:
    g, h = logits(0, scale), logits(1, scale)
    expected = ((1 - alpha) * g.softmax(1) + alpha * h.softmax(1)).log()
    torch.testing.assert_close(mix_log_probabilities(g, h, alpha), expected, atol=1e-6, rtol=1e-6)
    single = mix_log_probabilities(g.float(), h.float(), alpha).double()
    torch.testing.assert_close(single, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(single.exp().sum(1), torch.ones(20, dtype=torch.float64), atol=1e-5, rtol=0)


@pytest.mark.parametrize("gap", [50.0, 500.0, 1e4])
def test_gradients_are_finite_where_probabilities_underflow(gap: float) -> None:
    g = torch.tensor([[gap, 0.0, 0.0]], requires_grad=True)
    h = torch.tensor([[0.0, gap, 0.0]], requires_grad=True)
    found = mix_log_probabilities(g, h, 0.8)
    assert bool(found.isfinite().all())
    for column in range(3):
        gradients = torch.autograd.grad(found[0, column], (g, h), retain_graph=True)
        assert all(bool(part.isfinite().all()) for part in gradients)
        if column == 2:  # neither model believes in it: the naive form is log(0) here
            assert all(bool((part != 0).any()) for part in gradients)
    assert float(found[0, 0].detach()) == pytest.approx(math.log(0.2), abs=1e-5)
    assert float(found[0, 1].detach()) == pytest.approx(math.log(0.8), abs=1e-5)


@pytest.mark.parametrize("scale", [1.0, 3.7])
def test_at_the_ends_it_is_the_base_bit_for_bit_and_the_other_is_not_run(scale: float) -> None:
    oracle = LinearOracle.random((1, 3, 3), 4)
    images = oracle.batch(9).images
    expected = (scale * oracle(images)).log_softmax(1)
    assert torch.equal(MixedClassifier(oracle, Never(), 0.0, scale, 9.0)(images), expected)
    assert torch.equal(MixedClassifier(Never(), oracle, 1.0, 9.0, scale)(images), expected)


def test_each_scale_belongs_to_its_base() -> None:
    g, h = (LinearOracle.random((1, 3, 3), 4, seed=s) for s in (0, 1))
    images = g.batch(9).images
    expected = (0.3 * (2.0 * g(images)).softmax(1) + 0.7 * (5.0 * h(images)).softmax(1)).log()
    torch.testing.assert_close(MixedClassifier(g, h, 0.7, 2.0, 5.0)(images), expected, atol=1e-5, rtol=1e-5)


def test_conformance() -> None:
    g, h = (LinearOracle.random((1, 3, 3), 4, seed=s) for s in (0, 1))
    check_classifier(MixedClassifier(g, h, 0.7, 2.0, 5.0).eval(), (1, 3, 3))


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_impossible_weights_are_refused(alpha: float) -> None:
    with pytest.raises(HauberkError, match=r"alpha in \[0, 1\]"):
        MixedClassifier(Never(), Never(), alpha, 1.0, 1.0)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("side", ["accurate_scale", "robust_scale"])
def test_scales_are_positive(scale: float, side: str) -> None:
    """A negative one would turn the order of the classes around, and the sign of their Lipschitz bounds."""
    with pytest.raises(HauberkError, match="positive scales"):
        MixedClassifier(Never(), Never(), 0.5, **({"accurate_scale": 1.0, "robust_scale": 1.0} | {side: scale}))


def test_the_spec_holds_both_bases() -> None:
    task = {"input_shape": (1, 4, 4), "num_classes": 3, "mean": (0.5,), "std": (0.2,)}
    base = small_cnn(**task, widths=(2,), strides=(1,))
    spec = mixed(base, base, 0.8, robust_scale=2.0).spec
    assert spec["accurate"] == spec["robust"] == base.spec
    assert (spec["alpha"], spec["accurate_scale"], spec["robust_scale"]) == (0.8, 1.0, 2.0)
