"""One draw of a random model: a deterministic net for given noise.

Evaluation never lets a random model draw by itself.  A model made of ``Random`` modules is drawn by their keys, so that
a row's noise depends on the seed, its id and the number of the draw alone.  What a model draws beside that (dropout
that is left on, noise from torch's generator) is fenced: the global generators start from the draw's key, and are
afterwards as before.  Such answers can be repeated batch by batch, and not row by row.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from hauberk.boundary import called
from hauberk.capabilities import FixesDraws, NamedOutputs, Random
from hauberk.randomness import Draw, Key, fenced, stream

PROBES = 10  # a model that tosses one coin a call looks deterministic in every one of them with probability 1/1024


def draws_by_key(model: nn.Module) -> bool:
    """Whether some module of the model takes its noise as an argument, and nothing around it fixes that."""
    if isinstance(model, Random | FixesDraws):
        return isinstance(model, Random)
    return any(map(draws_by_key, model.children()))


def drawn(model: nn.Module, key: Draw) -> nn.Module:
    """The model with the noise of one draw; weights are shared with it, and a model without ``Random`` parts is itself.

    A module that holds random ones is copied, not its weights, so that the model itself does not change.
    """
    return _drawn(model, key, "", {})


def _drawn(module: nn.Module, key: Draw, name: str, done: dict[int, nn.Module]) -> nn.Module:
    if id(module) in done:  # a module that stands in two places has the same noise in both
        return done[id(module)]
    made = module
    if isinstance(module, Random):
        made = module.draw(key.child(name)).train(module.training)
    elif not isinstance(module, FixesDraws):
        children = {
            n: None if child is None else _drawn(child, key, f"{name}.{n}", done)
            for n, child in module._modules.items()
        }
        if any(child is not module._modules[n] for n, child in children.items()):
            made = copy.copy(module)
            vars(made)["_modules"] = children
            forward = vars(made).get("forward")
            # an attack's gradient, which calls the module that was copied; what a user has put there stays
            if isinstance(forward, partial) and forward.func.__module__ == "hauberk.attacks.gradients":
                del vars(made)["forward"]
    done[id(module)] = made
    return made


class Fenced(nn.Module, NamedOutputs):
    """A model whose random numbers, wherever it takes them from, start at a key in every call.

    Args:
        model: any model.
        key: of the draw.
    """

    def __init__(self, model: nn.Module, key: Key) -> None:
        super().__init__()
        self.model = model
        self._seed = int(stream(key.seed, key.number, f"{key.purpose} fence").integers(2**32))
        self._devices = cuda_devices(model)
        self.train(model.training)

    def forward(self, images: Tensor) -> Tensor:
        """The model's logits."""
        with fenced(self._seed, self._devices):
            logits: Tensor = self.model(images)
        return logits

    def outputs(self, images: Tensor) -> Mapping[str, Tensor]:
        """The model's named outputs."""
        with fenced(self._seed, self._devices):
            if isinstance(self.model, NamedOutputs):
                return self.model.outputs(images)
            return {"logits": self.model(images)}


def cuda_devices(model: nn.Module) -> list[int]:
    """The GPUs that hold the model's weights."""
    tensors = chain(model.parameters(), model.buffers())
    return sorted({t.device.index or 0 for t in tensors if t.device.type == "cuda"})


def one_draw(model: nn.Module, key: Key) -> nn.Module:
    """A random model with the noise of one draw: what it takes by key, and behind a fence what it draws beside that."""
    return Fenced(drawn(model, key), key)


@torch.no_grad()
def is_random(model: nn.Module, images: Tensor, probes: int = 1) -> bool:
    """Probe: whether two forwards of the same images differ at all, in one of several tries."""
    with fenced(devices=cuda_devices(model)):
        return any(not torch.equal(called(model, images), called(model, images)) for _ in range(probes))
