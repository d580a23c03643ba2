"""What all suites share: how a broken rule is told, what must stay untouched, and what must not matter."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor, nn

from hauberk.attacks import AttackResult
from hauberk.batch import Batch
from hauberk.certificates import Certificates
from hauberk.errors import HauberkError

Shape = tuple[int, int, int]
SHAPES: tuple[Shape, ...] = ((1, 3, 5), (3, 4, 4), (2, 5, 3))
TILE = 4


# --- how a broken rule is told ---------------------------------------------------------------------------------


def require(holds: bool, part: object, rule: str, detail: str = "") -> None:
    """Raise a ``HauberkError`` that names the part and the rule, unless it holds."""
    if not holds:
        name = part if isinstance(part, str) else type(part).__name__
        raise HauberkError(f"{name} breaks a rule: {rule}{f' ({detail})' if detail else ''}", "see hauberk.conformance")


@contextmanager
def untouched(model: nn.Module, part: object) -> Iterator[None]:
    """Raise if the model or a global random state is not afterwards what it was before."""

    def state() -> tuple[object, ...]:
        legacy = np.random.get_state(legacy=False)  # noqa: NPY002 - it must not move
        return torch.get_rng_state().tolist(), repr(legacy), legacy["state"]["key"].tolist(), random.getstate()

    weights = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()]
    modes, before = [m.training for m in model.modules()], state()
    yield
    alike = all(torch.equal(weights[name].nan_to_num(), now.nan_to_num()) for name, now in model.state_dict().items())
    require(alike, part, "the weights and buffers of the model stay as they are")
    for (wanted, gradient), p in zip(flags, model.parameters(), strict=True):
        require(p.requires_grad == wanted, part, "requires_grad of the parameters is restored")
        kept = p.grad is None if gradient is None else p.grad is not None and torch.equal(p.grad, gradient)
        require(kept, part, "gradients of the parameters stay as they are")
    require(modes == [m.training for m in model.modules()], part, "train and eval modes are restored")
    require(before == state(), part, "global random states are not used", "draw from the given randomness instead")


def check_alike(
    subject: object, method: Callable[..., AttackResult] | Callable[..., Certificates], model: nn.Module, batch: Batch
) -> None:
    """Batch size and order do not change a row."""
    every = torch.arange(len(batch))
    whole = method(model, batch, seed=3, tile=TILE)
    for index, rule in (
        (every, "the same seed gives the same result"),
        (every.flip(0), "the order of images has no effect"),
        (every[-1:], "the size of the batch has no effect"),
    ):
        require(same_rows(whole, method(model, batch.select(index), seed=3, tile=TILE), index), subject, rule)


def same_rows(whole: AttackResult | Certificates, other: AttackResult | Certificates, index: Tensor) -> bool:
    """Whether row i of ``other`` is row ``index[i]`` of ``whole``, in every column of numbers or words."""
    picked = index.tolist()
    for f in fields(whole):
        expected, value = getattr(whole, f.name), getattr(other, f.name)
        if isinstance(expected, Tensor):
            # a row's place in a tile may change its last bits, never more
            if not torch.allclose(expected[index].double(), value.double(), rtol=1e-5, atol=1e-6, equal_nan=True):
                return False
        elif isinstance(expected, tuple) and [expected[i] for i in picked] != list(value):
            return False
    return True
