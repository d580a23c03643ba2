"""Björck's iteration: the polar factor where it converges, a contraction where it does not."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize

from hauberk.conformance import check_lipschitz_layer
from hauberk.errors import HauberkError
from hauberk.layers.bjorck import Bjorck, BjorckLinear
from hauberk.layers.gram import positive_bound
from hauberk.layers.norms import linear_norm


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    steps=st.integers(0, 6),
    scale=st.sampled_from([1e-12, 1.0, 1e9]),
    rank=st.integers(1, 7),
)
def test_a_contraction_after_any_number_of_steps(
    seed: int, shape: tuple[int, int], steps: int, scale: float, rank: int
) -> None:
    free = scale * gaussian(shape[0], rank, seed=seed) @ gaussian(rank, shape[1], seed=seed + 1)
    assert float(positive_bound(free)) >= float(torch.linalg.matrix_norm(free, 2)) * (1 - 1e-12)
    assert float(torch.linalg.matrix_norm(Bjorck(steps)(free), 2)) <= 1 + 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("shape", [(5, 5), (6, 3), (3, 6), (2, 4, 3), (1, 1)])
def test_it_converges_to_the_polar_factor(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    free = gaussian(*shape, dtype=dtype)
    u, _, vh = torch.linalg.svd(free, full_matrices=False)
    assert torch.allclose(Bjorck(40)(free), u @ vh, atol=1e-10)
    assert torch.allclose(Bjorck(12)(torch.eye(4)[:3]), torch.eye(4)[:3], atol=1e-6)


def test_a_step_carries_s_to_half_s_times_three_minus_s_squared() -> None:
    free = gaussian(4, 3)
    start = torch.linalg.svdvals(free / positive_bound(free))
    by_hand = 0.5 * start * (3 - start**2)
    assert torch.allclose(torch.linalg.svdvals(Bjorck(1)(free)), by_hand, atol=1e-12)
    assert 0.9 < float(start.max()) <= 1.0  # a tight start saves steps
    assert float(Bjorck(1)(torch.tensor([[-3.0]]))) == pytest.approx(-1.0)


def test_the_gradient_is_that_of_differences() -> None:
    free = gaussian(3, 2).requires_grad_()
    assert torch.autograd.gradcheck(Bjorck(5), (free,))
    assert torch.autograd.gradcheck(Bjorck(3), (gaussian(2, 3, dtype=torch.complex128).requires_grad_(),))


@pytest.mark.parametrize("shape", [(8, 3), (3, 8), (4, 4)])
def test_the_linear_layer(shape: tuple[int, int]) -> None:
    layer = BjorckLinear(*shape)
    check_lipschitz_layer(layer, (shape[0],))
    optimiser = torch.optim.SGD(layer.parameters(), 0.5)
    inputs = gaussian(16, shape[0], seed=1, dtype=torch.float32)
    for _ in range(30):  # training pulls at the rows
        optimiser.zero_grad()
        (layer(inputs)[:, 0] - inputs.sum(1)).square().mean().backward()
        optimiser.step()
    weight = layer.weight.detach().double()
    small = weight @ weight.T if shape[1] <= shape[0] else weight.T @ weight
    assert torch.allclose(small, torch.eye(min(shape), dtype=torch.float64), atol=1e-5)
    bound = layer.lipschitz_bound((shape[0],))
    assert bound.value >= float(torch.linalg.matrix_norm(weight, 2))
    assert bound.value == pytest.approx(1.0, abs=1e-5)


def test_the_bound_is_that_of_the_result_and_not_of_the_intent() -> None:
    layer = BjorckLinear(6, 6, steps=0)
    with torch.no_grad():
        layer.parametrizations.weight.original.copy_(torch.diag(torch.tensor([4.0, 1, 1, 1, 1, 1])))
    assert layer.lipschitz_bound((6,)).value == linear_norm(layer.weight).value
    parametrize.remove_parametrizations(layer, "weight")
    with torch.no_grad():
        layer.weight.mul_(3.0)
    assert layer.lipschitz_bound((6,)).value == pytest.approx(3.0, rel=0.05)


def test_two_logits_of_an_orthogonal_last_layer_differ_by_root_two() -> None:
    rows = BjorckLinear(9, 4).double().weight
    assert torch.allclose(torch.pdist(rows), torch.full((6,), math.sqrt(2.0), dtype=torch.float64), atol=1e-7)


def test_the_other_norms_are_the_largest_sums() -> None:
    layer = BjorckLinear(5, 3).double()
    sums = layer.weight.detach().abs().sum(1).max(), layer.weight.detach().abs().sum(0).max()
    assert layer.lipschitz_bound((5,), "linf").value == pytest.approx(float(sums[0]))
    assert layer.lipschitz_bound((5,), "l1").value == pytest.approx(float(sums[1]))


def test_zeros_give_zeros_and_gradients() -> None:
    layer = BjorckLinear(3, 2)
    nn.init.zeros_(layer.parametrizations.weight.original)
    layer(torch.ones(1, 3)).sum().backward()
    assert bool(layer.parametrizations.weight.original.grad.isfinite().all())
    assert layer.lipschitz_bound((3,)).value == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_export_copies_state_and_cache(dtype: torch.dtype) -> None:
    layer = BjorckLinear(5, 3, bias=dtype == torch.float32).to(dtype).eval()
    inputs = gaussian(2, 5, dtype=dtype)
    plain = layer.export()
    assert type(plain) is nn.Linear
    assert not plain.training
    assert torch.allclose(plain(inputs), layer(inputs), atol=1e-6 if dtype == torch.float32 else 1e-12)
    twin = copy.deepcopy(layer)
    fresh = BjorckLinear(5, 3, bias=dtype == torch.float32).to(dtype)
    fresh.load_state_dict(layer.state_dict())
    with parametrize.cached():
        assert layer.weight is layer.weight
        assert torch.equal(fresh.weight, twin.weight)


def test_refusals() -> None:
    with pytest.raises(HauberkError, match="steps >= 0"):
        Bjorck(-1)
    broken = BjorckLinear(2, 2)
    nn.init.constant_(broken.parametrizations.weight.original, math.nan)
    with pytest.raises(HauberkError, match="NaN"):
        broken.lipschitz_bound((2,))
