"""The course of a training: accuracy on training and on validation images at each epoch, and the gap between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

MOST = 200  # epochs on a page

# column of the metrics: its images (training or validation), and whether the images are attacked
COLUMNS = {
    "accuracy": ("training", False),
    "validation_accuracy": ("validation", False),
    "adversarial_accuracy": ("training", True),
    "training_robust_accuracy": ("training", True),
    "validation_robust_accuracy": ("validation", True),
}
ROBUST = "validation_robust_accuracy"


@dataclass(frozen=True)
class Point:
    """An accuracy at the end of an epoch, counted from 1."""

    epoch: int
    value: float


@dataclass(frozen=True)
class Line:
    """One column of the metrics along training.

    Args:
        column: name of the column.
        images: ``training`` or ``validation``.
        attacked: whether the images are attacked.
        points: the points in order, thinned for long trainings.
    """

    column: str
    images: str
    attacked: bool
    points: tuple[Point, ...]

    def at(self, epoch: int) -> float | None:
        """The value at the end of an epoch."""
        return next((p.value for p in self.points if p.epoch == epoch), None)


@dataclass(frozen=True)
class Trained:
    """One training.

    Args:
        run: name of the run's folder.
        lines: the measured columns.
        best: the epoch whose weights were chosen, robust accuracy first; None without validation.
        last: the last validated epoch.
        collapsed: whether the guard against collapse stopped it.
    """

    run: str
    lines: tuple[Line, ...]
    best: int | None
    last: int
    collapsed: bool

    def line(self, column: str) -> Line | None:
        """A column, if it was measured."""
        return next((line for line in self.lines if line.column == column), None)

    @property
    def learnt(self) -> Line | None:
        """Robust accuracy on training images, under the validation attack if that was measured."""
        return self.line("training_robust_accuracy") or self.line("adversarial_accuracy")

    def robust_gap(self, epoch: int | None) -> float | None:
        """Robust accuracy on training images minus that on validation images at the end of an epoch, or None."""
        learnt, seen = self.learnt, self.line(ROBUST)
        if epoch is None or learnt is None or seen is None:
            return None
        one, other = learnt.at(epoch), seen.at(epoch)
        return None if one is None or other is None else one - other

    @property
    def lost(self) -> float | None:
        """Robust validation accuracy at the chosen epoch minus that at the last one: the cost of the last epoch."""
        seen = self.line(ROBUST)
        if seen is None or self.best is None:
            return None
        best, last = seen.at(self.best), seen.at(self.last)
        return None if best is None or last is None else best - last

    def summary(self) -> dict[str, Any]:
        """The training as plain values."""
        return {
            "run": self.run,
            "lines": {line.column: [[p.epoch, p.value] for p in line.points] for line in self.lines},
            "best_epoch": self.best,
            "last_epoch": self.last,
            "robust_gap": {"best": self.robust_gap(self.best), "last": self.robust_gap(self.last)},
            "robust_accuracy_lost": self.lost,
            "collapsed": self.collapsed,
        }


class _Facts(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def metrics(self) -> Sequence[Mapping[str, Any]]: ...


def trainings(runs: Iterable[_Facts]) -> list[Trained]:
    """The trainings with at least two epochs and a measured accuracy."""
    found = []
    for run in runs:
        rows = [row for row in run.metrics if isinstance(row.get("epoch"), int)]
        if len(rows) < 2 or not any(column in row for row in rows for column in COLUMNS):
            continue
        judged = [row for row in rows if "validation_accuracy" in row]
        best = max(judged, key=_score)["epoch"] + 1 if judged else None  # of equal ones the first
        last = (judged or rows)[-1]["epoch"] + 1
        shown = _thinned([row["epoch"] for row in rows], {last - 1, *([] if best is None else [best - 1])})
        kept = [row for row in rows if row["epoch"] in shown]
        lines = tuple(
            Line(column, images, attacked, tuple(Point(r["epoch"] + 1, float(r[column])) for r in kept if column in r))
            for column, (images, attacked) in COLUMNS.items()
            if any(column in row for row in kept)
        )
        found.append(Trained(run.name, lines, best, last, any(row.get("collapsed") for row in rows)))
    return found


def _score(row: Mapping[str, Any]) -> tuple[float, ...]:
    """The values that the selection of weights compares in training."""
    clean = float(row["validation_accuracy"])
    return (float(row[ROBUST]), clean) if ROBUST in row else (clean,)


def _thinned(epochs: Sequence[int], always: set[int]) -> set[int]:
    """Evenly spread epochs, at most ``MOST`` of them, and the epochs that a page must show."""
    every = -(-len(epochs) // MOST)
    return {*epochs[::every], *always}
