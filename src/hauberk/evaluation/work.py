"""Units of work are values that any process can do; the driver distributes them and keeps their records.

A *task* says what all units of one evaluation share: model, method, setting.  A *unit* is a few images and the stage
of the method that comes next for them.  ``execute(task, unit)`` gives the unit's record, the same one wherever it is
done.  Only the driver reads and writes files.
"""

from __future__ import annotations

import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hauberk.batch import Batch, Samples
from hauberk.certificates.gate import admitted_once
from hauberk.certificates.rounding import unchanged
from hauberk.classifier import names_once
from hauberk.compaction import Store
from hauberk.devices import arithmetic, device_of
from hauberk.errors import HauberkError
from hauberk.evaluation.budget import Budget, OutOfTimeError
from hauberk.evaluation.fingerprint import Answers, answers, check_copy
from hauberk.evaluation.keys import Setting
from hauberk.executors import Crew, Executor, Inline
from hauberk.pulse import watched
from hauberk.records import Part, RecordKind, data_hash, part, unit_key, write_once

Columns = dict[str, Any]
INLINE = Inline()


@dataclass(frozen=True)
class Step:
    """Progress of an evaluation.

    Args:
        done: units done.
        total: units in all.
        seconds: since the start.
        label: what is being done.
        news: a message for the user; else empty.
        inside: of the units under way, the share that is done, in units.
        ahead: nothing is begun yet: the label says what is going to be done, of how many images (``total``) and in
            how many seconds at most (NaN where nobody knows).
    """

    done: int
    total: int
    seconds: float
    label: str
    news: str = ""
    inside: float = 0.0
    ahead: bool = False


Report = Callable[[Step], None]


@dataclass(frozen=True)
class Work:
    """Where the records of an evaluation go, and which share of it is done here, and by whom.

    Args:
        folder: of the records.
        shard: (i, n): do units i, i + n, i + 2n, ...
        report: called after each unit.
        begin: makes the run, before a record is written.
        executor: does the units.
        budget: of time; without one all units are done.
    """

    folder: Path
    shard: tuple[int, int] = (0, 1)
    report: Report | None = None
    begin: Callable[[], object] = lambda: None
    executor: Executor = INLINE
    budget: Budget | None = None


@dataclass(frozen=True)
class Unit:
    """A few images, and what is to be done with them.

    Args:
        number: of the images among those of this evaluation.
        stage: of the method; 0 where it has one only.
        images: in the order of their ids.
        about: all that the result depends on, plain values; their hash is the key.
    """

    number: int
    stage: int
    images: Batch
    about: Mapping[str, Any]

    def __str__(self) -> str:
        ids = self.images.ids
        return f"the images {int(ids.min())} to {int(ids.max())} ({self.about['method']['name']})"


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """What all units of one evaluation share; one subclass for each kind of record.

    Args:
        model: a classifier in eval mode.
        setting: names, seed and tile.
        about: all that the results depend on, beside the images.
        facts: what is needed to read the rows.
        asked: what the model answers on fixed images, by which a copy of it is known in another process.
    """

    model: nn.Module
    setting: Setting
    about: dict[str, Any]
    facts: dict[str, Any]
    asked: Answers | None = field(default=None, repr=False)

    kind: ClassVar[RecordKind]

    @abstractmethod
    def rows(self, images: Batch, stage: int) -> tuple[Columns, dict[str, Any]]:
        """The columns of a unit's record, and the facts that came up while they were made."""

    @property
    def size(self) -> int:
        """Images of a unit."""
        return self.setting.tile

    @property
    def stages(self) -> Sequence[Mapping[str, Any]]:
        """For each stage, what its key says beside what the task says."""
        return ({},)

    def concludes(self, found: Part) -> bool:  # noqa: ARG002
        """Whether a record is an end that a conclusion may be drawn at; with a budget other images then come first."""
        return False

    def ready(self, ids: Sequence[int]) -> bool:  # noqa: ARG002
        """Whether there is what the work on these images needs; if not, they are left out."""
        return True

    def passes(self) -> Sequence[float]:
        """For each stage, the model calls that an image takes at most; empty where nobody knows."""
        return ()

    def whole(self, found: Part) -> bool:  # noqa: ARG002
        """Whether a record that is there has all that is wanted now; what has not is made again."""
        return True

    def left(self, found: Sequence[Part], images: Batch) -> Batch:  # noqa: ARG002
        """The images that are left for the next stage, given the records of all stages so far."""
        return images

    @contextmanager
    def at_work(self) -> Iterator[Callable[[Unit], Part]]:
        """``execute`` for this task; inside, the model does not change, so what is known of it is kept."""
        with arithmetic(self.setting.precision), unchanged(), admitted_once(), names_once():
            yield partial(execute, self)

    def arrived(self) -> None:
        """Raise unless this copy of the model, which came from another process, answers as the model does there."""
        if self.asked is not None:
            check_copy(self.model, self.asked)


