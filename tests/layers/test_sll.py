"""SDP-based Lipschitz layers: contractions whatever their weights, equal to the published formula."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.conformance import check_lipschitz_layer
from hauberk.layers.sll import HiddenRescaling, SLLConv2d, SLLLinear


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
    hidden=st.integers(1, 5),
    groups=st.integers(1, 2),
    kernel=st.tuples(st.sampled_from([1, 3]), st.sampled_from([1, 3, 5])),
    mode=st.sampled_from(["zeros", "circular"]),
    scale=st.sampled_from([1e-6, 1.0, 3.0]),
)
def test_never_steeper_than_its_bound(
    seed: int, channels: int, hidden: int, groups: int, kernel: tuple[int, int], mode: str, scale: float
) -> None:
    layer = SLLConv2d(channels * groups, hidden * groups, kernel, groups=groups, padding_mode=mode).double().eval()
    randomise(layer, seed, scale)
    shape = (channels * groups, 4, 5)
    bound = layer.lipschitz_bound(shape).value
    assert bound <= 1.0 + 2e-9
    for point in points(shape):
        assert float(torch.linalg.matrix_norm(jacobian(layer, point), 2).detach()) <= bound


def test_agrees_with_the_published_formula() -> None:
    layer = SLLLinear(5, 7).double()
    randomise(layer, 1)
    w = layer.parametrizations.weight.original.detach()
    q = layer.parametrizations.weight[0].log_q.detach().exp()
    t = torch.stack([1.0 / sum(abs(w[i] @ w[j]) * q[j] / q[i] for j in range(7)) for i in range(7)])
    x = points((5,), 6)
    expected = x - 2.0 * (t * torch.relu(x @ w.T + layer.bias / t.sqrt())) @ w
    assert torch.allclose(layer(x), expected, atol=1e-4)
    # the condition of the theorem
    assert float(torch.linalg.eigvalsh(torch.diag(1.0 / t) - w @ w.T).min()) >= -1e-12


@pytest.mark.parametrize("stride_of_q", [0.0, 3.0])
def test_weights_of_the_rows_matter_and_stay_sound(stride_of_q: float) -> None:
    weight = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rescaling = HiddenRescaling(4).double()
    with torch.no_grad():
        rescaling.log_q.copy_(stride_of_q * torch.arange(4.0))
    effective = rescaling(weight).detach()
    assert float(torch.linalg.matrix_norm(effective, 2)) <= 1.0
    q = rescaling.log_q.detach().exp()
    sums = (weight @ weight.T).abs() @ q / q
    assert torch.allclose(effective, weight * sums.rsqrt()[:, None], rtol=2e-5)


def test_trained_to_stretch_with_its_row_weights() -> None:
    layer = SLLConv2d(2, 3, 3, groups=1).double()
    randomise(layer, 0)
    with torch.no_grad():
        layer.bias.fill_(50.0)  # the relus stay on
    optimiser, point, best = torch.optim.Adam(layer.parameters(), 0.05), points((2, 4, 4))[0], 0.0
    for _ in range(40):
        least = torch.linalg.eigvalsh(jacobian(layer, point))[0]
        best = max(best, -least.item())
        optimiser.zero_grad()
        least.backward()
        optimiser.step()
    assert 0.5 < best <= 1.0


def test_extreme_row_weights_are_no_trap() -> None:
    layer = SLLLinear(4, 6)
    for extreme in (1e3, -1e3):
        with torch.no_grad():
            layer.parametrizations.weight[0].log_q[::2] = extreme
        assert bool(layer.weight.isfinite().all())
        layer(points((4,)).float()).sum().backward()
        assert all(bool(p.grad.isfinite().all()) for p in layer.parameters())
        assert layer.lipschitz_bound((4,)).value <= 1 + 2e-9


def test_zero_rows_stay_zero() -> None:
    for layer, shape in ((SLLConv2d(2, 3), (2, 4, 4)), (SLLLinear(4, 5), (4,))):
        free = layer.parametrizations.weight.original
        with torch.no_grad():
            free[0] = 0.0
        assert not bool(layer.weight[0].any())
        x = points(shape).float()
        optimiser = torch.optim.SGD(layer.parameters(), 0.1)
        for _ in range(3):
            optimiser.zero_grad()
            layer(x).square().sum().backward()
            optimiser.step()
        assert all(bool(p.isfinite().all()) for p in layer.parameters())
        with torch.no_grad():
            free.zero_()
        assert torch.equal(layer(x), x)
        assert layer.eval().lipschitz_bound(shape).value == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_export_copies_and_state(dtype: torch.dtype) -> None:
    for layer, shape in ((SLLConv2d(2, 3, 3), (2, 5, 5)), (SLLLinear(4, 6), (4,))):
        randomise(layer, 0)
        layer = layer.to(dtype).eval()
        x = points(shape).to(dtype)
        plain, twin = layer.export(), copy.deepcopy(layer)
        fresh = (SLLConv2d(2, 3, 3) if len(shape) == 3 else SLLLinear(4, 6)).to(dtype)
        fresh.load_state_dict(layer.state_dict())
        expected = layer(x)
        assert not parametrize.is_parametrized(plain)
        assert torch.equal(plain(x), expected)
        assert torch.equal(fresh(x), expected)
        randomise(layer, 1)
        assert torch.equal(twin(x), expected)
        assert not torch.equal(layer(x), expected)


def test_contract() -> None:
    for layer, shape in (
        (SLLConv2d(2, 3, padding_mode="circular"), (2, 4, 3)),
        (SLLConv2d(4, 2, (1, 3), groups=2), (4, 3, 3)),
        (SLLLinear(5, 9), (5,)),
    ):
        check_lipschitz_layer(layer, shape)
