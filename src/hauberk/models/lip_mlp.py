"""A dense network with Lipschitz constant at most 1, for small images."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from hauberk.classifier import Normalize
from hauberk.errors import HauberkError
from hauberk.layers.activations import MaxMin
from hauberk.layers.cayley import CayleyLinear
from hauberk.layers.unit_rows import UnitRowLinear
from hauberk.models.building import check_task, with_spec
from hauberk.specs import Width


def lip_mlp(
    input_shape: Sequence[Width],
    num_classes: Width,
    mean: Sequence[float],
    std: Sequence[float],
    widths: Sequence[Width] = (128, 128, 128),
) -> nn.Module:
    r"""Orthogonal layers by the Cayley transform, with MaxMin between them and a last layer with rows of unit length.

    .. math:: |(z_i - z_j)(x) - (z_i - z_j)(x')| \le \|w_i - w_j\|_2\,\|x - x'\|_2

    No layer shrinks what reaches it, forwards or backwards, so small images are certified better than by the small
    convolutional nets.  Images are centred by ``mean`` and not divided by ``std``.

    Args:
        input_shape: shape of one image, (C, H, W).
        num_classes: number of logits K.
        mean: mean of each channel on the [0, 1] scale.
        std: accepted as by every builder, kept in the spec, and not used.
        widths: of the layers before the last, even numbers.

    Returns:
        an ``nn.Sequential`` from (B, C, H, W) to (B, K); ``spec`` holds this call.

    Raises:
        HauberkError: if the arguments do not fit each other.

    Source: Anil et al. 2019 (dense nets that keep gradients); Trockman & Kolter 2021 (Cayley transform).

    Example:
        >>> from hauberk.layers import model_bound
        >>> from hauberk.models import lip_mlp
        >>> net = lip_mlp((1, 8, 8), 10, mean=(0.5,), std=(0.25,), widths=(16,)).eval()
        >>> model_bound(net, (1, 8, 8)).value < 5  # the data are divided by 0.25, the layers lengthen nothing
        True
    """
    check_task(input_shape, num_classes, mean, std)
    if not widths or any(w < 2 or w % 2 for w in widths):
        raise HauberkError(f"MaxMin pairs values: expected even widths, got {list(widths)}", "for example [128, 128]")
    net: list[nn.Module] = [Normalize(mean, [1.0] * input_shape[0]), nn.Flatten()]
    features = math.prod(input_shape)
    for width in widths:
        net += [CayleyLinear(features, width), MaxMin()]
        features = width
    net.append(UnitRowLinear(features, num_classes))
    return with_spec(
        nn.Sequential(*net), "lip_mlp", input_shape=input_shape, num_classes=num_classes, mean=mean, std=std,
        widths=widths,
    )  # fmt: skip
