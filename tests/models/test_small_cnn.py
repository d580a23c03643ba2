"""The plain convolutional network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hauberk.draws import drawn
from hauberk.errors import HauberkError
from hauberk.layers import RandomFilters2d
from hauberk.models import small_cnn
from hauberk.randomness import Key

TASK = {"input_shape": (1, 8, 8), "num_classes": 10, "mean": (0.3,), "std": (0.4,)}


@pytest.mark.parametrize("batch_norm", [True, False])
def test_blocks(batch_norm: bool) -> None:
    model = small_cnn(**TASK, batch_norm=batch_norm)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [32, 64, 64, 128, 128, 256]
    assert [m.stride[0] for m in convolutions] == [1, 2, 1, 2, 1, 2]
    assert all((m.bias is None) == batch_norm for m in convolutions)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 6 * batch_norm


def test_refusals() -> None:
    with pytest.raises(HauberkError, match="2 widths and 1 strides"):
        small_cnn(**TASK, widths=(4, 4), strides=(1,))
    with pytest.raises(HauberkError, match="H, W >= 4"):
        small_cnn(**TASK | {"input_shape": (1, 3, 8)})


def test_random_filters_stand_beside_trained_ones_in_the_first_convolution() -> None:
    model = small_cnn(**TASK, widths=(8, 4), strides=(2, 1), random_filters=6)
    random = [m for m in model.modules() if isinstance(m, RandomFilters2d)]
    assert [(m.in_channels, m.out_channels, m.stride) for m in random] == [(1, 6, 2)]
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        first, second = (drawn(model.eval(), Key(0, number, (0, 1, 2), "test"))(images) for number in (0, 1))
    assert first.shape == (3, 10)
    assert not torch.equal(first, second)
    assert model.spec["random_filters"] == 6


@pytest.mark.parametrize("count", [8, -1])
def test_some_filters_of_the_first_convolution_are_trained(count: int) -> None:
    with pytest.raises(HauberkError, match="fewer random filters"):
        small_cnn(**TASK, widths=(8, 4), strides=(2, 1), random_filters=count)


def test_silu_stands_where_relu_stood() -> None:
    small = TASK | {"widths": (8, 4), "strides": (2, 1), "batch_norm": False}
    smooth, plain = small_cnn(**small, activation="silu").double(), small_cnn(**small).double()
    plain.load_state_dict(smooth.state_dict())
    images = torch.rand(3, *TASK["input_shape"], dtype=torch.float64)
    features = images
    for layer in plain:
        features = features * torch.sigmoid(features) if isinstance(layer, torch.nn.ReLU) else layer(features)
    torch.testing.assert_close(smooth(images), features)


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(HauberkError, match="there is no activation 'gelu'"):
        small_cnn(**TASK, activation="gelu")
