"""Progress reports of a training to its caller; the library itself prints nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """The state of a training at one moment.

    Args:
        epoch: the current epoch, from 0, of ``epochs``.
        step: optimiser steps done in all, of ``steps``.
        terms: means over the epoch so far: ``loss`` and the objective's own terms.
        validation: the columns of the epoch's validation; empty until the epoch is validated.
        images_per_second: training images, over the time since training was started or resumed.
        eta: seconds that are left at that speed.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    terms: dict[str, float]
    validation: dict[str, float]
    images_per_second: float
    eta: float


@dataclass
class Clock:
    """The speed of training.

    Args:
        started: when training was started or resumed.
        images: training images since then.
        steps: optimiser steps since then.
    """

    started: float = field(default_factory=time.monotonic)
    images: int = 0
    steps: int = 0

    def count(self, images: int) -> None:
        """One more step on that many images."""
        self.images += images
        self.steps += 1

    @property
    def seconds(self) -> float:
        """Since training was started or resumed."""
        return time.monotonic() - self.started

    @property
    def images_per_second(self) -> float:
        """Training images a second."""
        return self.images / max(self.seconds, 1e-9)

    def eta(self, steps_left: int) -> float:
        """Seconds for that many more steps."""
        return steps_left * self.seconds / max(self.steps, 1)


@dataclass
class Timer:
    """A timer for repeated actions.

    Args:
        seconds: how often; 0 is never.
        last: when it was done last.
    """

    seconds: float
    last: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        """Whether it is due; if so, the count starts again."""
        now = time.monotonic()
        if self.seconds == 0 or now - self.last < self.seconds:
            return False
        self.last = now
        return True
