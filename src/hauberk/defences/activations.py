"""The outputs of a classifier's modules in a forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from hauberk import registry
from hauberk.errors import HauberkError


def activations_of(base: nn.Module, layers: Sequence[str], images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The base's logits (B, K) and the outputs of some of its modules, each (B, ...), in one forward pass.

    Args:
        base: the classifier.
        layers: names of modules, as in ``base.named_modules()``.
        images: (B, C, H, W).

    Raises:
        HauberkError: if there is no such module, or it does not run exactly once in a forward pass.
    """
    modules = dict(base.named_modules())
    for layer in layers:
        if layer not in modules:
            raise HauberkError(f"the base has no module {layer!r}", registry.suggestion(layer, list(modules)[1:]))
    seen: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    handles = [modules[layer].register_forward_hook(partial(_keep, seen[layer])) for layer in seen]
    try:
        logits: Tensor = base(images)
    finally:
        for handle in handles:
            handle.remove()
    for layer, outputs in seen.items():
        if len(outputs) != 1:
            ran = f"the module {layer!r} ran {len(outputs)} times in one forward pass"
            raise HauberkError(ran, "choose one that runs exactly once")
    return logits, tuple(seen[layer][0] for layer in layers)


def _keep(seen: list[Tensor], _module: nn.Module, _inputs: object, output: Tensor) -> None:
    seen.append(output.clone())  # a copy, because the next module may work in place (ReLU)


def last_features(model: nn.Module, images: Tensor) -> Tensor:
    """The penultimate features, (B, F): the input of the model's last linear layer.

    Args:
        model: the features are read before its last module of class ``nn.Linear``, in the order of ``modules()``.
        images: (B, C, H, W).

    Raises:
        HauberkError: if there is no such layer, or it does not run exactly once in a forward pass.
    """
    last = next((m for m in reversed(list(model.modules())) if isinstance(m, nn.Linear)), None)
    if last is None:
        raise HauberkError("the model has no linear layer", "set layer to the name of the module whose output is used")
    seen: list[Tensor] = []
    handle = last.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    try:
        model(images)
    finally:
        handle.remove()
    if len(seen) != 1:
        raise HauberkError(
            f"the last linear layer ran {len(seen)} times in one forward pass", "set layer to a module that runs once"
        )
    return seen[0]
