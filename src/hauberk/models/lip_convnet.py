"""A small convolutional network with Lipschitz constant at most 1."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from hauberk.classifier import Normalize
from hauberk.errors import HauberkError
from hauberk.layers.activations import MaxMin
from hauberk.layers.aol import AOLConv2d, AOLLinear
from hauberk.layers.shape import PadToMultiple
from hauberk.layers.unit_rows import UnitRowLinear
from hauberk.models.building import check_task, with_spec
from hauberk.specs import Depth, Width


def lip_convnet(
    input_shape: Sequence[Width],
    num_classes: Width,
    mean: Sequence[float],
    std: Sequence[float],
    widths: Sequence[Width] = (32, 64, 128),
    depth: Depth = 2,
    hidden: Width = 256,
) -> nn.Module:
    r"""AOL convolutions with MaxMin, whose logit differences have a known Lipschitz constant.

    .. math:: |(z_i - z_j)(x) - (z_i - z_j)(x')| \le \|w_i - w_j\|_2\,\|x - x'\|_2 \le 2\,\|x - x'\|_2

    Images are centred by ``mean`` and not divided by ``std``: the division would raise the Lipschitz constant to
    1 / min(std), and training sets the scale by its temperature in any case.  Between stages, 2x2 blocks of pixels
    become channels (odd sizes are padded with zeros first).  The last layer has rows :math:`w_i` of unit length.

    Args:
        input_shape: shape of one image, (C, H, W).
        num_classes: number of logits K.
        mean: mean of each channel on the [0, 1] scale.
        std: accepted as by every builder, kept in the spec, and not used.
        widths: channels of each stage, even numbers.
        depth: convolutions a stage.
        hidden: width of the linear layer before the last, an even number.

    Returns:
        an ``nn.Sequential`` from (B, C, H, W) to (B, K); ``spec`` holds this call.

    Raises:
        HauberkError: if the arguments do not fit each other.

    Source: Prach & Lampert 2022 (layers); Singla et al. 2022 (last layer).
    """
    check_task(input_shape, num_classes, mean, std)
    if not widths or depth < 1 or any(w < 2 or w % 2 for w in (*widths, hidden)):
        raise HauberkError(
            f"expected even widths and a depth >= 1, got widths {list(widths)}, hidden {hidden}, depth {depth}",
            "MaxMin pairs channels: use for example widths (32, 64), hidden 256",
        )
    channels, height, breadth = input_shape
    layers: list[nn.Module] = [Normalize(mean, [1.0] * channels)]
    for stage, width in enumerate(widths):
        if stage > 0:
            layers += [PadToMultiple(2), nn.PixelUnshuffle(2)]
            channels, height, breadth = 4 * channels, math.ceil(height / 2), math.ceil(breadth / 2)
        for _ in range(depth):
            layers += [AOLConv2d(channels, width, 3, padding=1), MaxMin()]
            channels = width
    layers += [nn.Flatten(), AOLLinear(channels * height * breadth, hidden), MaxMin()]
    layers.append(UnitRowLinear(hidden, num_classes))
    return with_spec(
        nn.Sequential(*layers), "lip_convnet", input_shape=input_shape, num_classes=num_classes, mean=mean, std=std,
        widths=widths, depth=depth, hidden=hidden,
    )  # fmt: skip
