"""The low-pass filter: an orthogonal projection that keeps the mean, held against scipy's transform."""

import math

import pytest
import scipy.fft
import torch
from torch import Tensor

from hauberk.conformance import check_lipschitz_layer
from hauberk.errors import HauberkError
from hauberk.layers import LowPass

SHAPES = [(2, 8, 8), (1, 7, 5), (3, 1, 6)]


def features(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(4, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.8, 1.0])
def test_it_keeps_the_corner_of_low_frequencies(shape: tuple[int, ...], keep: float) -> None:
    images = features(shape)
    spectrum = scipy.fft.dctn(images.numpy(), axes=(2, 3), norm="ortho")
    down, across = (math.ceil(keep * size) for size in shape[1:])
    spectrum[:, :, down:], spectrum[:, :, :, across:] = 0.0, 0.0
    expected = torch.from_numpy(scipy.fft.idctn(spectrum, axes=(2, 3), norm="ortho"))
    assert torch.allclose(LowPass(keep)(images), expected, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_a_projection_and_keeps_the_mean(shape: tuple[int, ...]) -> None:
    images, layer = features(shape), LowPass(0.4)
    once = layer(images)
    assert torch.allclose(layer(once), once, atol=1e-12)
    assert torch.allclose(once.mean((2, 3)), images.mean((2, 3)), atol=1e-12)
    constant = torch.full((1, *shape), 0.7, dtype=torch.float64)
    assert torch.allclose(layer(constant), constant, atol=1e-12)


@pytest.mark.parametrize("keep", [0.3, 1.0])
def test_the_contract(keep: float) -> None:
    layer = LowPass(keep)
    check_lipschitz_layer(layer, (2, 6, 5))
    assert layer.lipschitz_bound((2, 6, 5)).value == pytest.approx(1.0, abs=1e-8)


def test_a_mask_in_the_middle_as_published_removes_the_mean() -> None:
    middle = torch.zeros(8, 8)
    middle[2:6, 2:6] = 1.0
    spectrum = scipy.fft.dctn(torch.full((8, 8), 0.5).numpy(), norm="ortho") * middle.numpy()
    assert abs(scipy.fft.idctn(spectrum, norm="ortho")).max() < 1e-7


@pytest.mark.parametrize("keep", [0.0, -0.5, 1.1, float("nan")])
def test_shares_outside_the_range_are_refused(keep: float) -> None:
    with pytest.raises(HauberkError, match="share of frequencies"):
        LowPass(keep)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(HauberkError, match="a shape"):
        LowPass().lipschitz_bound((8, 8))
