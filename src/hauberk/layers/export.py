"""Plain layers with the effective weights of parametrised ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

from hauberk.layers.walkable import bent

Plain = TypeVar("Plain", nn.Linear, nn.Conv2d)


def exported(model: nn.Module) -> nn.Module:
    """The same function with plain layers in the place of layers that have ``export``; nested sequences are kept.

    A class that computes something else than its parent, whose ``export`` it inherits, is left as it is.
    """
    if type(model) is nn.Sequential:
        return nn.Sequential(*[exported(layer) for layer in model]).train(model.training)
    owner = next((cls for cls in type(model).__mro__ if "export" in vars(cls)), None)
    plain: nn.Module = model if owner is None or bent(model, owner) else model.export()  # type: ignore[operator]
    return plain.train(model.training)


def plain_conv(source: nn.Conv2d) -> nn.Conv2d:
    """A plain convolution with the effective weight, settings, dtype and mode of the source."""
    plain = nn.Conv2d(
        source.in_channels, source.out_channels, _two(source.kernel_size), _two(source.stride),
        source.padding if isinstance(source.padding, str) else _two(source.padding), _two(source.dilation),
        source.groups, source.bias is not None, source.padding_mode,
    )  # fmt: skip
    return _filled(plain, source)


def plain_linear(source: nn.Linear) -> nn.Linear:
    """A plain linear layer with the effective weight, dtype and mode of the source."""
    return _filled(nn.Linear(source.in_features, source.out_features, source.bias is not None), source)


def _two(values: Sequence[int]) -> tuple[int, int]:
    return (values[0], values[1])


def _filled(plain: Plain, source: nn.Linear | nn.Conv2d) -> Plain:
    """The plain layer with the source's effective weight, bias and mode."""
    plain.to(source.weight)
    with torch.no_grad():
        plain.weight.copy_(source.weight)
        if plain.bias is not None and source.bias is not None:
            plain.bias.copy_(source.bias)
    return plain.train(source.training)