_alone = threading.Lock()  # an attack changes the model while it works, and a fence the generators of the process


def execute(task: Task, unit: Unit) -> Part:
    """Do one unit, and return its record; nothing is read or written.

    Raises:
        HauberkError: if another thread of this process is doing one.
    """
    if not _alone.acquire(blocking=False):
        raise HauberkError(
            "a second thread of this process started a unit of work", "use an executor with processes, not threads"
        )
    try:
        columns, found = task.rows(unit.images.to(device_of(task.model)), unit.stage)
    finally:
        _alone.release()
    return part(task.kind, unit.about, task.facts | found, columns)


def done(task: Task, samples: Samples, work: Work, before: Sequence[Part] = ()) -> list[Part]:
    """Every unit of this shard, those that are there already read and the others done, in the order of the images.

    The model's fingerprint, where it is new, is written before the first record, and so is what stands ``before`` it.
    """
    first = samples.select(slice(1)).batch().to(device_of(task.model))
    with arithmetic(task.setting.precision):
        asked = answers(task.model, first.images, task.setting.probes, work.folder)
    whole = replace(task, about=task.about | {"answers": asked.id}, asked=asked)
    return _Driver(whole, samples, work, asked, before).run()


Chain = Iterator[Unit]  # the units of some images, each made of the records of those before


BEATS = 0.1  # seconds between two words from inside a unit


class _Inside:
    """How far a unit is that this process does: passes done of passes that it takes at most."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._unit: Unit | None = None
        self._done, self._said = 0, time.monotonic()
        self._passes: Sequence[float] | None = None

    def begun(self, unit: Unit) -> None:
        self._unit, self._done = unit, 0

    def beat(self, passes: int) -> bool:
        """Count; whether it is time for a word."""
        self._done += passes
        now = time.monotonic()
        if now - self._said < BEATS:
            return False
        self._said = now
        return True

    @property
    def share(self) -> float:
        """Of the unit's images, all stages counted: stages before this one are done."""
        if self._passes is None:
            with watched(lambda _: None):  # counting the passes makes some
                self._passes = self._task.passes()
        if self._unit is None or not sum(self._passes):
            return 0.0
        stage = self._unit.stage
        own = min(1.0, self._done / max(1.0, len(self._unit.images) * self._passes[stage]))
        return (sum(self._passes[:stage]) + own * self._passes[stage]) / sum(self._passes)


