"""The boards of a report's first screen: all classifiers under one threat, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hauberk.report.subject import Attacked, Curve, Judgement, Subject
from hauberk.statistics import Interval


@dataclass(frozen=True)
class Line:
    """One classifier under the threat of a board.

    Args:
        number: number of its article on the page, from 1.
        name: its short name.
        subject: all facts about it.
        attacked: its attacks at the budget, or at the largest smaller budget, whose accuracy bounds this one too.
        curve: its certificate in the norm.
        certified: certified accuracy at the budget.
        judgement: the worst judgement of an attack at the budget, or else in the norm.
        eps: the budget of the board.
    """

    number: int
    name: str
    subject: Subject
    attacked: Attacked | None
    curve: Curve | None
    certified: Interval | None
    judgement: Judgement | None
    eps: float

    @property
    def here(self) -> bool:
        """Whether the classifier was attacked with exactly this budget."""
        return self.attacked is not None and self.attacked.eps == self.eps

    @property
    def believed(self) -> bool:
        """Whether it has attacks at this budget that may be compared: no judgement in their norm is ``broken``."""
        norm = self.attacked.norm if self.attacked else ""
        return self.here and all(j.verdict != "broken" for j in self.subject.judgements if j.norm == norm)

    @property
    def judged(self) -> Judgement | None:
        """The judgement, if it is about an attack with exactly this budget."""
        return self.judgement if self.judgement is not None and self.judgement.eps == self.eps else None


@dataclass(frozen=True)
class Board:
    """All classifiers of one split under one threat, the one with the highest attacked accuracy first."""

    dataset: str
    split: str
    norm: str
    eps: float
    lines: tuple[Line, ...]

    @property
    def tried(self) -> tuple[Line, ...]:
        """The classifiers whose attacks at this budget count, the best first."""
        return tuple(line for line in self.lines if line.believed)

    @property
    def proved(self) -> tuple[Line, ...]:
        """The classifiers with a certified accuracy above 0, the best first."""
        found = [line for line in self.lines if line.certified is not None and line.certified.value > 0]
        return tuple(sorted(found, key=lambda line: -line.certified.value if line.certified else 0.0))


def boards(subjects: Sequence[Subject], names: Sequence[str]) -> list[Board]:
    """One board for each attacked threat, and one at a certified budget for each norm without attacks.

    Args:
        subjects: in the order of their articles.
        names: their short names.
    """
    found = []
    everyone = [(k, name, s) for k, (name, s) in enumerate(zip(names, subjects, strict=True), 1)]
    for place in dict.fromkeys((s.dataset, s.split) for s in subjects):
        own = [(k, name, s) for k, name, s in everyone if (s.dataset, s.split) == place]
        for norm, eps in _threats([s for _, _, s in own]):
            lines = sorted((_line(k, name, s, norm, eps) for k, name, s in own), key=_rank)
            found.append(Board(*place, norm, eps, tuple(lines)))
    return found


def _threats(subjects: Sequence[Subject]) -> list[tuple[str, float]]:
    threats = {(a.norm, a.eps) for s in subjects for a in s.attacked}
    attacked = {norm for norm, _ in threats}
    certified: dict[str, list[float]] = {}
    for curve in (c for s in subjects for c in s.certified if c.norm not in attacked):
        certified.setdefault(curve.norm, []).append(curve.levels[len(curve.levels) // 2].eps)
    middle = {(norm, sorted(eps)[(len(eps) - 1) // 2]) for norm, eps in certified.items()}
    return sorted(threats | middle)


def first(found: Sequence[Board]) -> int:
    """The index of the board shown first: most classifiers attacked, then most attacks; the middle one of equals."""
    efforts = [_effort(board) for board in found]
    best = [k for k, effort in enumerate(efforts) if effort == max(efforts)]
    return best[(len(best) - 1) // 2]


def _effort(board: Board) -> tuple[int, bool, int]:
    methods = [m for line in board.lines if line.here and line.attacked for m in line.attacked.methods]
    return sum(line.here for line in board.lines), any(m.suite for m in methods), len(methods)


def _rank(line: Line) -> tuple[bool, float, float, float]:
    """Sort key: classifiers attacked at this budget first, then by attacked, by certified and by clean accuracy."""
    upper = line.attacked.accuracy.value if line.attacked else 1.0
    lower = line.certified.value if line.certified else 0.0
    return not line.here, -upper if line.here else 0.0, -lower, -line.subject.clean.value


def _line(number: int, name: str, subject: Subject, norm: str, eps: float) -> Line:
    attacked = [a for a in subject.attacked if a.norm == norm and a.eps <= eps]
    curve = subject.curve(norm)
    judged = [j for j in subject.judgements if j.norm == norm]
    own = [j for j in judged if j.eps == eps] or judged
    return Line(
        number, name, subject,
        max(attacked, key=lambda a: a.eps, default=None),
        curve, curve.at(eps) if curve else None,
        own[0] if own else None, eps,
    )  # fmt: skip
