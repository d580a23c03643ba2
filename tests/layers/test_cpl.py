"""Convex potential layers: gradient steps, bounded by the norm of what they multiply with."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.conformance import check_lipschitz_layer
from hauberk.errors import HauberkError
from hauberk.layers import conv_norm, linear_norm, model_bound
from hauberk.layers.cpl import CPLConv2d, CPLLinear, PotentialConv2d, PotentialLinear, step_bound


def jacobian(layer: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
    """The dense Jacobian at one point (without a batch axis)."""
    dense = torch.autograd.functional.jacobian(lambda x: layer(x[None])[0], point, create_graph=True)
    return dense.reshape(point.numel(), point.numel())


def randomise(layer: nn.Module, seed: int, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


def points(shape: tuple[int, ...], count: int = 2) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    channels=st.integers(1, 2),
    hidden=st.integers(1, 4),
    groups=st.integers(1, 2),
    kernel=st.tuples(st.sampled_from([1, 3]), st.sampled_from([1, 3, 5])),
    mode=st.sampled_from(["zeros", "circular"]),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_never_steeper_than_its_bound(
    seed: int, channels: int, hidden: int, groups: int, kernel: tuple[int, int], mode: str, scale: float
) -> None:
    layer = CPLConv2d(channels * groups, hidden * groups, kernel, groups=groups, padding_mode=mode).double().eval()
    randomise(layer, seed, scale)
    shape = (channels * groups, 4, 5)
    bound = layer.lipschitz_bound(shape).value
    assert bound <= 1.0 + 2e-9
    for point in points(shape):
        assert float(torch.linalg.matrix_norm(jacobian(layer, point), 2).detach()) <= bound


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("kernel", [(3, 3), (1, 3), (5, 1)])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_way_back_is_the_transpose(mode: str, kernel: tuple[int, int], groups: int) -> None:
    layer = PotentialConv2d(4, 6, kernel, groups=groups, padding_mode=mode).double()
    with torch.no_grad():
        layer.bias.fill_(1e6)  # every relu is on, so that J = I - 2 U'U
    u = torch.autograd.functional.jacobian(
        lambda x: nn.Conv2d._conv_forward(layer, x, layer.weight, None).flatten(), points((4, 5, 5), 1)
    ).flatten(1)
    expected = torch.eye(100, dtype=torch.float64) - 2.0 * u.T @ u
    assert torch.allclose(jacobian(layer, points((4, 5, 5))[0]), expected, atol=1e-9)


@pytest.mark.parametrize("stretch", [1.0, 1.5, 3.0])
def test_weights_that_are_too_large_are_told_by_the_bound(stretch: float) -> None:
    # the bound belongs to the weights, not to how they were meant: 2 u^2 - 1 is attained where every relu is on
    layer = PotentialConv2d(2, 3, 3, padding_mode="circular").double().eval()
    plane = PotentialLinear(5, 4).double().eval()
    with torch.no_grad():
        layer.weight.mul_(stretch / conv_norm(layer.weight, (4, 4), (1, 1), ((1, 1), (1, 1)), "circular").value)
        plane.weight.mul_(stretch / linear_norm(plane.weight).value)
        layer.bias.fill_(1e6)
        plane.bias.fill_(1e6)
    for part, shape in ((layer, (2, 4, 4)), (plane, (5,))):
        truth = float(torch.linalg.matrix_norm(jacobian(part, points(shape)[0]), 2).detach())
        bound = part.lipschitz_bound(shape)
        assert truth == pytest.approx(max(1.0, 2.0 * stretch**2 - 1.0), rel=1e-7)
        assert truth * (1 - 1e-12) <= bound.value <= truth * (1 + 1e-7)
        assert not bound.exact


@pytest.mark.parametrize("norm", ["l1", "linf"])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_other_norms(norm: str, mode: str) -> None:
    axis = 0 if norm == "l1" else 1
    for layer, shape in (
        (CPLConv2d(2, 3, (3, 1), padding_mode=mode), (2, 4, 4)),
        (CPLLinear(6, 4), (6,)),
        (PotentialLinear(4, 7), (4,)),
    ):
        layer = layer.double().eval()
        randomise(layer, 3)
        truth = max(float(jacobian(layer, p).abs().sum(axis).max().detach()) for p in points(shape, 4))
        assert truth <= layer.lipschitz_bound(shape, norm).value


def test_other_norms_are_attained() -> None:
    # U = (1, -1) / 2 on two values: with the relu on, J = [[1/2, 1/2], [1/2, 1/2]]; 1 + 2 * 1 * 1/2 = 2 is no less
    layer = PotentialLinear(2, 1).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, -0.5]]))
    assert layer.lipschitz_bound((2,), "l1").value == pytest.approx(2.0, rel=1e-7)
    assert layer.lipschitz_bound((2,), "linf").value == pytest.approx(2.0, rel=1e-7)
    assert step_bound(1.0) == pytest.approx(1.0)
    assert step_bound(2.0) == pytest.approx(7.0)


def test_trained_to_stretch() -> None:
    layer = CPLConv2d(2, 3, 3).double()
    randomise(layer, 0)
    with torch.no_grad():
        layer.bias.fill_(50.0)  # the relus stay on
    optimiser, point, best = torch.optim.Adam(layer.parameters(), 0.05), points((2, 4, 4))[0], 0.0
    for _ in range(40):
        # the smallest eigenvalue, 1 - 2u^2, is where a norm taken too small would show
        least = torch.linalg.eigvalsh(jacobian(layer, point))[0]
        best = max(best, -least.item())
        optimiser.zero_grad()
        least.backward()
        optimiser.step()
    assert 0.3 < best <= 1.0


def test_agrees_with_the_published_formula() -> None:
    layer = CPLLinear(5, 3).double()
    randomise(layer, 1)
    w = layer.parametrizations.weight.original.detach()
    norm = torch.linalg.matrix_norm(w, 2)
    x = points((5,), 6)
    expected = x - 2.0 / norm**2 * torch.relu(x @ w.T + norm * layer.bias) @ w
    assert torch.allclose(layer(x), expected, atol=5e-4)  # the bound exceeds the norm by a little


def test_a_kernel_that_power_iteration_from_ones_misses() -> None:
    layer = CPLConv2d(2, 1, 1).double().eval()
    with torch.no_grad():
        layer.parametrizations.weight.original.copy_(torch.tensor([5.0, -5.0]).reshape(1, 2, 1, 1))
    assert float(torch.linalg.vector_norm(layer.weight.detach())) == pytest.approx(1.0, abs=1e-4)
    assert layer.lipschitz_bound((2, 3, 3)).value <= 1 + 2e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_export_copies_and_state(dtype: torch.dtype) -> None:
    for layer, shape in ((CPLConv2d(2, 3, 3), (2, 5, 5)), (CPLLinear(4, 6, bias=False), (4,))):
        randomise(layer, 0)
        layer = layer.to(dtype).eval()
        x = points(shape).to(dtype)
        plain, twin = layer.export(), copy.deepcopy(layer)
        fresh = type(plain)(*((2, 3, 3) if len(shape) == 3 else (4, 6, False))).to(dtype)
        fresh.load_state_dict(layer.state_dict())
        expected = layer(x)
        assert not parametrize.is_parametrized(plain)
        assert parametrize.is_parametrized(layer)  # the export leaves the layer alone
        assert torch.equal(plain(x), expected)
        assert torch.equal(fresh(x), expected)
        assert plain.lipschitz_bound(shape).value <= 1 + 1e-5
        randomise(layer, 1)
        assert torch.equal(twin(x), expected)
        with parametrize.cached():
            assert layer.weight is layer.weight


def test_contract_and_walk() -> None:
    for layer, shape in ((CPLConv2d(2, 3, 3, padding_mode="circular"), (2, 4, 3)), (CPLLinear(5), (5,))):
        check_lipschitz_layer(layer, shape)
    model = nn.Sequential(CPLConv2d(2, 4), CPLConv2d(2, 2, 1), nn.Flatten(), CPLLinear(18, 3)).double().eval()
    assert model_bound(model, (2, 3, 3)).value == pytest.approx(1.0, abs=1e-8)


def test_zeros_and_training() -> None:
    for layer, shape in ((CPLConv2d(2, 3), (2, 4, 4)), (CPLLinear(4), (4,))):
        optimiser = torch.optim.SGD(layer.parameters(), 0.1)
        x = points(shape).float()
        with torch.no_grad():
            layer.parametrizations.weight.original.zero_()
        assert torch.equal(layer(x), x)
        layer(x).square().sum().backward()
        assert all(not bool(p.grad.isnan().any()) for p in layer.parameters() if p.grad is not None)
        randomise(layer, 0)
        with torch.no_grad():
            layer.parametrizations.weight.original[0] = 0.0
        for _ in range(4):
            optimiser.zero_grad()
            layer(x).square().sum().backward()
            optimiser.step()
        assert not bool(layer(x).isnan().any())
        with torch.no_grad():
            layer.parametrizations.weight.original.mul_(math.nan)
        with pytest.raises(HauberkError, match="NaN"):
            layer.eval().lipschitz_bound(shape)


def test_refusals() -> None:
    with pytest.raises(HauberkError, match="odd kernels"):
        CPLConv2d(2, 2, 2)
    with pytest.raises(HauberkError, match="reflect"):
        CPLConv2d(2, 2, 3, padding_mode="reflect")
