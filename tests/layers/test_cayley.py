"""The Cayley transform: rotations by hand, and orthonormal columns whatever the weights."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize

from hauberk.conformance import check_lipschitz_layer
from hauberk.layers.cayley import Cayley, CayleyConv2d, CayleyLinear


def test_golden_values() -> None:
    rotation = Cayley()(torch.tensor([[0.0, 0.5], [0.0, 0.0]]))
    assert torch.allclose(rotation, torch.tensor([[0.6, -0.8], [0.8, 0.6]]))
    column = Cayley()(torch.tensor([[7.0], [0.5]]))  # the diagonal of U has no say
    assert torch.allclose(column, torch.tensor([[0.6], [-0.8]]))
    assert torch.allclose(Cayley()(column.new_tensor([[7.0, 0.5]])), column.T)
    assert torch.equal(Cayley()(torch.zeros(3, 2)), torch.eye(3)[:, :2])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    scale=st.sampled_from([1e-6, 1.0, 1e2]),
    dtype=st.sampled_from([torch.float64, torch.complex128]),
)
def test_columns_are_orthonormal(seed: int, shape: tuple[int, int], scale: float, dtype: torch.dtype) -> None:
    free = scale * torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    matrix = Cayley()(free)
    small = matrix @ matrix.mH if shape[0] < shape[1] else matrix.mH @ matrix
    assert torch.allclose(small, torch.eye(min(shape), dtype=dtype).expand_as(small), atol=1e-8)


def test_square_matrices_agree_with_the_printed_formula() -> None:
    free = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    skew, eye = free - free.T, torch.eye(4, dtype=torch.float64)
    assert torch.allclose(Cayley()(free), torch.linalg.solve(eye + skew, eye - skew), atol=1e-12)


@pytest.mark.parametrize("shape", [(6, 3), (3, 6), (4, 4)])
def test_the_linear_layer(shape: tuple[int, int]) -> None:
    layer = CayleyLinear(*shape)
    check_lipschitz_layer(layer, (shape[0],))
    inputs = torch.randn(8, shape[0], generator=torch.Generator().manual_seed(1))
    optimiser = torch.optim.SGD(layer.parameters(), 0.5)
    for _ in range(20):
        optimiser.zero_grad()
        (layer(inputs)[:, 0] - inputs.sum(1)).square().mean().backward()
        optimiser.step()
    truth = torch.linalg.svdvals(layer.weight.detach().double())
    assert truth.sub(1).abs().max() < 1e-5
    assert float(truth.max()) <= layer.lipschitz_bound((shape[0],)).value
    plain = layer.eval().export()
    assert type(plain) is nn.Linear
    assert torch.allclose(plain(inputs), layer(inputs), atol=1e-6)
    twin, fresh = copy.deepcopy(layer), CayleyLinear(*shape)
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(twin.weight, fresh.weight)
    with parametrize.cached():
        assert layer.weight is layer.weight
    columns = layer.weight.detach().double().abs().sum(0).max()
    assert layer.lipschitz_bound((shape[0],), "l1").value == pytest.approx(float(columns))


def test_a_kernel_of_one_tap_is_the_linear_layer_at_each_pixel() -> None:
    layer = CayleyConv2d(3, 2, 1, (4, 3)).double()
    matrix = Cayley()(layer.parametrizations.weight.original[:, :, 0, 0])
    images = torch.randn(2, 3, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(layer(images), torch.einsum("oi,bihw->bohw", matrix, images), atol=1e-12)


def test_a_kernel_of_zeros_is_the_identity() -> None:
    layer = CayleyConv2d(2, 2, 3, 4)
    nn.init.zeros_(layer.parametrizations.weight.original)
    images = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(layer(images), images, atol=1e-6)
