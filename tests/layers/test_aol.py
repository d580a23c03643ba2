"""AOL layers: their norm is at most 1 whatever the weights, and they are torch's layers after export."""

from __future__ import annotations

import copy
import math

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hauberk.errors import HauberkError
from hauberk.layers import AlmostOrthogonal, AOLConv2d, AOLLinear, UnitRowLinear, conv_norm, linear_norm


def dense(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Matrix of an affine layer, in float64."""
    size = math.prod(shape)
    layer = copy.deepcopy(layer).double()
    with torch.no_grad():
        eye = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
        return (layer(eye) - layer(torch.zeros_like(eye))).flatten(1).T


def randomise(layer: nn.Module, seed: int, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 5)),
    mode=st.sampled_from(["zeros", "circular"]),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_convolution_is_at_most_one(
    seed: int, channels: tuple[int, int], kernel: tuple[int, int], mode: str, scale: float
) -> None:
    padding = ((kernel[0] - 1) // 2, (kernel[1] - 1) // 2)
    layer = AOLConv2d(*channels, kernel, padding=padding, padding_mode=mode)
    randomise(layer, seed, scale)
    layer = layer.double()  # the effective weights of float64 are the ones that are bounded and measured
    truth = float(torch.linalg.svdvals(dense(layer, (channels[0], 5, 6)))[0])
    bound = layer.lipschitz_bound((channels[0], 5, 6)).value
    assert truth <= bound <= 1.0


@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_weights_trained_to_stretch_stay_below_one(mode: str) -> None:
    layer = AOLConv2d(4, 4, 3, padding=1, padding_mode=mode, bias=False)
    randomise(layer, 0)
    optimiser = torch.optim.Adam(layer.parameters(), 0.05)
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(1, 4, 6, 6, generator=generator)
    for _ in range(80):
        direction = (direction / direction.norm()).detach()
        image = layer(direction)
        optimiser.zero_grad()
        (-image.square().sum()).backward()
        optimiser.step()
        direction = torch.autograd.grad(layer(direction.requires_grad_()).square().sum(), direction)[0]
    bound = layer.lipschitz_bound((4, 6, 6)).value
    assert 0.9 < bound <= 1.0  # the attack on the bound got close, and no further
    assert conv_norm(layer.weight, (6, 6), padding=((1, 1), (1, 1)), padding_mode=mode).value == bound


@pytest.mark.parametrize("channels", [(3, 8), (8, 8), (8, 3)])
def test_starts_orthogonal(channels: tuple[int, int]) -> None:
    for layer, shape in (
        (AOLConv2d(*channels, 3, padding=1), (channels[0], 4, 4)),
        (AOLLinear(*channels), (channels[0],)),
    ):
        values = torch.linalg.svdvals(dense(layer, shape))
        assert float(values.min()) > 0.9999
        assert float(values.max()) <= 1.0
        assert layer.lipschitz_bound(shape).value <= 1.0


def test_scale_agrees_with_the_printed_formula() -> None:
    weight = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    by_hand = weight.clone()
    for i in range(3):
        by_hand[:, i] *= sum(abs(float(weight[:, i] @ weight[:, j])) for j in range(3)) ** -0.5
    assert torch.allclose(AlmostOrthogonal()(weight), by_hand, rtol=2e-5)
    assert torch.allclose(AlmostOrthogonal()(weight.T), by_hand.T, rtol=2e-5)  # the narrow side is rescaled


def test_kernel_correlation_agrees_with_the_dense_matrix() -> None:
    # on an image larger than two kernels the central rows of |J'J| hold all shifts
    layer = nn.Conv2d(2, 3, 3, padding=1, bias=False, dtype=torch.float64)
    matrix = dense(layer, (2, 9, 9))
    sums = (matrix.T @ matrix).abs().sum(1).reshape(2, 9, 9)[:, 4, 4]
    expected = layer.weight * sums.rsqrt()[None, :, None, None]
    assert torch.allclose(AlmostOrthogonal()(layer.weight), expected, rtol=2e-5)


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (3, 4, 3, 3), (4, 3), (3, 4)])
def test_zero_channels_stay_zero_and_have_gradients(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    weight[0] = 0.0
    weight[:, 0] = 0.0
    weight.requires_grad_()
    effective = AlmostOrthogonal()(weight)
    effective.square().sum().backward()
    assert not bool(effective.isnan().any())
    assert weight.grad is not None
    assert not bool(weight.grad.isnan().any())
    assert not bool(effective[0].any())
    zero = AlmostOrthogonal()(torch.zeros(shape))
    assert float(zero.abs().max()) == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_export_is_a_plain_layer_that_computes_the_same(dtype: torch.dtype) -> None:
    features = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0), dtype=dtype)
    for layer, inputs in (
        (AOLConv2d(4, 6, 3, padding=1), features),
        (AOLConv2d(4, 6, (3, 5), padding="same", padding_mode="circular", bias=False), features),
        (AOLLinear(100, 7), features.flatten(1)),
        (UnitRowLinear(100, 7, bias=False), features.flatten(1)),
    ):
        randomise(layer, 0)
        layer = layer.to(dtype).eval()
        plain = layer.export()
        assert type(plain) in (nn.Conv2d, nn.Linear)
        assert torch.equal(plain(inputs), layer(inputs))
        assert not plain.training
        assert plain.weight.requires_grad
        assert set(plain.state_dict()) <= {"weight", "bias"}


def test_unit_rows() -> None:
    layer = UnitRowLinear(5, 3)
    randomise(layer, 0, 7.0)
    assert torch.allclose(layer.weight.norm(dim=1), torch.ones(3))
    with torch.no_grad():
        layer.parametrizations.weight.original[0] = 0.0
    assert layer.weight[0].tolist() == [0.0] * 5
    assert layer.lipschitz_bound((5,)).value == linear_norm(layer.weight).value


def test_copies_and_state_dicts() -> None:
    layer = AOLConv2d(2, 4, 3, padding=1)
    randomise(layer, 0)
    twin = copy.deepcopy(layer)
    fresh = AOLConv2d(2, 4, 3, padding=1)
    fresh.load_state_dict(safetensors.torch.load(safetensors.torch.save(layer.state_dict())))
    randomise(layer, 1)
    assert torch.equal(twin.weight, fresh.weight)
    assert not torch.equal(twin.weight, layer.weight)


def test_refusals() -> None:
    with pytest.raises(HauberkError, match="reflect"):
        AOLConv2d(2, 2, 3, padding=1, padding_mode="reflect")
    with pytest.raises(HauberkError, match="repeats outputs"):
        AOLConv2d(2, 2, 3, padding=2, padding_mode="circular")
