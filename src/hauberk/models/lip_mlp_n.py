"""Dense networks of other 1-Lipschitz layers: splines, SLL, CPL and sandwich layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

from torch import nn

from hauberk.classifier import Normalize
from hauberk.errors import HauberkError
from hauberk.layers.cayley import CayleyLinear
from hauberk.layers.cpl import CPLLinear
from hauberk.layers.sandwich import SandwichLinear
from hauberk.layers.sll import SLLLinear
from hauberk.layers.splines import LinearSpline
from hauberk.layers.unit_rows import UnitRowLinear
from hauberk.models.building import check_task, with_spec
from hauberk.specs import Width

Kind = Literal["spline", "sll", "cpl", "sandwich"]


def lip_mlp_n(
    input_shape: Sequence[Width],
    num_classes: Width,
    mean: Sequence[float],
    std: Sequence[float],
    layer: Kind = "sandwich",
    widths: Sequence[Width] = (128, 128, 128),
) -> nn.Module:
    r"""1-Lipschitz dense layers of one kind, and a last layer with rows of unit length.

    ``spline``: an orthogonal layer by the Cayley transform and a learnable linear spline of each unit.  ``sll`` and
    ``cpl``: residual blocks :math:`x - 2 U^\top \mathrm{relu}(U x + b)`, with an orthogonal layer before those whose
    width is another one.  ``sandwich``: layers with their activation inside.  Images are centred by ``mean`` and not
    divided by ``std``.

    Args:
        input_shape: shape of one image, (C, H, W).
        num_classes: number of logits K.
        mean: mean of each channel on the [0, 1] scale.
        std: accepted as by every builder, kept in the spec, and not used.
        layer: the kind.
        widths: of the layers before the last.

    Returns:
        an ``nn.Sequential`` from (B, C, H, W) to (B, K); ``spec`` holds this call.

    Raises:
        HauberkError: if the arguments do not fit each other.

    Source: Ducotterd et al. 2024 (splines); Araujo et al. 2023 (SLL); Meunier et al. 2022 (CPL); Wang & Manchester
    2023 (sandwich layers).
    """
    check_task(input_shape, num_classes, mean, std)
    if layer not in get_args(Kind) or not widths:
        raise HauberkError(
            f"expected a layer of {get_args(Kind)} and at least one width, got {layer!r} and {list(widths)}",
            "for example layer: sll",
        )
    net: list[nn.Module] = [Normalize(mean, [1.0] * input_shape[0]), nn.Flatten()]
    features = math.prod(input_shape)
    for width in widths:
        net += _block(layer, features, width)
        features = width
    net.append(UnitRowLinear(features, num_classes))
    return with_spec(
        nn.Sequential(*net), "lip_mlp_n", input_shape=input_shape, num_classes=num_classes, mean=mean, std=std,
        layer=layer, widths=widths,
    )  # fmt: skip


def _block(layer: Kind, features: int, width: int) -> list[nn.Module]:
    """One layer with its activation."""
    if layer == "spline":
        return [CayleyLinear(features, width), LinearSpline(width)]
    if layer == "sandwich":
        return [SandwichLinear(features, width)]
    fitting = [CayleyLinear(features, width)] if features != width else []
    return [*fitting, SLLLinear(width) if layer == "sll" else CPLLinear(width)]
