"""Parametrised weights that are computed once for many calls of a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.utils import parametrize

from hauberk.capabilities import Random
from hauberk.layers.walkable import is_house, plain_type
from hauberk.randomness import PublicDraw


@contextmanager
def kept_weights(model: nn.Module) -> Iterator[None]:
    """Inside, a parametrised weight of the model is computed once; its weights must not be changed there.

    torch remembers a weight by the address of its module, which belongs to another module once the first is gone.  So
    nothing is kept unless all modules are torch's or Hauberk's, and no draw of a random one makes, or copies, a
    parametrised one.
    """
    if parametrize._cache_enabled or not _lasting(model):
        yield
        return
    with parametrize.cached():
        yield


def _lasting(model: nn.Module) -> bool:
    """Whether no parametrised module is made while the model answers."""
    parts = list(model.modules())
    made = [new for part in parts if isinstance(part, Random) for new in part.draw(PublicDraw(0, 0)).modules()]
    copied = [part for part in parts if any(isinstance(inner, Random) for inner in part.modules())]
    return all(is_house(plain_type(part)) for part in parts) and not any(
        map(parametrize.is_parametrized, (*made, *copied))
    )
