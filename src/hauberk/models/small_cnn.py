"""A plain convolutional network for small images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from hauberk.classifier import Normalize
from hauberk.errors import HauberkError
from hauberk.layers.random_filters import RandomFilters2d
from hauberk.layers.residual import Concatenation
from hauberk.models.building import check_task, with_spec
from hauberk.specs import Width

ACTIVATIONS: dict[str, type[nn.ReLU] | type[nn.SiLU]] = {"relu": nn.ReLU, "silu": nn.SiLU}


def small_cnn(  # noqa: PLR0913 - every choice of the net
    input_shape: Sequence[Width],
    num_classes: Width,
    mean: Sequence[float],
    std: Sequence[float],
    widths: Sequence[Width] = (32, 64, 64, 128, 128, 256),
    strides: Sequence[Width] = (1, 2, 1, 2, 1, 2),
    batch_norm: bool = True,
    random_filters: Width = 0,
    *,
    activation: str = "relu",
) -> nn.Module:
    """3x3 convolutions with ReLU or SiLU, a global average, and a linear layer.

    With ``random_filters`` some channels of the first convolution come from filters that are drawn anew for every
    draw (random projection filters; Dong & Xu 2023 take 48 of 64).  They have norm 1 here, where the paper draws
    :math:`N(0, 1/k^2)`; a batch norm that follows sets the scale of each channel.

    Args:
        input_shape: shape of one image, (C, H, W), at least 4 pixels a side.
        num_classes: number of logits K.
        mean: mean of each channel on the [0, 1] scale.
        std: standard deviation of each channel.
        widths: channels of each convolution.
        strides: stride of each convolution.
        batch_norm: whether batch normalisation follows each convolution (which then has no bias).
        random_filters: channels of the first convolution whose filters are random, fewer than it has.
        activation: ``relu``, or ``silu``, :math:`x / (1 + e^{-x})`, whose gradient is smooth (Xie et al. 2020 train
            such nets against attacks).

    Returns:
        a classifier from (B, C, H, W) to (B, K); ``spec`` holds this call.

    Raises:
        HauberkError: if the arguments do not fit each other.

    Example:
        >>> import torch
        >>> from hauberk.models import small_cnn
        >>> net = small_cnn((3, 32, 32), 10, mean=(0.5,) * 3, std=(0.25,) * 3)
        >>> tuple(net(torch.rand(2, 3, 32, 32)).shape)
        (2, 10)
    """
    check_task(input_shape, num_classes, mean, std, smallest=4)
    if not widths or len(widths) != len(strides):
        raise HauberkError(
            f"expected one stride for each width, got {len(widths)} widths and {len(strides)} strides",
            "for example widths (32, 64) with strides (1, 2)",
        )
    if not 0 <= random_filters < widths[0]:
        raise HauberkError(
            f"expected fewer random filters than the {widths[0]} of the first convolution, got {random_filters}",
            "three quarters of them are usual",
        )
    if activation not in ACTIVATIONS:
        raise HauberkError(f"there is no activation {activation!r}", f"one of: {', '.join(ACTIVATIONS)}")
    layers: list[nn.Module] = [Normalize(mean, std)]
    for (wide, width), stride in zip(pairwise([input_shape[0], *widths]), strides, strict=True):
        drawn = random_filters if len(layers) == 1 else 0
        conv: nn.Module = nn.Conv2d(wide, width - drawn, 3, stride=stride, padding=1, bias=not batch_norm)
        layers.append(Concatenation(conv, RandomFilters2d(wide, drawn, 3, stride)) if drawn else conv)
        if batch_norm:
            layers.append(nn.BatchNorm2d(width))
        layers.append(ACTIVATIONS[activation](inplace=True))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], num_classes)]
    return with_spec(
        nn.Sequential(*layers), "small_cnn", input_shape=input_shape, num_classes=num_classes, mean=mean, std=std,
        widths=widths, strides=strides, batch_norm=batch_norm, random_filters=random_filters, activation=activation,
    )  # fmt: skip