class _Driver:
    """Hands out the units of one shard, keeps their records, and says what is done."""

    def __init__(
        self, task: Task, samples: Samples, work: Work, asked: Answers, before: Sequence[Part]
    ) -> None:
        index, count = work.shard
        self._task, self._samples, self._work = task, samples, work
        self._rows = torch.split(samples.order(), task.size)[index::count] if len(samples) else ()
        self._store = Store(work.folder, task.kind)
        self._new = [*asked.new, *before]
        self._label = " ".join(dict.fromkeys((str(task.kind), str(task.about["method"]["name"]))))
        self._started, self._done = time.monotonic(), 0
        self._waiting = deque(self._chain(number, rows) for number, rows in enumerate(self._rows))
        self._busy: dict[int, Chain] = {}
        self._parts: dict[int, list[Part]] = defaultdict(list)
        self._inside = _Inside(task)
        if asked.news:
            self._say(asked.news)

    def run(self) -> list[Part]:
        """As many units at a time as the executor has places."""
        budget = self._work.budget
        with watched(self._beat if self._work.report or budget else None), self._work.executor.at(self._task) as crew:
            try:
                self._all(crew)
            except OutOfTimeError:
                assert budget is not None  # noqa: S101 - nothing else raises it
                budget.spent = True
        self._store.settle()
        return [found for number in sorted(self._parts) for found in self._parts[number]]

    def _all(self, crew: Crew) -> None:
        while self._waiting or self._busy:
            while self._waiting and len(self._busy) < crew.places:
                self._go_on(self._waiting.popleft(), crew)
            if self._busy:
                chain, found = self._take(crew)
                later = self._work.budget is not None and self._task.concludes(found)
                (self._waiting.append if later else self._waiting.appendleft)(chain)

    def _chain(self, number: int, rows: Tensor) -> Chain:
        """The units of some images, stage by stage.

        Floats of these images alone are made, and none are kept between two stages, so that memory does not grow with
        the number of images.
        """
        task, ids = self._task, self._samples.ids
        rows = rows[ids[rows].argsort()]
        if not task.ready(ids[rows].tolist()):
            return
        for stage, more in enumerate(task.stages):
            yield self._unit(number, stage, rows, more)
            left = task.left(self._parts[number], self._samples.select(rows).batch()).ids
            rows = rows[torch.isin(ids[rows], left)]
            if len(rows) == 0:
                return

    def _unit(self, number: int, stage: int, rows: Tensor, more: Mapping[str, Any]) -> Unit:
        images = self._samples.select(rows).batch()
        return Unit(number, stage, images, {**self._task.about, **more, "data": data_hash(images)})

    def _go_on(self, chain: Chain, crew: Crew) -> None:
        """Give the crew the next unit of these images that is not there yet."""
        try:
            unit = next(chain)
            while (known := self._known(unit)) is not None and self._task.whole(known):
                self._parts[unit.number].append(known)
                unit = next(chain)
        except StopIteration:
            self._report()
            return
        if self._work.budget is not None:
            self._work.budget.check()
        self._busy[unit.number] = chain
        self._inside.begun(unit)
        crew.give(unit)

    def _take(self, crew: Crew) -> tuple[Chain, Part]:
        """Keep the next record, and return the units that it belongs to."""
        budget = self._work.budget
        taken = crew.take(None if budget is None else budget.until)
        if taken is None:
            raise OutOfTimeError
        unit, found = taken
        self._work.begin()
        while self._new:
            write_once(self._work.folder, self._new.pop())
        self._store.keep(found)
        if budget is not None:
            budget.units += 1
        self._parts[unit.number].append(found)
        return self._busy.pop(unit.number), found

    def _known(self, unit: Unit) -> Part | None:
        return self._store.find(unit_key(self._task.kind, unit.about))

    def _beat(self, passes: int) -> None:
        """Say how far the unit is that is under way in this process, and end it if there is no more time."""
        if self._work.budget is not None:
            self._work.budget.check()
        if self._work.report is not None and self._inside.beat(passes):
            self._work.report(self._step(self._inside.share))

    def _step(self, inside: float = 0.0) -> Step:
        seconds = time.monotonic() - self._started
        return Step(self._done, len(self._rows), seconds, self._label, inside=inside)

    def _report(self) -> None:
        """Say that all is done with some images."""
        self._done += 1
        if self._work.report is not None:
            self._work.report(self._step())

    def _say(self, news: str) -> None:
        if self._work.report is not None:
            self._work.report(Step(0, len(self._rows), 0.0, self._label, news))
        else:
            warnings.warn(news, stacklevel=5)
