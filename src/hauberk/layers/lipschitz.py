"""Walk a model layer by layer and bound its Lipschitz constant; whatever is not understood is refused.

All bounds are in the Euclidean norm, hold in eval mode, and belong to the weights as they are, in the dtype that they
have: a parametrised weight recomputed in another dtype is another weight.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from hauberk.classifier import Normalize, check_eval
from hauberk.errors import HauberkError
from hauberk.layers.bound import Bound, BoundedLayer, times
from hauberk.layers.norms import SLACK, conv_layer_norm, linear_norm

__all__ = ["Bound", "BoundedLayer", "LayerBound", "layer_bounds", "model_bound", "pairwise_bounds"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerBound:
    """The bound of one layer of a model.

    Args:
        name: its dotted name in the model, or ``model`` for a model that is one layer.
        kind: the name of its class.
        bound: what is known about it.
    """

    name: str
    kind: str
    bound: Bound


def layer_bounds(model: nn.Module, input_shape: Sequence[int]) -> list[LayerBound]:
    """The bound of every layer, in the order in which they are applied.

    Args:
        model: one layer, or ``nn.Sequential`` (nested) of layers, in eval mode.
        input_shape: shape of one image, (C, H, W).

    Raises:
        HauberkError: on train mode, NaN weights, a forward hook, or a layer that offers no bound; it is named.
    """
    return [item for item, _, _ in _walk(model, input_shape)]


def model_bound(model: nn.Module, input_shape: Sequence[int]) -> Bound:
    r"""The product of the layers' bounds, :math:`\prod_l L_l`, rounded up.

    Raises:
        HauberkError: as ``layer_bounds``.
    """
    bounds = [item.bound for item in layer_bounds(model, input_shape)]
    if len(bounds) == 1:
        return bounds[0]
    return Bound(_product(bounds), f"product of {len(bounds)} layers", False)


def pairwise_bounds(model: nn.Module, input_shape: Sequence[int]) -> Tensor:
    r"""Lipschitz bounds of the differences of two logits.

    .. math:: |(z_i - z_j)(x) - (z_i - z_j)(x')| \le L_{ij}\,\|x - x'\|_2, \qquad L_{ij} = L\,\|w_i - w_j\|_2

    with L the bound of all before the last linear layer and :math:`w_i` its rows; :math:`L_{ij} = \sqrt 2\,L` with L
    the bound of the whole model if it does not end in one (Tsuzuku et al. 2018; Singla et al. 2022, Proposition 1).

    Args:
        model: a classifier with K logits.
        input_shape: shape of one image, (C, H, W).

    Returns:
        shape (K, K), float64, symmetric, zero on the diagonal.

    Raises:
        HauberkError: as ``layer_bounds``, or if the output is not a vector of logits.
    """
    walked = _walk(model, input_shape)
    _, last, output = walked[-1]
    if len(output) != 1:
        raise HauberkError(f"expected logits of shape (K,), got {output}", "end the model with a linear layer")
    bounds = [item.bound for item, _, _ in walked]
    if isinstance(last, nn.Linear) and type(last).forward is nn.Linear.forward:
        rows = last.weight.detach().cpu().double()
        apart = torch.stack([torch.linalg.vector_norm(rows - row, dim=1) for row in rows])
        bounds = bounds[:-1]
    else:
        apart = torch.full((output[0], output[0]), math.sqrt(2.0), dtype=torch.float64).fill_diagonal_(0.0)
    return apart * (_product(bounds) * (1.0 + SLACK))


def _product(bounds: Sequence[Bound]) -> float:
    value = 1.0
    for bound in bounds:
        value = times(value, bound.value)
    return value


@torch.no_grad()
def _walk(model: nn.Module, input_shape: Sequence[int]) -> list[tuple[LayerBound, nn.Module, Shape]]:
    """The bound of each layer, the layer itself, and the shape of its output."""
    _check_forward_is_what_it_seems(model)
    own = next(itertools.chain(model.parameters(), model.buffers()), torch.zeros(()))
    # two rows, so that a layer that merges the batch axis shows
    features = torch.zeros(2, *input_shape, dtype=own.dtype, device=own.device)
    walked = []
    for name, layer in _leaves(model, ""):
        kind = type_before_parametrizations(layer).__name__
        shape = tuple(features.shape[1:])
        try:
            bound = _bound(layer, shape)
            features = layer(features)
        except (HauberkError, RuntimeError, ValueError, TypeError, IndexError) as error:
            raise _refusal(name, kind, shape, error) from error
        if features.dim() < 2 or len(features) != 2:
            raise _refusal(name, kind, shape, HauberkError("it mixes the images of a batch", "flatten from axis 1 on"))
        walked.append((LayerBound(name, kind, bound), layer, tuple(features.shape[1:])))
    if not walked:
        raise HauberkError("the model has no layers", "an empty nn.Sequential is no classifier")
    return walked


def _check_forward_is_what_it_seems(model: nn.Module) -> None:
    """Raise on train mode, and on hooks and replaced methods, which may change what a layer computes."""
    check_eval(model)
    for name, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
            raise HauberkError(
                f"layer {name or 'model'!r} ({type(module).__name__}) has a forward hook or a replaced forward method",
                "remove it: its effect cannot be bounded (use torch.nn.utils.parametrize for weights)",
            )


def _leaves(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """The layers of nested ``nn.Sequential`` in order; a layer that is used twice comes twice."""
    if type(module) is not nn.Sequential:
        yield name or "model", module
        return
    for key, child in module._modules.items():
        if child is not None:
            yield from _leaves(child, f"{name}.{key}" if name else key)


def _refusal(name: str, kind: str, shape: Shape, error: Exception) -> HauberkError:
    message, hint = (error.message, error.hint) if isinstance(error, HauberkError) else (str(error), "")
    return HauberkError(f"no Lipschitz bound for layer {name!r} ({kind}) on inputs of shape {shape}: {message}", hint)


# --- layers of torch and of the classifier --------------------------------------------------------------------


def _bound(layer: nn.Module, shape: Shape) -> Bound:
    if isinstance(layer, BoundedLayer):
        if _owner(type(layer), "forward") not in _owner(type(layer), "lipschitz_bound").__mro__:
            raise HauberkError(
                "it changes forward but inherits the bound of another class",
                "give the class that defines forward its own lipschitz_bound",
            )
        return layer.lipschitz_bound(shape)
    # exact types: a subclass may compute something else
    known = _KNOWN.get(type_before_parametrizations(layer))
    if known is None:
        raise HauberkError(
            "nothing is known about it" if not next(layer.children(), None) else "it is not an nn.Sequential of layers",
            "use 1-Lipschitz layers (hauberk.layers), or give it a method lipschitz_bound(input_shape) -> Bound",
        )
    return known(layer, shape)


def _owner(cls: type, method: str) -> type:
    """The class in which a method is defined."""
    return next(c for c in cls.__mro__ if method in vars(c))


def _linear(layer: nn.Linear, _: Shape) -> Bound:
    return linear_norm(layer.weight)


def _one(method: str) -> Callable[[nn.Module, Shape], Bound]:
    return lambda _layer, _shape: Bound(1.0, method, True)


def _average(layer: nn.AvgPool2d, _: Shape) -> Bound:
    r"""Means of disjoint windows of a x b values: each has norm :math:`1/\sqrt{ab}` (1/k for k x k)."""
    kernel, stride, padding = (_pair(v) for v in (layer.kernel_size, layer.stride, layer.padding))
    if kernel != stride or padding != (0, 0) or layer.ceil_mode or layer.divisor_override is not None:
        raise HauberkError(
            f"only windows that tile the image are known, got kernel {kernel}, stride {stride}, padding {padding}",
            "use nn.AvgPool2d(k) without padding, ceil_mode or divisor",
        )
    return Bound(math.nextafter(1.0 / math.sqrt(kernel[0] * kernel[1]), math.inf), "disjoint means", True)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _normalize(layer: Normalize, shape: Shape) -> Bound:
    """Division by each channel's deviation stretches most where it is smallest."""
    std = layer.std.detach().cpu().double().abs().flatten()
    if len(std) not in (1, shape[0]):
        raise HauberkError(f"it has {len(std)} channels, the input has {shape[0]}", "give one mean and std a channel")
    smallest = float(std.min())
    if not smallest > 0.0:
        raise HauberkError(f"expected positive deviations, got {std.tolist()}", "a constant channel needs std=1")
    return Bound(1.0 if smallest == 1.0 else math.nextafter(1.0 / smallest, math.inf), "1/min(std)", True)


_KNOWN: dict[type[nn.Module], Callable[[Any, Shape], Bound]] = {
    nn.AvgPool2d: _average,
    nn.Conv2d: conv_layer_norm,
    nn.Flatten: _one("permutation"),
    nn.Identity: _one("identity"),
    nn.Linear: _linear,
    nn.PixelUnshuffle: _one("permutation"),
    nn.ReLU: _one("slopes 0 and 1"),
    Normalize: _normalize,
}
