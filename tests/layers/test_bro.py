"""Block reflectors: orthogonal matrices, one for vectors and one for each frequency."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.conformance import check_lipschitz_layer
from hauberk.errors import HauberkError
from hauberk.layers import linear_norm
from hauberk.layers.bro import BlockReflector, BROConv2d, BROLinear


def dense(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Matrix of an affine layer, in float64."""
    size = math.prod(shape)
    layer = copy.deepcopy(layer).double()
    eye = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
    return (layer(eye) - layer(torch.zeros_like(eye))).flatten(1).T.detach()


def randomise(layer: nn.Module, seed: int, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


def assert_semi_orthogonal(matrix: Tensor, atol: float = 1e-9) -> None:
    gram = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
    assert torch.allclose(gram, torch.eye(len(gram), dtype=gram.dtype), atol=atol)


@pytest.mark.parametrize(("into", "out"), [(4, 4), (3, 6), (6, 3), (1, 1), (5, 1)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_linear_is_semi_orthogonal(into: int, out: int, scale: float) -> None:
    layer = BROLinear(into, out).double()
    randomise(layer, 0, scale)
    assert layer.weight.shape == (out, into)
    assert_semi_orthogonal(layer.weight)
    bound = layer.lipschitz_bound((into,))
    assert bound == linear_norm(layer.weight)
    assert float(torch.linalg.matrix_norm(dense(layer, (into,)), 2)) <= bound.value * (1 + 1e-15)
    assert bound.value == pytest.approx(1.0, abs=1e-8)


def test_a_reflector_by_hand() -> None:
    # one direction: the Householder reflection
    v = torch.tensor([[1.0], [2.0], [-2.0]], dtype=torch.float64)
    expected = torch.eye(3, dtype=torch.float64) - 2.0 * v @ v.T / 9.0
    assert torch.allclose(BlockReflector(3, 3)(v), expected, atol=1e-12)
    # k directions: symmetric, with k eigenvalues -1
    v = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight = BlockReflector(5, 5)(v)
    assert torch.allclose(weight, weight.T)
    values = torch.linalg.eigvalsh(weight)
    assert torch.allclose(values, torch.tensor([-1.0, -1.0, 1.0, 1.0, 1.0], dtype=torch.float64))
    assert torch.allclose(weight @ v, -v)  # what lies in the block is turned around
    assert torch.allclose(BlockReflector(2, 4)(v), weight[:2, :4])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    stride=st.integers(1, 2),
    rank=st.integers(1, 6),
)
def test_convolution_is_semi_orthogonal(
    seed: int, channels: tuple[int, int], kernel: tuple[int, int], stride: int, rank: int
) -> None:
    side = max(channels[0] * stride**2, channels[1])
    layer = BROConv2d(*channels, kernel, stride=stride, rank=min(rank, side)).double().eval()
    randomise(layer, seed)
    shape = (channels[0], 3 * stride, 5 * stride) if kernel[1] > 3 else (channels[0], 4 * stride, 3 * stride)
    matrix = dense(layer, shape)
    # where a frequency's directions happen to depend on each other, the ridge leaves a contraction
    assert_semi_orthogonal(matrix, atol=1e-5)
    truth, bound = float(torch.linalg.matrix_norm(matrix, 2)), layer.lipschitz_bound(shape)
    assert truth <= bound.value <= truth * (1 + 1e-8)
    assert bound.exact


def test_a_kernel_of_one_pixel_is_the_linear_layer() -> None:
    layer, plane = BROConv2d(4, 6, 1).double(), BROLinear(4, 6).double()
    randomise(layer, 0)
    with torch.no_grad():
        plane.parametrizations.weight.original.copy_(layer.directions[:, :, 0, 0])
        plane.bias.copy_(layer.bias)
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(layer(x), plane(x.movedim(1, -1)).movedim(-1, 1))


def test_convolution_agrees_with_a_dense_projection() -> None:
    # V as a circular convolution from 2 to 4 channels; then the projection onto its range, all in pixel space
    layer = BROConv2d(4, 4, 3, bias=False).double()
    randomise(layer, 1)
    n = 4
    v = torch.zeros(4 * n * n, 2 * n * n, dtype=torch.float64)
    grid = torch.arange(n * n).reshape(n, n)
    for dy in range(3):
        for dx in range(3):
            shifted = grid.roll((-dy, -dx), (0, 1)).flatten()
            for out in range(4):
                for into in range(2):
                    v[out * n * n + shifted, into * n * n + grid.flatten()] += layer.directions[out, into, dy, dx]
    projection = v @ torch.linalg.pinv(v)
    expected = torch.eye(len(v), dtype=torch.float64) - 2.0 * projection
    assert torch.allclose(dense(layer, (4, n, n)), expected, atol=1e-8)


def test_moves_with_the_image() -> None:
    layer = BROConv2d(2, 6, 3).double()
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(layer(x.roll((1, 2), (2, 3))), layer(x).roll((1, 2), (2, 3)))


def test_dependent_directions_leave_a_contraction() -> None:
    layer, plane = BROConv2d(4, 4, 3).double(), BROLinear(4, 4).double()
    with torch.no_grad():
        layer.directions[:, 1] = layer.directions[:, 0]
        plane.parametrizations.weight.original[:, 1] = plane.parametrizations.weight.original[:, 0]
    for part, shape in ((layer, (4, 4, 4)), (plane, (4,))):
        norm = float(torch.linalg.matrix_norm(dense(part, shape), 2))
        assert norm <= part.lipschitz_bound(shape).value <= 1.0 + 1e-8
        part.float()
        assert part.lipschitz_bound(shape).value <= 1.0 + 1e-4


def test_the_ridge_errs_to_the_safe_side() -> None:
    # one direction is almost lost: its eigenvalue 1 - 2p moves from -1 inwards
    weight = BlockReflector(2, 2)(torch.diag(torch.tensor([1.0, 1e-7], dtype=torch.float64)))
    assert weight[0, 0].item() == pytest.approx(-1.0)
    assert -0.9 < weight[1, 1].item() < 0.0
    assert linear_norm(weight).value <= 1.0 + 2e-9


def test_trained_to_stretch() -> None:
    layer = BROConv2d(2, 3, 2).double()
    randomise(layer, 0)
    optimiser = torch.optim.Adam(layer.parameters(), 0.1)
    for _ in range(25):
        norm = torch.linalg.matrix_norm(dense_with_gradient(layer, (2, 3, 3)), 2)
        assert norm.item() <= 1.0 + 1e-9
        optimiser.zero_grad()
        (-norm).backward()
        optimiser.step()
    assert layer.lipschitz_bound((2, 3, 3)).value == pytest.approx(1.0, abs=1e-8)


def dense_with_gradient(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    eye = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    return (layer(eye) - layer(torch.zeros_like(eye))).flatten(1).T


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_export_copies_and_state(dtype: torch.dtype) -> None:
    linear, conv = BROLinear(4, 6), BROConv2d(2, 4, 3)
    for layer, fresh, shape in ((linear, BROLinear(4, 6), (4,)), (conv, BROConv2d(2, 4, 3), (2, 5, 5))):
        randomise(layer, 0)
        layer, fresh = layer.to(dtype).eval(), fresh.to(dtype)
        x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        expected, twin = layer(x), copy.deepcopy(layer)
        assert expected.dtype == dtype
        fresh.load_state_dict(layer.state_dict())
        if isinstance(layer, BROLinear):
            assert type(layer.export()) is nn.Linear
            assert torch.equal(layer.export()(x), expected)
            with parametrize.cached():
                assert layer.weight is layer.weight
        randomise(layer, 1)
        for other in (twin, fresh):
            assert torch.equal(other(x), expected)
    assert repr(conv).startswith("BROConv2d(2, 4")


def test_contract_zeros_and_training() -> None:
    for layer, shape in (
        (BROLinear(4, 6), (4,)),
        (BROConv2d(2, 4, 3), (2, 4, 5)),
        (BROConv2d(3, 2, 2, stride=2), (3, 4, 6)),
    ):
        check_lipschitz_layer(layer, shape)
        x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
        optimiser = torch.optim.SGD(layer.parameters(), 0.1)
        for start in (1.0, 0.0):
            randomise(layer, 0, start)
            for _ in range(3):
                optimiser.zero_grad()
                (layer(x) - 1.0).square().sum().backward()
                optimiser.step()
            assert all(bool(p.isfinite().all()) for p in layer.parameters())
        randomise(layer, 0, math.nan)
        with pytest.raises(HauberkError, match="NaN"):
            layer.eval().lipschitz_bound(shape)


def test_refusals() -> None:
    with pytest.raises(HauberkError, match="rank between 1 and 4"):
        BROLinear(4, 3, rank=5)
    with pytest.raises(HauberkError, match="no bound in l1"):
        BROConv2d(2, 2, 3).lipschitz_bound((2, 4, 4), "l1")
    for shape in ((2, 2, 4), (3, 4, 4), (2, 4), (2, 5, 4)):
        layer = BROConv2d(2, 2, 3, stride=2 if shape[1] == 5 else 1)
        with pytest.raises(HauberkError, match="as large as the kernel"):
            layer.lipschitz_bound(shape)
    with pytest.raises(HauberkError, match="as large as the kernel"):
        BROConv2d(2, 2, 3)(torch.zeros(1, 2, 2, 2))
    with pytest.raises(HauberkError, match="as large as the kernel"):
        BROConv2d(2, 2, 3, stride=2)(torch.zeros(1, 2, 4, 4))
