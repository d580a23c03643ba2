"""The plain convolutional network."""

from __future__ import annotations

import pytest
from torch import nn

from hauberk.errors import HauberkError
from hauberk.models import small_cnn

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
