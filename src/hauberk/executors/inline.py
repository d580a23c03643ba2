"""Units one after another, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic.dataclasses import dataclass

from hauberk.executors.base import CONFIG, Crew, Executor, Job


@dataclass(frozen=True, config=CONFIG)
class Inline(Executor):
    """Units one after another, in this process and with its threads."""

    @contextmanager
    def at(self, job: Job) -> Iterator[Crew]:
        """A crew of one: this process."""
        with job.at_work() as work:
            yield _Alone(work)


class _Alone:
    places = 1

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self._work, self._unit = work, None

    def give(self, unit: Any) -> None:
        """Keep the unit until ``take`` is called."""
        self._unit = unit

    def take(self, until: float | None = None) -> tuple[Any, Any]:  # noqa: ARG002
        """Do the unit now."""
        return self._unit, self._work(self._unit)
