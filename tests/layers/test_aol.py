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
from torch.nn.utils import parametrize

from hauberk.conformance import check_lipschitz_layer
from hauberk.errors import HauberkError
from hauberk.layers import AlmostOrthogonal, AOLConv2d, AOLLinear, conv_norm
from hauberk.layers.aol import correlation_sums


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
    ):
        randomise(layer, 0)
        layer = layer.to(dtype).eval()
        plain = layer.export()
        assert type(plain) in (nn.Conv2d, nn.Linear)
        assert torch.equal(plain(inputs), layer(inputs))
        assert not plain.training
        assert plain.weight.requires_grad
        assert set(plain.state_dict()) <= {"weight", "bias"}


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
    for kernel, padding in ((3, 2), (2, 1)):
        with pytest.raises(HauberkError, match="repeats outputs"):
            AOLConv2d(2, 2, kernel, padding=padding, padding_mode="circular")
    AOLConv2d(2, 2, 3, padding=2, dilation=2, padding_mode="circular")


# --- strides, groups and dilation -----------------------------------------------------------------------------


def ascend(layer: nn.Module, shape: tuple[int, ...], steps: int = 60) -> float:
    """Train the weights to stretch: gradient ascent on the largest singular value of the dense matrix."""
    optimiser, eye = torch.optim.Adam(layer.parameters(), 0.05), torch.eye(math.prod(shape), dtype=torch.float64)
    best = 0.0
    for _ in range(steps):
        norm = torch.linalg.matrix_norm(layer(eye.reshape(-1, *shape)).flatten(1), 2)
        best = max(best, norm.item())
        optimiser.zero_grad()
        (-norm).backward()
        optimiser.step()
    return best


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 6)),
    groups=st.integers(1, 3),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    mode=st.sampled_from(["zeros", "circular"]),
)
def test_strides_groups_and_dilation_keep_it_at_most_one(
    seed: int,
    channels: tuple[int, int],
    groups: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    mode: str,
) -> None:
    padding = tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True))
    layer = AOLConv2d(
        groups * channels[0], groups * channels[1], kernel, stride=stride, padding=padding, dilation=dilation,
        groups=groups, padding_mode=mode, bias=False,
    ).double()  # fmt: skip
    randomise(layer, seed)
    shape = (groups * channels[0], 6, 4)
    assert float(torch.linalg.svdvals(dense(layer, shape))[0]) <= layer.lipschitz_bound(shape).value <= 1.0


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize(
    ("into", "out", "settings"),
    [(2, 6, {"stride": 2}), (2, 9, {"stride": 2}), (4, 4, {"groups": 2}), (2, 3, {"dilation": 2, "padding": 2})],
    ids=str,
)
def test_trained_to_stretch_with_strides_and_groups(into: int, out: int, settings: dict[str, int], mode: str) -> None:
    layer = AOLConv2d(into, out, 3, **({"padding": 1} | settings), padding_mode=mode, bias=False).double()
    randomise(layer, 1)
    assert 0.85 < ascend(layer, (into, 6, 6)) <= 1.0
    assert layer.lipschitz_bound((into, 6, 6)).value <= 1.0


@pytest.mark.parametrize("out", [5, 13])  # the blocks have 12 channels: once outputs are rescaled, once inputs
def test_strided_scale_agrees_with_the_dense_matrix(out: int) -> None:
    layer = nn.Conv2d(3, out, 3, stride=2, padding=1, bias=False, dtype=torch.float64)
    matrix = dense(layer, (3, 12, 12))
    if out < 12:
        scale = (matrix @ matrix.T).abs().sum(1).reshape(out, 6, 6)[:, 3, 3].rsqrt()[:, None, None, None]
    else:
        pixels = (matrix.T @ matrix).abs().sum(1).reshape(3, 12, 12).rsqrt()
        # taps 0 and 2 read odd rows (padding 1), tap 1 even ones
        scale = pixels[None, :, 5:8, 5:8]
    assert torch.allclose(AlmostOrthogonal((2, 2))(layer.weight), layer.weight * scale, rtol=2e-5)


