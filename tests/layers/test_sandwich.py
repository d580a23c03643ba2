"""Sandwich layers: halves of an orthogonal matrix, and a bound that needs no exact orthogonality."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.conformance import check_lipschitz_layer
from hauberk.errors import HauberkError
from hauberk.layers.cayley import Cayley
from hauberk.layers.sandwich import SandwichConv2d, SandwichLinear


def randomise(layer: nn.Module, seed: int, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


def steepest(layer: SandwichLinear, norm: str = "l2") -> float:
    """The largest norm of 2 A' D B over all patterns D of relus that are on and off."""
    a, b = layer.weight.detach().double().split([layer.out_features, layer.in_features], dim=1)
    masks = torch.tensor(list(itertools.product([0.0, 1.0], repeat=layer.out_features)), dtype=torch.float64)
    maps = 2.0 * a.T @ (masks[:, :, None] * b)
    if norm == "l2":
        return float(torch.linalg.matrix_norm(maps, 2).max())
    return float(maps.abs().sum(1 if norm == "l1" else 2).max())


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6), into=st.integers(1, 6), out=st.integers(1, 6), scale=st.sampled_from([1e-4, 1.0, 100.0])
)
def test_rows_are_orthonormal_and_no_pattern_is_steeper(seed: int, into: int, out: int, scale: float) -> None:
    layer = SandwichLinear(into, out).double().eval()
    randomise(layer, seed, scale)
    weight = layer.weight.detach()
    assert torch.allclose(weight @ weight.T, torch.eye(out, dtype=torch.float64), atol=1e-9)
    bound = layer.lipschitz_bound((into,)).value
    assert steepest(layer) <= bound <= 1.0 + 1e-8
    for norm in ("l1", "linf"):
        assert steepest(layer, norm) <= layer.lipschitz_bound((into,), norm).value


def test_the_cayley_transform_by_hand() -> None:
    # one value: Z = y^2, so that A = (1 - y^2) / (1 + y^2) and B = -2 y / (1 + y^2): a point of the unit circle
    for y in (0.0, 0.5, 1.0, -3.0):
        halves = Cayley()(torch.tensor([[7.0, y]], dtype=torch.float64))
        expected = [(1 - y**2) / (1 + y**2), -2 * y / (1 + y**2)]
        assert torch.allclose(halves, torch.tensor([expected], dtype=torch.float64))
    # square and without Y: the Cayley transform of a skew matrix, here a rotation by 2 atan(s)
    halves = Cayley()(torch.tensor([[0.0, 0.3], [0.0, 0.0]], dtype=torch.float64))
    cos, sin = math.cos(2 * math.atan(0.3)), math.sin(2 * math.atan(0.3))
    assert torch.allclose(halves, torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64))


def test_agrees_with_the_printed_formula() -> None:
    layer = SandwichLinear(4, 3).double()
    randomise(layer, 0)
    x = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    a, b = layer.weight[:, :3], layer.weight[:, 3:]
    psi = torch.diag(layer.log_psi.exp())
    rows = [
        math.sqrt(2) * a.T @ psi @ torch.relu(math.sqrt(2) * torch.linalg.inv(psi) @ b @ row + layer.bias) for row in x
    ]
    assert torch.allclose(layer(x), torch.stack(rows))


def arbitrary(a: Tensor, b: Tensor) -> SandwichLinear:
    """A layer with given matrices, orthogonal or not."""
    layer = SandwichLinear(b.shape[1], len(a)).double().eval().export()
    assert isinstance(layer, SandwichLinear)
    with torch.no_grad():
        layer.weight.copy_(torch.cat([a, b], 1))
        layer.log_psi.copy_(torch.linspace(-1, 1, len(a)))
    return layer


def test_matrices_that_are_not_orthogonal_are_told_by_the_bound() -> None:
    generator = torch.Generator().manual_seed(0)
    ratios = []
    for _ in range(20):
        a, b = (torch.randn(4, n, dtype=torch.float64, generator=generator) for n in (4, 3))
        layer = arbitrary(a, b)
        bound = layer.lipschitz_bound((3,)).value
        ratios.append(steepest(layer) / bound)
        assert bound <= 2.0 * float(torch.linalg.matrix_norm(a, 2) * torch.linalg.matrix_norm(b, 2)) * (1 + 1e-8)
    assert 0.5 < max(ratios) <= 1.0
    # both ways of bounding are attained: the product where A and B point elsewhere, the squared norm where A = B
    apart = arbitrary(torch.tensor([[3.0]]), torch.tensor([[0.1]]))
    assert apart.lipschitz_bound((1,)).value == pytest.approx(0.6, rel=1e-7)
    cross = arbitrary(torch.diag(torch.tensor([1.0, 0.1])), torch.diag(torch.tensor([0.1, 1.0])))
    slanted = arbitrary(torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.diag(torch.tensor([1.0, 0.0])))
    for norm, expected in (("l1", 4.0), ("linf", 2.0)):
        assert steepest(slanted, norm) == pytest.approx(expected)
        assert slanted.lipschitz_bound((2,), norm).value == pytest.approx(expected, rel=1e-7)
    assert steepest(cross) == pytest.approx(0.2)
    assert cross.lipschitz_bound((2,)).value == pytest.approx(1.01, rel=1e-7)


