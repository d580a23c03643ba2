"""The executor contract: units of one job go to workers, and their results come back in any order."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from hauberk.errors import HauberkError, first_line, own_line

CONFIG = ConfigDict(extra="forbid")
DEATHS = 3  # deaths of workers at the same unit, after which the unit is at fault


class Job(Protocol):
    """The common part of all units: a model, a method and settings.  A worker gets it once."""

    def at_work(self) -> AbstractContextManager[Callable[[Any], Any]]:
        """The function that does one unit; within the block the model does not change, so facts about it are kept."""

    def arrived(self) -> None:
        """Raise unless this copy of the job, which came from another process, does what the original does."""


class Crew(Protocol):
    """The workers of one job.

    Attributes:
        places: how many units may be under way at one time.
    """

    places: int

    def give(self, unit: Any) -> None:
        """Begin a unit; a place must be free."""

    def take(self, until: float | None = None) -> tuple[Any, Any] | None:
        """Wait until some unit is done, and return it with its result.

        Args:
            until: deadline by ``time.monotonic``; the result is None if no unit is done by then.  A crew that works in
                this process ignores it, because the called work can end itself.

        Raises:
            Exception: the exception that the unit raised.
            HauberkError: if several workers died at the same unit.
        """


@dataclass(frozen=True, config=CONFIG)
class Executor(ABC):
    """An executor does units of work; the results do not depend on where the units are done.

    One process does one unit at a time: an attack changes the model while it works, and a model's own random numbers
    are fenced for the whole process.
    """

    @abstractmethod
    def at(self, job: Job) -> AbstractContextManager[Crew]:
        """The crew of a job; it ends with the block, even if units are under way."""


def outcome(work: Callable[[Any], Any], unit: Any) -> tuple[Any, Exception | None]:
    """The result of a unit, or an error that can be sent to another process."""
    try:
        return work(unit), None
    except HauberkError as error:
        return None, error
    except MemoryError as error:
        return None, MemoryError(*error.args)
    except Exception as error:
        where = own_line(error)
        if where:
            said = f"your own code fails: {where}: {first_line(error)}"
            return None, HauberkError(said, "correct it, then run this again")
        if "out of memory" in str(error) or "can't allocate memory" in str(error):
            return None, MemoryError(str(error))
        return None, HauberkError(f"a worker failed: {first_line(error)}", "run with --executor inline to see where")


def result(found: tuple[Any, Exception | None]) -> Any:
    """The result in an ``outcome``; raises the error in it."""
    value, error = found
    if error is not None:
        raise error
    return value


def mourned(unit: Any, deaths: int, said: str) -> HauberkError:
    """The error when workers keep dying at a unit.

    Args:
        unit: the unit at which they died.
        deaths: how many workers died.
        said: how the last worker died, in words.
    """
    return HauberkError(
        f"{deaths} workers died at {unit}, the last one {said}",
        "if memory ran out, use fewer workers or a smaller --tile; otherwise run with --executor inline to see the "
        "error",
    )


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
