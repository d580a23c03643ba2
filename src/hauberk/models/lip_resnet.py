"""Residual networks of SLL or CPL layers, with Lipschitz constant at most 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

from torch import nn

from hauberk.classifier import Normalize
from hauberk.errors import HauberkError
from hauberk.layers.cpl import CPLConv2d, CPLLinear
from hauberk.layers.pooling import ScaledAvgPool2d
from hauberk.layers.shape import PadChannels, PadToMultiple
from hauberk.layers.sll import SLLConv2d, SLLLinear
from hauberk.layers.unit_rows import UnitRowLinear
from hauberk.models.building import check_task, with_spec
from hauberk.specs import Depth, Width

Kind = Literal["sll", "cpl"]
LAYERS = {"sll": (SLLConv2d, SLLLinear), "cpl": (CPLConv2d, CPLLinear)}


def lip_resnet(  # noqa: PLR0913 - every choice of the papers
    input_shape: Sequence[Width],
    num_classes: Width,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    layer: Kind = "sll",
    widths: Sequence[Width] = (32, 128),
    depth: Depth = 2,
    pool: Width = 4,
    dense: Depth = 2,
) -> nn.Module:
    r"""Residual blocks :math:`x - 2 U^\top \mathrm{relu}(U x + b)` on feature maps, then on vectors, and LLN.

    .. math:: |(z_i - z_j)(x) - (z_i - z_j)(x')| \le \|w_i - w_j\|_2\,\|x - x'\|_2

    A block leaves the shape as it is.  So before each stage 2x2 blocks of pixels become channels (odd sizes are padded
    with zeros first), and zero channels are appended up to its width.  After the last stage come means of windows,
    scaled to the norm 1.  Images are centred by ``mean`` and not divided by ``std``.

    Args:
        input_shape: shape of one image, (C, H, W).
        num_classes: number of logits K.
        mean: mean of each channel on the [0, 1] scale.
        std: accepted as by every builder, kept in the spec, and not used.
        layer: ``sll`` or ``cpl``.
        widths: channels of each stage, at least four times those before it.
        depth: residual convolutions a stage.
        pool: side of the windows, at most that of the last feature map; rows and columns that fill no window are cut.
        dense: residual layers on vectors.

    Returns:
        an ``nn.Sequential`` from (B, C, H, W) to (B, K); ``spec`` holds this call.

    Raises:
        HauberkError: if the arguments do not fit each other.

    Source: Araujo et al. 2023 (SLL); Meunier et al. 2022 (CPL); Singla et al. 2022 (last layer).

    Example:
        >>> from hauberk.layers import model_bound
        >>> from hauberk.models import lip_resnet
        >>> net = lip_resnet((1, 8, 8), 10, mean=(0.5,), std=(0.25,), widths=(4,), pool=2).eval()
        >>> model_bound(net, (1, 8, 8)).value < 2  # the last layer has rows of length 1, the others lengthen nothing
        True
    """
    check_task(input_shape, num_classes, mean, std)
    channels, *size = input_shape
    needed = [4 * channels, *(4 * width for width in widths)]
    if layer not in get_args(Kind) or not widths or any(w < n for w, n in zip(widths, needed, strict=False)):
        raise HauberkError(
            f"expected a layer of {get_args(Kind)} and widths that are at least four times the {channels} channels of "
            f"the image, and then four times the width before, got {layer!r} and {list(widths)}",
            f"for example layer: sll, widths: [{4 * channels}, {16 * channels}]",
        )
    if min(depth, pool, dense) < 1:
        raise HauberkError(
            f"expected a depth, a pool and a dense of at least 1, got {depth}, {pool} and {dense}", "pool: 1 keeps all"
        )
    conv, linear = LAYERS[layer]
    net: list[nn.Module] = [Normalize(mean, [1.0] * channels)]
    for width in widths:
        net += [PadToMultiple(2), nn.PixelUnshuffle(2), PadChannels(width), *(conv(width) for _ in range(depth))]
        channels, size = width, [math.ceil(side / 2) for side in size]
    window = (min(pool, size[0]), min(pool, size[1]))
    features = channels * (size[0] // window[0]) * (size[1] // window[1])
    net += [ScaledAvgPool2d(window), nn.Flatten(), *(linear(features) for _ in range(dense))]
    net.append(UnitRowLinear(features, num_classes))
    return with_spec(
        nn.Sequential(*net), "lip_resnet", input_shape=input_shape, num_classes=num_classes, mean=mean, std=std,
        layer=layer, widths=widths, depth=depth, pool=pool, dense=dense,
    )  # fmt: skip
