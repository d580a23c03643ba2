"""6C2F: the small network on which Lipschitz training methods are compared."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from hauberk.classifier import Normalize
from hauberk.layers.activations import MaxMin
from hauberk.models.building import check_task, with_spec
from hauberk.specs import Width


def cnn_6c2f(
    input_shape: Sequence[Width], num_classes: Width, mean: Sequence[float], std: Sequence[float], scale: float = 1.0
) -> nn.Module:
    r"""Six plain convolutions and two dense layers with MaxMin; train it against its bound, with ``gloro`` or ``emma``.

    Three pairs of a 3x3 convolution and a 4x4 one of stride 2, of 32, 32 and 64 channels, then 512 features; this is
    our reading of a network that its sources name and do not print.  Where a side is 1 already the second of a pair is
    left out.

    Args:
        input_shape: shape of one image, (C, H, W).
        num_classes: number of logits K.
        mean: mean of each channel on the [0, 1] scale.
        std: accepted as by every builder, kept in the spec, and not used: a division would raise the constant.
        scale: factor of all widths.

    Returns:
        an ``nn.Sequential`` from (B, C, H, W) to (B, K); ``spec`` holds this call.

    Source: Lee et al. 2020 (the network); Leino et al. 2021 (GloRo; MaxMin for ReLU).
    """
    check_task(input_shape, num_classes, mean, std)
    channels, height, breadth = input_shape
    net: list[nn.Module] = [Normalize(mean, [1.0] * channels)]
    for width in (max(2, 2 * round(scale * w / 2)) for w in (32, 32, 64)):
        net += [nn.Conv2d(channels, width, 3, 1, 1), MaxMin()]
        channels = width
        if min(height, breadth) > 1:
            net += [nn.Conv2d(width, width, 4, 2, 1), MaxMin()]
            height, breadth = height // 2, breadth // 2
    hidden = max(2, 2 * round(scale * 256))
    net += [nn.Flatten(), nn.Linear(channels * height * breadth, hidden), MaxMin(), nn.Linear(hidden, num_classes)]
    return with_spec(
        nn.Sequential(*net), "cnn_6c2f", input_shape=input_shape, num_classes=num_classes, mean=mean, std=std,
        scale=scale,
    )  # fmt: skip
