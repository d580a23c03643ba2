"""The numbers of an evaluation as a value: a small table, in a notebook too, and a data frame."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from hauberk.errors import HauberkError
from hauberk.report import collect, words
from hauberk.report.subject import Curve, Level, Subject
from hauberk.runs import Run
from hauberk.statistics import Interval
from hauberk.threats import epsilon

What = Literal["clean", "attacked", "on_grid", "reached", "certified", "estimated"]
LEVELS = 4  # radii of a certificate that the table shows
BOUNDS: dict[What, tuple[str, words.Rounding]] = {
    "clean": ("", "near"), "attacked": ("at most ", "up"), "certified": ("at least ", "down"),
    "estimated": ("about ", "near"), "on_grid": ("at most ", "up"), "reached": ("at least ", "down"),
}  # fmt: skip
HEADS = ("", "threat", "accuracy", "95 % interval", "images", "by")


@dataclass(frozen=True)
class Number:
    """One share of the images, an accuracy unless stated otherwise.

    Args:
        predictor: of which classifier.
        what: ``clean``, ``attacked`` or ``certified``, or ``estimated``, which is not proved; ``on_grid`` is
            attacked with images of whole levels, ``reached`` the share of other classes' images that became a class.
        norm: of the threat; empty for clean accuracy.
        eps: its budget in pixel units, or the radius.
        value: the share of images; an attack's is an upper bound, a certificate's a lower one.
        low: lower end of its 95 % Wilson interval.
        high: upper end.
        images: how many it rests on.
        by: the attacks or the certificate; of ``reached`` the class too.
    """

    predictor: str
    what: What
    norm: str
    eps: float
    value: float
    low: float
    high: float
    images: int
    by: str


@dataclass(frozen=True)
class Outcome:
    """The results of an evaluation.

    Args:
        numbers: one each.
        verdicts: whether the attack is strong enough, and the budget that breaks half of the images, in sentences.
        notes: remarks on model and data, in sentences.
        path: of the run with the records; None where they were not kept.
    """

    numbers: tuple[Number, ...]
    verdicts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    path: Path | None = None

    def __str__(self) -> str:
        rows = [HEADS, *self._rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
        table = ["  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*table, *self.verdicts, *(f"note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        def row(cells: tuple[str, ...], tag: str) -> str:
            return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"

        said = "".join(f"<p>{html.escape(text)}</p>" for text in (*self.verdicts, *self.notes))
        return f"<table>{row(HEADS, 'th')}{''.join(row(cells, 'td') for cells in self._rows())}</table>{said}"

    def frame(self) -> Any:
        """A pandas data frame, one row for each number.

        Raises:
            HauberkError: if pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise HauberkError("a data frame needs pandas", "install it: pip install pandas") from error
        return pandas.DataFrame([asdict(number) for number in self.numbers])

    def _rows(self) -> Iterator[tuple[str, ...]]:
        several = len({n.predictor for n in self.numbers}) > 1
        for n in self.numbers:
            bound, rounding = BOUNDS[n.what]
            threat = f"{n.norm} {epsilon(n.eps)}" if n.norm else ""
            share = f"{bound}{words.percent(n.value, rounding)}"
            who = f"{n.what} {n.predictor}" if several else n.what
            yield who, threat, share, f"{100 * n.low:.1f} to {100 * n.high:.1f}", str(n.images), n.by


def outcome(run: Run) -> Outcome:
    """The numbers of a run, computed from its records."""
    facts = collect.load([run.path])
    known = collect.subjects(part for found in facts for part in found.parts)
    numbers = tuple(number for each in known for number in _numbers(each))
    verdicts = [f"evaluation {j.verdict}: {words.judged(j)}" for each in known for j in each.judgements]
    verdicts += [
        f"half of the images that were right are broken within {half.norm} {words.half(half)}, at most"
        for each in known for half in each.half_broken
    ]  # fmt: skip
    notes = dict.fromkeys([*(str(n) for n in run.info.get("notes", [])), *(n for each in known for n in each.notes)])
    return Outcome(numbers, tuple(verdicts), tuple(notes), run.path)


def _numbers(found: Subject) -> Iterator[Number]:
    yield _number(found, "clean", "", 0.0, found.clean, "")
    for item in found.attacked:
        names = ", ".join(dict.fromkeys(m.suite or m.name for m in item.methods))
        yield _number(found, "attacked", item.norm, item.eps, item.accuracy, names)
    for white, rows in found.on_grid:
        for item in rows:
            by = f"{words.inside(item.methods)}, {white + 1} levels"
            yield _number(found, "on_grid", item.norm, item.eps, item.accuracy, by)
    for aim in found.reached:
        by = f"{words.class_name(aim.target, found.classes)}, by {words.listed(list(map(words.attack, aim.attacks)))}"
        yield _number(found, "reached", aim.norm, aim.eps, aim.rate, by)
    budgets = {(item.norm, item.eps) for item in found.attacked}
    for curve in (*found.certified, *found.estimated):
        what: What = "estimated" if curve.proof == "estimate" else "certified"
        for level in _shown(curve, {eps for norm, eps in budgets if norm == curve.norm}):
            yield _number(found, what, curve.norm, level.eps, level.accuracy, curve.method)


def _number(found: Subject, what: What, norm: str, eps: float, share: Interval, by: str) -> Number:
    return Number(found.predictor, what, norm, eps, share.value, share.low, share.high, share.n, by)


def _shown(curve: Curve, attacked: set[float]) -> list[Level]:
    """The radii at which there was an attack, and a few round ones."""
    at = [level for level in curve.levels if level.eps in attacked]
    others = [level for level in curve.levels if level.eps not in attacked and level.accuracy.value > 0]
    return sorted([*at, *others[:LEVELS]], key=lambda level: level.eps)
