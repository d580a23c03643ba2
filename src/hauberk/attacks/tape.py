"""The points that the attacks of a training step found, used again when the step is evaluated at other weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

from hauberk.errors import HauberkError
from hauberk.randomness import Randomness, Shared, bookmark


class Tape:
    """The points that attacks returned, in order, and the states of their random generators afterwards."""

    def __init__(self) -> None:
        self._points: list[Tensor] = []
        self._ends: list[Callable[[], None]] = []
        self._next: int | None = None  # the place of the point that is given next; None while points are recorded

    def pass_through(self, attack: Callable[[], Tensor], randomness: Randomness) -> Tensor:
        """Run the attack and record its points, or return the recorded points and restore the generators after them."""
        if self._next is None:
            with taping(None):  # an attack may use another one
                points = attack()
            self._points.append(points)
            self._ends.append(bookmark(randomness.generator) if isinstance(randomness, Shared) else lambda: None)
            return points
        if self._next == len(self._points):
            raise HauberkError(
                f"the objective attacks more often than the {len(self._points)} times of the first pass",
                "make the number of its attacks independent of the weights, or turn adversarial weight perturbation "
                "off: awp: 0",
            )
        self._ends[self._next]()
        self._next += 1
        return self._points[self._next - 1]

    def rewind(self) -> None:
        """From now on return the recorded points, from the first one on."""
        self._next = 0


_TAPE: ContextVar[Tape | None] = ContextVar("tape", default=None)


def current() -> Tape | None:
    """The tape that attacks of training pass through, if there is one."""
    return _TAPE.get()


@contextmanager
def taping(tape: Tape | None) -> Iterator[None]:
    """Inside, attacks of training pass through the tape."""
    token = _TAPE.set(tape)
    try:
        yield
    finally:
        _TAPE.reset(token)
