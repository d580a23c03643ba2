"""Lipschitz bounds of torch's own layers and of the classifier's input layer, in the three norms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn

from hauberk.classifier import Normalize
from hauberk.errors import HauberkError
from hauberk.layers.bound import Bound
from hauberk.layers.entry_norms import Pair, conv_entry_norms, linear_entry_norms
from hauberk.layers.norms import conv_layer_norm, linear_norm
from hauberk.layers.pooling import adaptive_average_pool_bound, average_pool_bound, max_pool_bound
from hauberk.layers.walkable import bent, plain_type
from hauberk.threats import Norm

Shape = tuple[int, ...]
_Rule = Callable[[Any, Shape, Norm], Bound]


def known_bound(layer: nn.Module, shape: Shape, norm: Norm) -> Bound:
    """The bound of a layer that is exactly of a known type; a subclass may compute something else.

    Raises:
        HauberkError: if the type, or this use of it, is not known.
    """
    kind = plain_type(layer)
    rule = _KNOWN.get(kind)
    if rule is None or not computes_as(layer, kind):
        raise HauberkError(
            "no bound is known for it" if not next(layer.children(), None) else "it is not an nn.Sequential of layers",
            "use 1-Lipschitz layers (hauberk.layers), or give it a method lipschitz_bound(input_shape, norm) -> Bound",
        )
    return rule(layer, shape, norm)


def computes_as(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module computes what its kind computes: no part of its forward pass is redefined."""
    ways = [name for name in ("__call__", "forward", "_conv_forward") if hasattr(kind, name)]
    same = all(getattr(type(layer), name, None) is getattr(kind, name) for name in ways)
    own = any(name in vars(layer) for name in ways)
    return issubclass(type(layer), kind) and same and not own and not bent(layer, kind)


def entry_norms(layer: nn.Module, shape: Shape) -> dict[Pair, Bound]:
    """Bounds from one norm to another of a layer that is given by its weight; none for other layers."""
    if isinstance(layer, nn.Linear) and computes_as(layer, nn.Linear):
        return linear_entry_norms(layer.weight)
    if isinstance(layer, nn.Conv2d) and computes_as(layer, nn.Conv2d):
        return conv_entry_norms(layer, shape)
    return {}


def _linear(layer: nn.Linear, _: Shape, norm: Norm) -> Bound:
    return linear_norm(layer.weight, norm)


def _one(method: str) -> _Rule:
    """Of permutations, and of what acts on each value by itself with slopes within [-1, 1]: one in every norm."""
    return lambda _layer, _shape, _norm: Bound(1.0, method, True)


def _leaky(layer: nn.LeakyReLU, _: Shape, __: Norm) -> Bound:
    return Bound(max(abs(layer.negative_slope), 1.0), "slopes", True)  # NaN stays NaN, and is refused


def _normalize(layer: Normalize, shape: Shape, _: Norm) -> Bound:
    """Division by each channel's deviation stretches most where it is smallest."""
    std = layer.std.detach().cpu().double().abs().flatten()
    for values in (layer.mean, layer.std):  # more of them would repeat channels
        if values.numel() not in (1, shape[0]):
            raise HauberkError(
                f"it has {values.numel()} channels, the input has {shape[0]}",
                "give one mean and one std for each channel",
            )
    smallest = float(std.min())
    if not smallest > 0.0:
        raise HauberkError(f"expected positive deviations, got {std.tolist()}", "use std=1 for a constant channel")
    return Bound(1.0 if smallest == 1.0 else math.nextafter(1.0 / smallest, math.inf), "1/min(std)", True)


def _batch_norm(layer: nn.BatchNorm2d, _: Shape, __: Norm) -> Bound:
    r"""In eval mode each channel is scaled by :math:`\gamma / \sqrt{\sigma^2 + \epsilon}`."""
    if layer.running_var is None:
        raise HauberkError(
            "it uses the statistics of the batch even in eval mode", "use track_running_stats=True, or no batch norm"
        )
    scale = (layer.running_var.detach().cpu().double() + layer.eps).rsqrt()
    if layer.weight is not None:
        scale = scale * layer.weight.detach().cpu().double().abs()
    return Bound(float(scale.max()) * (1.0 + 1e-12), "largest scale of a channel", True)


_KNOWN: dict[type[nn.Module], _Rule] = {
    nn.AdaptiveAvgPool2d: adaptive_average_pool_bound,
    nn.AvgPool2d: average_pool_bound,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.Conv2d: conv_layer_norm,
    nn.Dropout: _one("identity in eval mode"),
    nn.Dropout1d: _one("identity in eval mode"),
    nn.Dropout2d: _one("identity in eval mode"),
    nn.Flatten: _one("permutation"),
    nn.Identity: _one("identity"),
    nn.LeakyReLU: _leaky,
    nn.Linear: _linear,
    nn.MaxPool2d: max_pool_bound,
    nn.PixelShuffle: _one("permutation"),
    nn.PixelUnshuffle: _one("permutation"),
    nn.ReLU: _one("slopes 0 and 1"),
    nn.Tanh: _one("slopes of at most 1"),
    Normalize: _normalize,
}
