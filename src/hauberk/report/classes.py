"""Accuracy class by class as a page shows it: the worst class first, and the confusions between classes."""

from __future__ import annotations

from dataclasses import dataclass

from hauberk.evaluation.by_class import UNKNOWN, ByClass, Cell
from hauberk.report import words
from hauberk.report.subject import Attacked, Subject
from hauberk.statistics import Interval

MOST_CONFUSED = 8
LEVELS = 6  # radii of a sentence
WIDEST = 20  # classes of a matrix


@dataclass(frozen=True)
class ClassRow:
    """One class: its images, how many are right before an attack, and how many after."""

    name: str
    clean: Interval | None
    attacked: Interval | None


@dataclass(frozen=True)
class Matrix:
    """Counts of classes against answers; empty if there are too many classes to read.

    Args:
        title: before or after the attack.
        columns: the answers.
        rows: each class with its counts.
        frequent: the most frequent wrong answers, in words.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[int, ...]], ...]
    frequent: tuple[str, ...]


@dataclass(frozen=True)
class ClassView:
    """All that the page shows about the classes of one predictor."""

    rows: tuple[ClassRow, ...]
    said: tuple[str, ...]
    matrices: tuple[Matrix, ...]


def class_view(subject: Subject, attacked: Attacked | None) -> ClassView | None:
    """The classes before any attack and after the attacks at one budget; None if no record names classes."""
    clean, after = subject.by_class, attacked.by_class if attacked else None
    if clean is None:
        return None
    mine = {s.label: s.accuracy for s in clean.shares}
    theirs = {s.label: s.accuracy for s in after.shares} if after else {}
    rows = [ClassRow(_name(subject, k), mine.get(k), theirs.get(k)) for k in sorted({*mine, *theirs})]
    rows.sort(key=lambda row: (_value(row.attacked), _value(row.clean)))
    matrices = [_matrix(subject, clean, "Before any attack")]
    if after and attacked:
        matrices.append(_matrix(subject, after, f"After the attacks, {words.budget(attacked.norm, attacked.eps)}"))
    return ClassView(tuple(rows), (*_said(subject, clean, after), *_certified(subject)), tuple(matrices))


def _value(interval: Interval | None) -> float:
    return interval.value if interval else 1.0


def _name(subject: Subject, label: int) -> str:
    return "another class" if label == UNKNOWN else words.class_name(label, subject.classes)


def _said(subject: Subject, clean: ByClass, after: ByClass | None) -> list[str]:
    said = []
    cases: tuple[tuple[ByClass | None, str, words.Rounding], ...] = (
        (clean, "without attack", "near"), (after, "under attack, at most", "up"),
    )  # fmt: skip
    for found, when, rounding in cases:
        if found is not None:
            worst = f"{_name(subject, found.worst.label)} {words.share(found.worst.accuracy, rounding)} %"
            said.append(f"Balanced accuracy {when} {words.share(found.balanced, rounding)} %; worst class {worst}.")
    if clean.constant is not None:
        said.append(f"Every image is taken for {_name(subject, clean.constant)}: this classifier does not look.")
    never = [s.label for s in clean.shares if s.label not in {c.answer for c in clean.confusion}]
    if never and clean.constant is None:
        names = [_name(subject, k) for k in never[:MOST_CONFUSED]]
        rest = [f"{len(never) - len(names)} more"] if len(never) > len(names) else []
        said.append(f"Never answered: {words.listed([*names, *rest])}.")
    return said


def _certified(subject: Subject) -> list[str]:
    """The balanced certified accuracy at a few radii, for the certificate shown in each norm."""
    said = []
    for norm in subject.norms:
        curve = subject.curve(norm)
        levels = [x for x in curve.balanced if x.accuracy.value > 0][:LEVELS] if curve else []
        if levels:
            at = ", ".join(f"{words.share(x.accuracy, 'down')} % at {words.epsilon(x.eps)}" for x in levels)
            said.append(f"Balanced certified accuracy in {words.NORMS.get(norm, norm)}, at least: {at}.")
    return said


def _matrix(subject: Subject, found: ByClass, title: str) -> Matrix:
    labels = sorted({c.label for c in found.confusion})
    answers = sorted({c.answer for c in found.confusion} | set(labels), key=lambda k: (k < 0, k))
    counts = {(c.label, c.answer): c.count for c in found.confusion}
    wrong = sorted((c for c in found.confusion if c.label != c.answer), key=lambda c: -c.count)
    frequent = tuple(_confused(subject, c) for c in wrong[:MOST_CONFUSED])
    if max(len(labels), len(answers)) > WIDEST:
        return Matrix(title, (), (), frequent)
    rows = tuple((_name(subject, y), tuple(counts.get((y, a), 0) for a in answers)) for y in labels)
    return Matrix(title, tuple(_name(subject, a) for a in answers), rows, frequent)


def _confused(subject: Subject, cell: Cell) -> str:
    return f"{_name(subject, cell.label)} as {_name(subject, cell.answer)}: {cell.count:,}"
