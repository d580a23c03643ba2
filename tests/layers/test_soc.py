"""Skew orthogonal convolutions: what the series can do to a skew matrix, and the layers made of it."""

from __future__ import annotations

import copy
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.conformance import check_lipschitz_layer
from hauberk.errors import HauberkError
from hauberk.layers.norms import conv_norm
from hauberk.layers.soc import REACH, SOCConv2d, _squared_modulus, series_bound

ROUNDING = 1e-13  # of the singular values that tests compute


def dense(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Matrix of an affine layer, in float64, differentiable."""
    eye = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    return (layer(eye) - layer(torch.zeros_like(eye))).flatten(1).T


def skew_layer(layer: SOCConv2d) -> nn.Conv2d:
    """A plain convolution with the skew filter."""
    m, (kh, kw) = layer.width, layer.kernel_size
    plain = nn.Conv2d(m, m, (kh, kw), padding=(kh // 2, kw // 2), groups=layer.groups, bias=False,
                      padding_mode=layer.padding_mode)  # fmt: skip
    plain.weight = nn.Parameter(layer.weight.detach())
    return plain


def randomise(layer: SOCConv2d, seed: int = 0, scale: float = 1.0) -> SOCConv2d:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return layer.double().eval()


def stretched(layer: SOCConv2d, shape: tuple[int, ...], steps: int = 40) -> SOCConv2d:
    """The layer with weights trained to make its skew convolution as long as it can be."""
    optimiser = torch.optim.Adam(layer.parameters(), 0.1)
    for _ in range(steps):
        optimiser.zero_grad()
        with torch.no_grad():
            weight = layer.weight
            u, _, vh = torch.linalg.svd(dense(lambda x, w=weight: layer._skew(x, w, None), shape))
        response = layer._skew(vh[0].reshape(1, *shape), layer.weight, None)
        (-(response.flatten() @ u[:, 0])).backward()
        optimiser.step()
    return layer


# --- the series ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terms", range(1, 17))
@pytest.mark.parametrize("reach", [0.1, 1.0, 1.3, 2.1, 3.3, 6.0])
def test_the_series_bound_is_the_largest_value_on_a_scan(terms: int, reach: float) -> None:
    points = 1j * np.linspace(0.0, reach, 4001)
    values = np.abs(sum(points**i / math.factorial(i) for i in range(terms + 1)))
    bound = series_bound(terms, reach)
    assert bound >= values.max() * (1 - 1e-14)
    assert bound <= values.max() * (1 + 1e-6)


def test_the_contractive_series_and_their_limits() -> None:
    for terms, limit in ((3, math.sqrt(3.0)), (4, 2 * math.sqrt(2.0)), (8, 3.39515), (12, 3.3794), (16, 3.3248)):
        assert series_bound(terms, limit - 1e-4) == 1.0
        assert series_bound(terms, limit + 1e-3) > 1.0
    root = math.sqrt(8.0)  # its square as a fraction lies above 8: not even that much is forgiven
    assert Fraction(root) ** 2 > 8
    assert series_bound(4, math.nextafter(root, 0.0)) == 1.0
    assert series_bound(4, root + 1e-14) > 1.0


def test_golden_values_of_the_series() -> None:
    assert _squared_modulus(4) == (1, 0, 0, Fraction(-1, 72), Fraction(1, 576))
    assert series_bound(1, 0.75) == pytest.approx(1.25, rel=1e-15)
    assert series_bound(2, 2.0) == pytest.approx(math.sqrt(5.0), rel=1e-15)
    assert series_bound(5, 2.1) - 1 == pytest.approx(4.741e-3, rel=1e-3)  # the published training
    assert series_bound(14, 2.1) - 1 == pytest.approx(4.765e-8, rel=1e-3)  # a published evaluation
    assert series_bound(5, 0.0) == series_bound(12, 1e-200) == 1.0
    with pytest.raises(HauberkError, match="overflows"):
        series_bound(12, 1e300)


# --- the skew filter -----------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    channels=st.integers(1, 4),
    kernel=st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([1, 3])),
    groups=st.integers(1, 2),
    mode=st.sampled_from(["zeros", "circular"]),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_the_filter_is_skew_and_bounded(
    seed: int, channels: int, kernel: tuple[int, int], groups: int, mode: str, scale: float
) -> None:
    width = channels * groups
    layer = randomise(SOCConv2d(width, width, kernel, groups=groups, padding_mode=mode), seed, scale)
    matrix = dense(skew_layer(layer), (width, 4, 3)).detach()
    assert torch.equal(matrix, -matrix.T)
    assert float(torch.linalg.matrix_norm(matrix, 2)) <= (REACH if kernel != (1, 1) else 1.0) + 1e-9


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("groups", [1, 2])
def test_filters_trained_to_stretch_reach_the_limit_and_no_further(mode: str, groups: int) -> None:
    layer = stretched(randomise(SOCConv2d(4, 4, padding_mode=mode, groups=groups)), (4, 6, 6))
    truth = float(torch.linalg.matrix_norm(dense(skew_layer(layer), (4, 6, 6)).detach(), 2))
    assert (1.5 if mode == "zeros" else 2.0) < truth <= REACH + 1e-9
    matrix = dense(layer, (4, 6, 6)).detach()
    assert float(torch.linalg.matrix_norm(matrix, 2)) <= 1.0 + ROUNDING
    assert layer.lipschitz_bound((4, 6, 6)).value == 1.0


def test_five_terms_do_stretch() -> None:
    layer = stretched(randomise(SOCConv2d(3, 3, terms=5, padding_mode="circular")), (3, 6, 6))
    truth = float(torch.linalg.matrix_norm(dense(layer, (3, 6, 6)).detach(), 2))
    assert 1.003 < truth <= layer.lipschitz_bound((3, 6, 6)).value < 1.0048


# --- the layer -----------------------------------------------------------------------------------------------

LAYERS = [  # in, out, kernel, stride, groups
    (2, 2, 3, 1, 1),
    (2, 5, 3, 1, 1),
    (5, 2, (3, 5), 1, 1),
    (2, 4, 3, 2, 1),
    (2, 10, 3, 2, 1),
    (4, 2, 3, 1, 2),
    (2, 4, (1, 3), 2, 2),
    (3, 4, 1, 2, 1),
    (4, 6, 1, 1, 2),
]


@pytest.mark.parametrize("case", LAYERS, ids=str)
@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_it_is_the_series_of_the_dense_matrix(case: tuple, mode: str) -> None:
    inputs, outputs, kernel, stride, groups = case
    layer = randomise(SOCConv2d(inputs, outputs, kernel, stride, groups=groups, padding_mode=mode, terms=5))
    shape, grid = (inputs, 4, 6), (4 // stride, 6 // stride)
    skew = dense(skew_layer(layer), (layer.width, *grid)).detach()
    series = sum(torch.linalg.matrix_power(skew, i) / math.factorial(i) for i in range(6))
    # channels of a group: those that enter, made of blocks, come first, and so do those that leave
    channel = torch.arange(layer.width).reshape(groups, -1)
    entered = channel[:, : inputs * stride**2 // groups].flatten()
    left = channel[:, : outputs // groups].flatten()
    blocks = nn.functional.pixel_unshuffle(torch.eye(math.prod(shape)).double().reshape(-1, *shape), stride).flatten(1)
    where = torch.arange(layer.width * math.prod(grid)).reshape(layer.width, -1)
    expected = series[where[left].flatten()][:, where[entered].flatten()] @ blocks.T
    matrix = dense(layer, shape).detach()
    assert torch.allclose(matrix, expected, atol=1e-12)
    assert float(torch.linalg.matrix_norm(matrix, 2)) <= layer.lipschitz_bound(shape).value + ROUNDING


@pytest.mark.parametrize("case", LAYERS, ids=str)
@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_with_many_terms_rows_or_columns_are_orthonormal(case: tuple, mode: str) -> None:
    inputs, outputs, kernel, stride, groups = case
    layer = randomise(SOCConv2d(inputs, outputs, kernel, stride, groups=groups, padding_mode=mode, terms=16))
    matrix = dense(layer, (inputs, 4, 6)).detach()
    if groups == 1 or inputs * stride**2 >= outputs:
        small = matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix
        assert torch.allclose(small, torch.eye(len(small), dtype=torch.float64), atol=1e-5)
    layer.terms = 4
    matrix = dense(layer, (inputs, 4, 6)).detach()
    assert float(torch.linalg.matrix_norm(matrix, 2)) <= 1.0 + ROUNDING
    assert layer.lipschitz_bound((inputs, 4, 6)).value == 1.0


def test_it_is_the_exponential() -> None:
    layer = randomise(SOCConv2d(2, 2, terms=16))
    skew = dense(skew_layer(layer), (2, 3, 3)).detach()
    assert torch.allclose(dense(layer, (2, 3, 3)).detach(), torch.linalg.matrix_exp(skew), atol=1e-9)


def test_terms_of_training_and_of_evaluation_differ_and_the_bound_is_for_evaluation() -> None:
    layer = randomise(SOCConv2d(2, 2, terms=12, terms_train=5))
    images = torch.randn(1, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    twin = randomise(SOCConv2d(2, 2, terms=5))
    assert torch.equal(layer.train()(images), twin(images))
    assert not torch.equal(layer.eval()(images), twin(images))
    assert layer.train().lipschitz_bound((2, 4, 4)).value == 1.0 < twin.lipschitz_bound((2, 4, 4)).value
    stretching = SOCConv2d(2, 2, terms=5, terms_train=4).eval()
    assert stretching.lipschitz_bound((2, 4, 4)).value > 1.0


def test_dividing_images_is_dividing_the_filter() -> None:
    # on images of few pixels the filter is the heavier one
    layer = randomise(SOCConv2d(8, 8)).eval()
    images = torch.randn(3, 8, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight, power = layer.weight, images
    for i in range(4, 0, -1):
        power = images + nn.functional.conv2d(power, weight, padding=1) / i
    assert weight.numel() > 16 * images[0].numel()
    expected = power + layer.bias[:, None, None]
    assert torch.allclose(layer(images), expected, atol=1e-12)


def test_the_bound_uses_the_filter_as_it_is() -> None:
    layer = randomise(SOCConv2d(2, 2)).export()
    reach = conv_norm(layer.weight, (4, 4), padding=((1, 1), (1, 1))).value
    with torch.no_grad():
        layer.weight.mul_(3.0 / reach)  # no longer within the limit of four terms
    truth = float(torch.linalg.matrix_norm(dense(layer, (2, 4, 4)).detach(), 2))
    bound = layer.lipschitz_bound((2, 4, 4)).value
    assert truth <= bound == pytest.approx(series_bound(4, 3.0), rel=1e-6)
    assert bound > 1.0
    with torch.no_grad():
        layer.weight[0, 0, 0, 0] += 1e-9
    with pytest.raises(HauberkError, match="not skew"):
        layer.lipschitz_bound((2, 4, 4))


@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_the_contract(mode: str) -> None:
    check_lipschitz_layer(SOCConv2d(2, 3, padding_mode=mode), (2, 3, 4))
    check_lipschitz_layer(SOCConv2d(2, 4, 3, 2, groups=2, padding_mode=mode, terms=5), (2, 4, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_export(dtype: torch.dtype) -> None:
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    images = torch.randn(2, 4, 4, 6, dtype=dtype, generator=torch.Generator().manual_seed(1))
    for case in ((4, 2, 1, 1, 1), (4, 6, 1, 1, 2), (4, 8, 1, 2, 2), (4, 3, 1, 2, 1), (4, 4, 3, 1, 1), (4, 4, 3, 2, 2)):
        layer = randomise(SOCConv2d(*case[:4], groups=case[4], bias=case[1] != 2)).to(dtype)
        plain = layer.export()
        assert not plain.training
        assert not parametrize.is_parametrized(plain)
        assert (type(plain) is nn.Conv2d) == (case[2] == 1)
        assert torch.allclose(plain(images), layer(images), atol=tolerance)
        assert parametrize.is_parametrized(layer)
    frozen = randomise(SOCConv2d(4, 4)).export()
    assert frozen.lipschitz_bound((4, 4, 6)).value == 1.0


def test_zero_filters_copies_state_and_training() -> None:
    layer = SOCConv2d(4, 4, groups=2)
    with torch.no_grad():
        layer.parametrizations.weight.original[:2] = 0.0  # a group without weights is the identity
    images = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(layer(images)[:, :2], images[:, :2])
    twin, fresh = copy.deepcopy(layer), SOCConv2d(4, 4, groups=2)
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(twin.weight, fresh.weight)
    optimiser = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9)
    for _ in range(5):
        optimiser.zero_grad()
        layer(images).square().mean().backward()
        optimiser.step()
    assert bool(layer(images).isfinite().all())
    assert not torch.equal(twin.weight, layer.weight)
    with parametrize.cached():
        assert layer.weight is layer.weight
    nn.init.zeros_(layer.parametrizations.weight.original)
    assert layer.lipschitz_bound((4, 4, 4)).value == 1.0


def test_gradients_are_those_of_differences() -> None:
    layer = randomise(SOCConv2d(2, 3, 3, 2, padding_mode="circular"))
    images = torch.randn(1, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    free = layer.parametrizations.weight.original
    name = "parametrizations.weight.original"
    assert torch.autograd.gradcheck(
        lambda w, x: torch.func.functional_call(layer, {name: w}, x)[:, :, 0, 0],
        (free.detach().requires_grad_(), images.requires_grad_()),
    )


def test_refusals() -> None:
    for bad in ({"kernel_size": 2}, {"padding_mode": "reflect"}):
        with pytest.raises(HauberkError, match="odd kernel"):
            SOCConv2d(2, 2, **bad)
    with pytest.raises(HauberkError, match="2 groups"):
        SOCConv2d(3, 4, groups=2)
    with pytest.raises(HauberkError, match="at least one term"):
        SOCConv2d(2, 2, terms=0)
    layer = SOCConv2d(2, 2, stride=2)
    assert "stride=2" in repr(layer)
    with pytest.raises(HauberkError, match="multiples of 2"):
        layer(torch.zeros(1, 2, 3, 4))
    for shape in ((2, 4), (3, 4, 4), (2, 4, 5)):
        with pytest.raises(HauberkError, match="expected images"):
            layer.lipschitz_bound(shape)
    with pytest.raises(HauberkError, match="linf"):
        layer.lipschitz_bound((2, 4, 4), "linf")
    nn.init.constant_(layer.parametrizations.weight.original, math.nan)
    with pytest.raises(HauberkError, match="NaN"):
        layer.lipschitz_bound((2, 4, 4))