def test_trained_to_stretch() -> None:
    layer = SandwichLinear(4, 5).double()
    randomise(layer, 0)
    with torch.no_grad():
        layer.bias.fill_(50.0)  # the relus stay on
    optimiser, best = torch.optim.Adam(layer.parameters(), 0.05), 0.0
    x = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for _ in range(60):
        jacobian = torch.autograd.functional.jacobian(lambda v: layer(v[None])[0], x, create_graph=True)
        norm = torch.linalg.matrix_norm(jacobian, 2)
        best = max(best, norm.item())
        optimiser.zero_grad()
        (-norm).backward()
        optimiser.step()
    assert 0.9 < best <= 1.0 + 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_export_copies_and_state(dtype: torch.dtype) -> None:
    layer = SandwichLinear(4, 6)
    randomise(layer, 0)
    layer = layer.to(dtype).eval()
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1)).to(dtype)
    plain, twin, expected = layer.export(), copy.deepcopy(layer), layer(x)
    fresh = SandwichLinear(4, 6).to(dtype)
    fresh.load_state_dict(layer.state_dict())
    assert not parametrize.is_parametrized(plain)
    randomise(layer, 1)
    for other in (plain, twin, fresh):
        assert torch.equal(other(x), expected)
    assert "in_features=4, out_features=6" in repr(layer)


def test_contract_zeros_and_training() -> None:
    for layer in (SandwichLinear(4, 6), SandwichLinear(5, 3, bias=False)):
        check_lipschitz_layer(layer, (layer.in_features,))
        x = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(1))
        optimiser = torch.optim.SGD(layer.parameters(), 0.1)
        for start in (1.0, 0.0):
            randomise(layer, 0, start)
            for _ in range(3):
                optimiser.zero_grad()
                (layer(x) - 1.0).square().sum().backward()
                optimiser.step()
            assert all(bool(p.isfinite().all()) for p in layer.parameters())
            assert bool(layer(x).isfinite().all())
        randomise(layer, 0, math.nan)
        with pytest.raises(HauberkError, match="NaN"):
            layer.eval().lipschitz_bound((layer.in_features,))


# --- convolutions ---------------------------------------------------------------------------------------------


def conv_jacobian(layer: SandwichConv2d, point: Tensor) -> Tensor:
    dense = torch.autograd.functional.jacobian(lambda x: layer(x[None])[0].flatten(), point, create_graph=True)
    return dense.flatten(1)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 2),
    scale=st.sampled_from([0.1, 1.0, 10.0]),
)
def test_convolution_is_never_steeper_than_its_bound(
    seed: int, channels: tuple[int, int], kernel: tuple[int, int], stride: int, scale: float
) -> None:
    layer = SandwichConv2d(*channels, kernel, stride=stride).double().eval()
    randomise(layer, seed, scale)
    shape = (channels[0], 3 * stride, 4 * stride)
    bound = layer.lipschitz_bound(shape).value
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _ in range(2):
            point = torch.randn(shape, dtype=torch.float64, generator=generator)
            assert float(torch.linalg.matrix_norm(conv_jacobian(layer, point).detach(), 2)) <= bound <= 1.0 + 1e-8


def test_a_kernel_of_one_pixel_is_the_linear_layer() -> None:
    layer, plane = SandwichConv2d(4, 3, 1).double(), SandwichLinear(4, 3).double()
    randomise(layer, 0)
    with torch.no_grad():
        plane.parametrizations.weight.original.copy_(layer.free[:, :, 0, 0])
        plane.bias.copy_(layer.bias)
        plane.log_psi.copy_(layer.log_psi)
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(layer(x), plane(x.movedim(1, -1)).movedim(-1, 1))
    moved = layer(x.roll((1, 2), (2, 3)))
    assert torch.allclose(moved, layer(x).roll((1, 2), (2, 3)))


def test_convolution_trained_to_stretch() -> None:
    layer = SandwichConv2d(2, 3, 2).double()
    randomise(layer, 0)
    with torch.no_grad():
        layer.bias.fill_(50.0)  # the relus stay on
    optimiser, best = torch.optim.Adam(layer.parameters(), 0.1), 0.0
    point = torch.randn(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for _ in range(25):
        norm = torch.linalg.matrix_norm(conv_jacobian(layer, point), 2)
        best = max(best, norm.item())
        optimiser.zero_grad()
        (-norm).backward()
        optimiser.step()
    assert 0.9 < best <= 1.0 + 1e-12


def test_convolution_contract_zeros_and_refusals() -> None:
    layer = SandwichConv2d(2, 4, 3)
    check_lipschitz_layer(layer, (2, 4, 5))
    check_lipschitz_layer(SandwichConv2d(2, 3, 2, stride=2, bias=False), (2, 4, 6))
    twin, fresh = copy.deepcopy(layer), SandwichConv2d(2, 4, 3)
    fresh.load_state_dict(layer.state_dict())
    x = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(twin(x), layer(x))
    assert torch.equal(fresh(x), layer(x))
    optimiser = torch.optim.SGD(layer.parameters(), 0.1)
    randomise(layer, 0, 0.0)
    for _ in range(3):
        optimiser.zero_grad()
        (layer(x) - 1.0).square().sum().backward()
        optimiser.step()
    assert all(bool(p.isfinite().all()) for p in layer.parameters())
    with pytest.raises(HauberkError, match="no bound in linf"):
        layer.lipschitz_bound((2, 4, 4), "linf")
    with pytest.raises(HauberkError, match="as large as the kernel"):
        layer.lipschitz_bound((2, 2, 4))
    randomise(layer, 0, math.nan)
    with pytest.raises(HauberkError, match="NaN"):
        layer.lipschitz_bound((2, 4, 4))
    assert repr(layer).startswith("SandwichConv2d(\n  2, 4")