def test_groups_are_rescaled_by_themselves() -> None:
    weight = torch.randn(6, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    halves = [AlmostOrthogonal()(half) for half in weight.chunk(2)]
    assert torch.allclose(AlmostOrthogonal(groups=2)(weight), torch.cat(halves))


@pytest.mark.parametrize("shape", [(2, 3, 2, 3, 2), (1, 4, 3, 1, 1)])
def test_overlaps_and_their_gradients(shape: tuple[int, ...]) -> None:
    rows = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    sums = correlation_sums(rows)
    assert torch.allclose(sums, sums.mT)
    assert torch.allclose(sums[0, 0, 1], _by_hand(rows[0, 0], rows[0, 1]))
    weights = torch.randn(sums.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(lambda r: (correlation_sums(r) * weights).sum(), rows)


def _by_hand(first: Tensor, second: Tensor) -> Tensor:
    _, kh, kw = first.shape
    total = torch.zeros((), dtype=first.dtype)
    for dy in range(1 - kh, kh):
        for dx in range(1 - kw, kw):
            total = total + sum(
                first[:, y, x] @ second[:, y + dy, x + dx]
                for y in range(kh) for x in range(kw) if 0 <= y + dy < kh and 0 <= x + dx < kw
            ).abs()  # fmt: skip
    return total


@pytest.mark.parametrize(("into", "out"), [(2, 8), (3, 4), (1, 6)])
@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_starts_orthogonal_with_a_stride(into: int, out: int, kernel: int) -> None:
    layer = AOLConv2d(into, out, kernel, stride=2, padding=(kernel - 1) // 2, padding_mode="circular")
    values = torch.linalg.svdvals(dense(layer, (into, 8, 8)))
    assert float(values.min()) > 0.9999
    assert float(values.max()) <= 1.0


def test_a_stride_that_does_not_divide_a_circle_is_told_by_the_bound() -> None:
    layer = AOLConv2d(1, 1, 3, stride=2, padding_mode="circular", padding=1, bias=False).double()
    with torch.no_grad():
        layer.parametrizations.weight.original.fill_(1.0)
    # 4 outputs read the same 9 pixels, each with weight 1/5
    assert float(torch.linalg.svdvals(dense(layer, (1, 3, 3)))[0]) == pytest.approx(1.2, rel=1e-4)
    assert 1.2 * 0.9999 < layer.lipschitz_bound((1, 3, 3)).value < 1.81
    assert layer.lipschitz_bound((1, 4, 4)).value <= 1.0


@pytest.mark.parametrize("norm", ["l1", "linf"])
def test_other_norms(norm: str) -> None:
    axis = 0 if norm == "l1" else 1
    for layer, shape in (
        (AOLConv2d(4, 6, 3, padding=1, stride=2, groups=2), (4, 5, 5)),
        (AOLLinear(7, 5), (7,)),
    ):
        randomise(layer, 0)
        layer = layer.double()
        truth = float(dense(layer, shape).abs().sum(axis).max())
        assert truth <= layer.lipschitz_bound(shape, norm).value <= truth * (1 + 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_export_keeps_every_setting(dtype: torch.dtype) -> None:
    layer = AOLConv2d(4, 6, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(2, 1), groups=2)
    randomise(layer, 0)
    layer = layer.to(dtype)
    features = torch.randn(2, 4, 7, 6, generator=torch.Generator().manual_seed(0), dtype=dtype)
    assert torch.equal(layer.export()(features), layer(features))


def test_contract_training_and_cache() -> None:
    layer = AOLConv2d(4, 6, 3, stride=2, padding=1, groups=2)
    check_lipschitz_layer(layer, (4, 6, 5))
    optimiser = torch.optim.SGD(layer.parameters(), 0.1)
    for _ in range(3):
        optimiser.zero_grad()
        layer(torch.ones(2, 4, 6, 6)).square().sum().backward()
        optimiser.step()
    with parametrize.cached():
        assert layer.weight is layer.weight
    assert layer.lipschitz_bound((4, 6, 6)).value <= 1.0
