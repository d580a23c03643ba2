"""A budget of time for an evaluation, which may end in the middle of a unit of work."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


class OutOfTimeError(BaseException):
    """The budget is spent. Not an ``Exception``, which code below the driver would treat as a fault."""


@dataclass
class Budget:
    """Seconds that an evaluation may take, from when this is made.

    ``check`` is called before each unit and between model calls; an interrupted unit is lost, and all units before it
    are kept.

    Args:
        seconds: how many.
        spent: whether something was left undone for it.
        units: of work that were done.
    """

    seconds: float
    spent: bool = False
    units: int = 0
    until: float = field(init=False)

    def __post_init__(self) -> None:
        self.until = time.monotonic() + self.seconds

    def check(self) -> None:
        """Raise if the time is over.

        Raises:
            OutOfTimeError: for the driver.
        """
        if time.monotonic() >= self.until:
            raise OutOfTimeError
