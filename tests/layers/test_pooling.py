"""Pooling against dense matrices, planted peaks and lengths by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from hauberk.conformance import check_lipschitz_layer
from hauberk.errors import HauberkError
from hauberk.layers.pooling import (
    GlobalAveragePool,
    L2NormPool2d,
    ScaledAvgPool2d,
    adaptive_average_pool_bound,
    average_pool_bound,
    max_pool_bound,
)
from hauberk.threats import norms

NORMS = ("l1", "l2", "linf")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def operator_norm(matrix: Tensor, norm: str) -> float:
    if norm == "l2":
        return float(torch.linalg.matrix_norm(matrix, 2))
    return float(matrix.abs().sum(0 if norm == "l1" else 1).max())


def dense(layer: nn.Module, shape: tuple[int, int, int]) -> Tensor:
    """Matrix of a linear layer."""
    size = math.prod(shape)
    return layer(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).flatten(1).T


def check_exact(layer: nn.Module, shape: tuple[int, int, int], bound) -> None:
    for norm in NORMS:
        truth, claim = operator_norm(dense(layer, shape), norm), bound(shape, norm)
        assert truth <= claim.value * (1 + 1e-14), (norm, truth, claim)
        assert claim.value <= truth * (1 + 1e-7)
        assert claim.exact


# --- means -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [1, 2, 3, (2, 3), (3, 1)])
@pytest.mark.parametrize("stride", [None, 1, 2, (3, 1)])
def test_average_pooling_against_its_matrix(kernel: int | tuple[int, int], stride: int | tuple[int, int]) -> None:
    smallest = kernel if isinstance(kernel, int) else min(kernel)
    for padding, ceil_mode, counted in itertools.product({0, smallest // 2}, (False, True), (False, True)):
        layer = nn.AvgPool2d(kernel, stride, padding, ceil_mode, counted)
        check_exact(layer, (2, 5, 6), lambda *a, layer=layer: average_pool_bound(layer, *a))
    layer = nn.AvgPool2d(kernel, stride, ceil_mode=True, divisor_override=3)
    check_exact(layer, (1, 7, 4), lambda *a, layer=layer: average_pool_bound(layer, *a))


def test_average_pooling_by_hand() -> None:
    for norm, value in (("l1", 1 / 9), ("l2", 1 / 3), ("linf", 1.0)):
        assert average_pool_bound(nn.AvgPool2d(3), (4, 9, 9), norm).value == pytest.approx(value)
    # overlapping windows share the middle: more than disjoint ones, and the divisor counts
    assert average_pool_bound(nn.AvgPool2d(2, 1), (1, 64, 64)).value == pytest.approx(1.0, abs=1e-3)
    assert average_pool_bound(nn.AvgPool2d(2, divisor_override=1), (1, 4, 4)).value == pytest.approx(2.0)
    assert average_pool_bound(nn.AvgPool2d(2, divisor_override=-1), (1, 4, 4)).value == pytest.approx(2.0)
    # a corner window that sees one value, and divides by one if padding does not count
    corner = nn.AvgPool2d(2, 2, 1, count_include_pad=False)
    assert average_pool_bound(corner, (1, 4, 4)).value == pytest.approx(1.0)


@pytest.mark.parametrize("size", [1, 2, (3, 2), (None, 4), 7])
def test_adaptive_average_pooling_against_its_matrix(size: int | tuple[int | None, int]) -> None:
    layer = nn.AdaptiveAvgPool2d(size)
    check_exact(layer, (2, 5, 6), lambda *a: adaptive_average_pool_bound(layer, *a))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (ScaledAvgPool2d(2), (2, 4, 6)),
        (ScaledAvgPool2d((3, 2)), (1, 7, 5)),
        (GlobalAveragePool(), (2, 3, 4)),
        (GlobalAveragePool(scaled=True), (2, 3, 4)),
        (GlobalAveragePool(scaled=True), (2, 1, 1)),
    ],
    ids=repr,
)
def test_scaled_means_against_their_matrix(layer: nn.Module, shape: tuple[int, int, int]) -> None:
    check_exact(layer, shape, layer.lipschitz_bound)
    check_lipschitz_layer(layer, shape)


def test_scaled_means_by_hand() -> None:
    features = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert ScaledAvgPool2d(2)(features).flatten().tolist() == [5.0, 9.0, 21.0, 25.0]
    assert GlobalAveragePool()(features).tolist() == [[7.5]]
    assert GlobalAveragePool(scaled=True)(features).tolist() == [[30.0]]
    assert ScaledAvgPool2d(2).lipschitz_bound((1, 4, 4)).value == 1.0
    assert ScaledAvgPool2d((3, 2)).lipschitz_bound((1, 6, 6)).value == 1.0
    assert GlobalAveragePool(scaled=True).lipschitz_bound((3, 5, 7)).value == 1.0


# --- maxima ----------------------------------------------------------------------------------------------------


def peak_ratio(layer: nn.Module, shape: tuple[int, int, int], norm: str) -> float:
    """How far outputs move if a peak anywhere is raised by one: an input that no other overtops."""
    size = math.prod(shape)
    peaks = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
    return float(norms(layer(2.0 * peaks) - layer(peaks), norm).max())


@pytest.mark.parametrize("kernel", [1, 2, 3, (3, 2)])
@pytest.mark.parametrize("stride", [None, 1, 2, (1, 3)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_max_pooling_is_exact(kernel: int | tuple[int, int], stride: int | tuple[int, int], dilation: int) -> None:
    smallest = kernel if isinstance(kernel, int) else min(kernel)
    for padding, ceil_mode in itertools.product({0, smallest // 2}, (False, True)):
        layer = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil_mode)
        shape = (2, 6, 7)
        first = normal(100, *shape, seed=1)
        second = (
            first + normal(100, *shape, seed=2) * torch.logspace(-3, 1, 100, dtype=torch.float64)[:, None, None, None]
        )
        for norm in NORMS:
            bound = max_pool_bound(layer, shape, norm)
            assert peak_ratio(layer, shape, norm) == pytest.approx(bound.value, rel=1e-7)
            moved = norms(layer(first) - layer(second), norm) / norms(first - second, norm)
            assert float(moved.max()) <= bound.value
            assert bound.exact


def test_max_pooling_by_hand() -> None:
    assert max_pool_bound(nn.MaxPool2d(2), (3, 8, 8)).value == 1.0
    assert max_pool_bound(nn.MaxPool2d(2, 3), (3, 8, 8), "l1").value == 1.0
    for norm, value in (("l1", 9.0), ("l2", 3.0), ("linf", 1.0)):
        assert max_pool_bound(nn.MaxPool2d(3, 1), (3, 8, 8), norm).value == pytest.approx(value)
    # the pooling of ResNets: windows of 3, stride 2: a position is in two of them an axis
    assert max_pool_bound(nn.MaxPool2d(3, 2, 1), (3, 8, 8)).value == pytest.approx(2.0)
    assert max_pool_bound(nn.MaxPool2d(3, 1), (3, 3, 3)).value == 1.0  # there is one window only


def test_trained_pairs_stay_below_the_bound_of_max_pooling() -> None:
    layer = nn.MaxPool2d(3, 2, 1)
    first, second = normal(10, 1, 5, 5, seed=1).requires_grad_(), normal(10, 1, 5, 5, seed=2).requires_grad_()
    climber = torch.optim.Adam([first, second], 0.1)
    for _ in range(100):
        ratio = norms(layer(first) - layer(second), "l2") / norms(first - second, "l2")
        climber.zero_grad()
        (-ratio.sum()).backward()
        climber.step()
    assert 1.5 < float(ratio.detach().max()) <= max_pool_bound(layer, (1, 5, 5)).value


# --- lengths ---------------------------------------------------------------------------------------------------


def test_lengths_by_hand() -> None:
    features = torch.tensor([[3.0, 4.0, 0.0, 5.0, 9.0], [0.0, 0.0, 12.0, 0.0, 9.0], [9.0] * 5]).reshape(1, 1, 3, 5)
    assert L2NormPool2d(2)(features).tolist() == [[[[5.0, 13.0]]]]
    out = L2NormPool2d((1, 2))(normal(2, 3, 2, 6))
    assert torch.allclose(out, normal(2, 3, 2, 6).unflatten(3, (3, 2)).norm(dim=4))


@pytest.mark.parametrize("kernel", [2, (2, 3)])
def test_lengths_are_contracted(kernel: int | tuple[int, int]) -> None:
    layer = L2NormPool2d(kernel)
    check_lipschitz_layer(layer, (2, 5, 6))
    area = math.prod(layer.kernel_size)
    first = normal(200, 2, 5, 6, seed=1)
    second = first + normal(200, 2, 5, 6, seed=2) * torch.logspace(-3, 2, 200, dtype=torch.float64)[:, None, None, None]
    second[:50] = 1.5 * first[:50]  # along itself a window keeps all of its length
    second[50:100] = 1.0
    first[50:100] = 0.5  # and a whole window moves together
    for norm, value in (("l1", 1.0), ("l2", 1.0), ("linf", math.sqrt(area))):
        bound = layer.lipschitz_bound((2, 5, 6), norm)
        moved = norms(layer(first) - layer(second), norm) / norms(first - second, norm)
        assert float(moved.max()) <= bound.value * (1 + 1e-12)
        assert bound.value == pytest.approx(value)
    assert layer.lipschitz_bound((2, 5, 6)).value == 1.0
    whole = normal(3, 2, 6, 6)
    assert torch.allclose(norms(layer(whole), "l2"), norms(whole, "l2"))


def test_a_peak_keeps_its_size_in_l1() -> None:
    layer = L2NormPool2d(2)
    for norm in ("l1", "l2"):
        assert peak_ratio(layer, (1, 4, 4), norm) == pytest.approx(layer.lipschitz_bound((1, 4, 4), norm).value)


def test_lengths_have_gradients_of_length_one_or_zero() -> None:
    features = normal(1, 2, 4, 4)
    features[0, 0, :2, :2] = 0.0
    features.requires_grad_()
    L2NormPool2d(2)(features).sum().backward()
    assert features.grad is not None
    lengths = L2NormPool2d(2)(features.grad)
    expected = torch.ones(1, 2, 2, 2, dtype=torch.float64)
    expected[0, 0, 0, 0] = 0.0
    assert torch.allclose(lengths, expected)


# --- refusals --------------------------------------------------------------------------------------------------


def test_refusals() -> None:
    layers = (L2NormPool2d(3), ScaledAvgPool2d(3), GlobalAveragePool())
    bounds = [layer.lipschitz_bound for layer in layers]
    bounds.append(lambda *a: max_pool_bound(nn.MaxPool2d(3), *a))
    bounds.append(lambda *a: average_pool_bound(nn.AvgPool2d(3), *a))
    bounds.append(lambda *a: adaptive_average_pool_bound(nn.AdaptiveAvgPool2d(2), *a))
    for bound in bounds:
        with pytest.raises(HauberkError, match="'l3'"):
            bound((2, 6, 6), "l3")
        for shape in ((6, 6), (2, 0, 6), (1, 2, 6, 6)):
            with pytest.raises(HauberkError, match=r"expected a shape \(C, H, W\)"):
                bound(shape)
    for bound in (*bounds[:2], *bounds[3:5]):
        with pytest.raises(HauberkError, match="use larger images"):
            bound((2, 2, 6))
    with pytest.raises(HauberkError, match="use larger images"):
        L2NormPool2d(3)(torch.zeros(1, 1, 2, 6))
    with pytest.raises(HauberkError, match="indices"):
        max_pool_bound(nn.MaxPool2d(2, return_indices=True), (1, 4, 4))
    with pytest.raises(HauberkError, match="only padding"):
        max_pool_bound(nn.MaxPool2d(2, 1, 1, dilation=2), (1, 1, 4))
