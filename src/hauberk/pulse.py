"""Word from inside a long piece of work: who calls a model many times says so, and who watches is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Watch = Callable[[int], None]
_watching: list[Watch] = []  # a list and no context variable: looking into it costs nothing beside a model call
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_watching.clear)  # a worker does not draw on its driver's terminal


def beat(passes: int) -> None:
    """Say that so many more passes of single images are done."""
    if _watching:
        _watching[-1](passes)


@contextmanager
def watched(by: Watch | None) -> Iterator[None]:
    """Inside, that function is told of every beat; without one nobody is."""
    if by is None:
        yield
        return
    _watching.append(by)
    try:
        yield
    finally:
        if by in _watching:  # a fork has forgotten it
            _watching.remove(by)
