"""LiResNet: linear residual convolutions, trained against their bound."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from hauberk.classifier import Normalize
from hauberk.errors import HauberkError
from hauberk.layers.activations import MaxMin
from hauberk.layers.li_resnet import LiResConv2d
from hauberk.layers.unit_rows import UnitRowLinear
from hauberk.models.building import check_task, with_spec
from hauberk.specs import Depth, Width


def li_resnet(
    input_shape: Sequence[Width],
    num_classes: Width,
    mean: Sequence[float],
    std: Sequence[float],
    width: Width = 32,
    depth: Depth = 4,
    hidden: Width = 256,
    dense: Depth = 1,
) -> nn.Module:
    r"""A stem, a backbone of linear residual convolutions, a neck and dense layers, with MaxMin between all of them.

    Its layers are plain: its Lipschitz constant depends on training, so train it with ``emma`` or ``gloro``, which use
    its bound.  The stem has kernel 5 and stride 2, a backbone of ``depth`` blocks :math:`I + P` keeps the size, the
    neck has kernel and stride 4 (or the whole side, if that is less), and the last layer has rows of unit length.  The
    published sizes are width 128 to 512, depth 12 to 18 and hidden 2048, with 8 dense layers in the later one.

    Args:
        input_shape: shape of one image, (C, H, W).
        num_classes: number of logits K.
        mean: mean of each channel on the [0, 1] scale.
        std: accepted as by every builder, kept in the spec, and not used.
        width: channels of the backbone, even.
        depth: blocks of the backbone.
        hidden: width of the dense layers, even.
        dense: dense layers before the last one.

    Returns:
        an ``nn.Sequential`` from (B, C, H, W) to (B, K); ``spec`` holds this call.

    Raises:
        HauberkError: if the arguments do not fit each other.

    Source: Hu et al. 2023 (LiResNet), Hu et al. 2024 (dense layers); the neck is our reading of their description.
    """
    check_task(input_shape, num_classes, mean, std)
    if any(w < 2 or w % 2 for w in (width, hidden)) or depth < 1 or dense < 1:
        raise HauberkError(
            f"expected even widths and a depth >= 1, got width {width}, hidden {hidden}, depth {depth}, dense {dense}",
            "MaxMin pairs channels: use for example width=32, hidden=256",
        )
    channels, height, breadth = input_shape
    net: list[nn.Module] = [Normalize(mean, [1.0] * channels), nn.Conv2d(channels, width, 5, 2, 2), MaxMin()]
    for _ in range(depth):
        net += [LiResConv2d(width, 3, scale=1.0 / math.sqrt(depth)), MaxMin()]
    sides = math.ceil(height / 2), math.ceil(breadth / 2)
    neck = min(4, sides[0]), min(4, sides[1])
    net += [nn.Conv2d(width, 2 * width, neck, neck), MaxMin(), nn.Flatten()]
    features = 2 * width * (sides[0] // neck[0]) * (sides[1] // neck[1])
    for _ in range(dense):
        net += [nn.Linear(features, hidden), MaxMin()]
        features = hidden
    net.append(UnitRowLinear(features, num_classes))
    return with_spec(
        nn.Sequential(*net), "li_resnet", input_shape=input_shape, num_classes=num_classes, mean=mean, std=std,
        width=width, depth=depth, hidden=hidden, dense=dense,
    )  # fmt: skip
