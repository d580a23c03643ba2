"""Torch's older way of making a weight, a hook before each forward pass, turned into a plain weight.

``torch.nn.utils.weight_norm``, ``spectral_norm`` and ``prune`` compute a layer's weight in a forward pre-hook and leave
it as a plain attribute.  In eval mode it is the same at every call, so the weight can be computed once.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

_NORMS = (WeightNorm, SpectralNorm)
_PRUNING = (
    prune.PruningContainer, prune.Identity, prune.RandomUnstructured, prune.L1Unstructured, prune.RandomStructured,
    prune.LnStructured, prune.CustomFromMask,
)  # fmt: skip


def is_weight_hook(module: nn.Module, hook: object) -> bool:
    """Whether a hook is one of torch's that make a weight, before a module's forward pass."""
    return type(hook) in {*_NORMS, *_PRUNING} and any(hook is h for h in module._forward_pre_hooks.values())


def hooked(module: nn.Module) -> set[str]:
    """The names of the weights that such hooks make."""
    return {_name(hook) for hook in module._forward_pre_hooks.values() if is_weight_hook(module, hook)}


def _name(hook: object) -> str:
    return str(hook._tensor_name if isinstance(hook, prune.BasePruningMethod) else hook.name)  # type: ignore[attr-defined]


@torch.no_grad()
def plain_copy(model: nn.Module) -> nn.Module:
    """A copy of a model whose weights made by torch's hooks are plain parameters, as computed in the model's dtype."""
    # what a hook left is part of a graph, which deepcopy refuses
    left = [value for m in model.modules() for value in vars(m).values() if isinstance(value, Tensor)]
    plain = copy.deepcopy(model, {id(value): value.detach().clone() for value in left})
    for module in plain.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if is_weight_hook(module, hook):
                hook(module, ())
                name = _name(hook)
                weight = getattr(module, name).detach().clone()
                del module._forward_pre_hooks[key]
                delattr(module, name)
                module.register_parameter(name, nn.Parameter(weight, requires_grad=False))
    return plain
