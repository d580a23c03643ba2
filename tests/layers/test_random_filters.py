"""Random filters: no draw stretches, by the matrix itself; and two published ways of normalising that do."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hauberk.conformance import check_lipschitz_layer
from hauberk.draws import drawn
from hauberk.errors import HauberkError
from hauberk.layers import FixedConv2d, RandomFilters2d, conv_norm, frozen_filters, orthogonal_mix
from hauberk.layers.random_filters import unit_kernels
from hauberk.layers.spectral import spectral_conv
from hauberk.randomness import Key


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


KEY = Key(0, 0, (1, 2, 3), "test")


def matrix(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """The matrix of a linear layer, column by column."""
    size = int(torch.tensor(shape).prod())
    columns: Tensor = layer(torch.eye(size, dtype=torch.float64).reshape(size, *shape))
    return columns.flatten(1).T


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("number", range(5))
def test_no_draw_stretches_and_few_waste_much(stride: int, number: int) -> None:
    layer = drawn(RandomFilters2d(3, 4, 3, stride), Key(0, number, (0,), "test"))
    largest = float(torch.linalg.matrix_norm(matrix(layer, (3, 7, 6)), 2))
    assert largest <= 1.0
    assert largest > 0.8  # of an infinite image it is 1, but for the seven per cent between frequencies


def test_each_sample_has_filters_of_its_own() -> None:
    layer = drawn(RandomFilters2d(2, 3, 3, resample="sample"), KEY)
    same = torch.rand(1, 2, 5, 5).expand(3, 2, 5, 5)
    made = layer(same)
    assert not torch.equal(made[0], made[1])
    alone = drawn(RandomFilters2d(2, 3, 3, resample="sample"), Key(0, 0, (2,), "test"))(same[:1])
    assert torch.allclose(alone[0], made[1], atol=1e-6)
    for kernel in unit_kernels(torch.randn(6, 4, 3, 3, 3, generator=torch.Generator().manual_seed(0)), 1):
        assert 0.3 < conv_norm(kernel, (16, 16), padding=((1, 1), (1, 1))).value <= 1.0


@pytest.mark.parametrize("resample", ["draw", "sample"])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_contract(resample: Any, stride: int) -> None:
    with torch.enable_grad():
        check_lipschitz_layer(RandomFilters2d(2, 2, 3, stride, resample), (2, 4, 4))


def test_frozen_filters_are_saved_and_not_trained() -> None:
    layer = frozen_filters(3, 5, 3, 2)
    assert not list(layer.parameters())
    assert set(layer.state_dict()) == {"weight"}
    with torch.enable_grad():
        check_lipschitz_layer(layer, (3, 5, 5))
    other = frozen_filters(3, 5, 3, 2)
    other.load_state_dict(layer.state_dict())
    images = torch.rand(2, 3, 5, 5)
    assert torch.equal(other(images), layer(images))


def test_a_mix_is_an_isometry_and_folds_into_the_next_kernel() -> None:
    mix = orthogonal_mix(4)
    images = torch.randn(3, 4, 5, 5)
    assert torch.allclose(mix(images).flatten(1).norm(dim=1), images.flatten(1).norm(dim=1), rtol=1e-4)
    conv = spectral_conv(4, 6, 3)
    folded = torch.einsum("oikl,ij->ojkl", conv.weight, mix.weight[:, :, 0, 0])
    apart = nn.functional.conv2d(images, folded, conv.bias, padding=1)
    assert torch.allclose(conv(mix(images)), apart, atol=1e-5)


def test_a_norm_of_the_reshaped_kernel_is_no_norm_of_the_convolution() -> None:
    kernel = torch.full((1, 1, 3, 3), 1 / 3)
    assert float(torch.linalg.matrix_norm(kernel.flatten(1), 2)) == pytest.approx(1.0)
    layer = FixedConv2d(kernel.double(), padding=1)
    true = float(torch.linalg.matrix_norm(matrix(layer, (1, 12, 12)), 2))
    assert true > 2.8
    assert true <= layer.lipschitz_bound((1, 12, 12)).value <= 3.0 + 1e-6
    orthonormal = nn.init.orthogonal_(torch.empty(16, 4 * 9, dtype=torch.float64)).reshape(16, 4, 3, 3)
    assert FixedConv2d(orthonormal, padding=1).lipschitz_bound((4, 8, 8)).value > 1.3


def test_two_steps_of_power_iteration_leave_the_norm_above_one() -> None:
    kernel = torch.randn(16, 16, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = matrix(FixedConv2d(kernel, padding=1), (16, 6, 6))
    vector = torch.randn(whole.shape[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for _ in range(2):
        vector = whole.T @ (whole @ vector)
        vector = vector / vector.norm()
    estimate = float((whole @ vector).norm())
    true = float(torch.linalg.matrix_norm(whole / estimate, 2))
    assert true > 1.05
    divided = FixedConv2d(kernel / estimate, padding=1)
    assert divided.lipschitz_bound((16, 6, 6)).value >= true


def test_unknown_ways_of_drawing_and_other_channels_are_refused() -> None:
    with pytest.raises(HauberkError, match="resampling"):
        RandomFilters2d(2, 2, 3, resample="often")  # type: ignore[arg-type]
    for shape in ((3, 4, 4), (2, 4)):
        with pytest.raises(HauberkError, match="2 channels"):
            RandomFilters2d(2, 2, 3).lipschitz_bound(shape)
    with pytest.raises(HauberkError, match="linf"):
        RandomFilters2d(2, 2, 3).lipschitz_bound((2, 4, 4), "linf")
