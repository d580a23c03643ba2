"""The first screen: every classifier under one threat, which of them to take and why, and what is not known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hauberk.report.subject import Attacked, Curve, Judgement, Subject
from hauberk.statistics import Interval


@dataclass(frozen=True)
class Line:
    """One classifier under the threat of a board.

    Args:
        number: of its article on the page, from 1.
        name: what a person calls it.
        subject: everything known about it.
        attacked: its attacks at the threat, or at the largest smaller budget, whose accuracy bounds this one too.
        curve: its certificate in the norm.
        certified: certified accuracy at the budget.
        judgement: what was said of an attack at the threat, or else in its norm; the worst.
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
        """Whether it was attacked with this very budget."""
        return self.attacked is not None and self.attacked.eps == self.eps

    @property
    def believed(self) -> bool:
        """Whether its attacks at this budget may be compared with others: none in their norm was found broken."""
        norm = self.attacked.norm if self.attacked else ""
        return self.here and all(j.verdict != "broken" for j in self.subject.judgements if j.norm == norm)

    @property
    def judged(self) -> Judgement | None:
        """What was said of an attack with this very budget."""
        return self.judgement if self.judgement is not None and self.judgement.eps == self.eps else None


@dataclass(frozen=True)
class Board:
    """All classifiers of one split under one threat, the one that keeps most first."""

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
        """The classifiers of which something is proved, the best first."""
        found = [line for line in self.lines if line.certified is not None and line.certified.value > 0]
        return tuple(sorted(found, key=lambda line: -line.certified.value if line.certified else 0.0))


def boards(subjects: Sequence[Subject], names: Sequence[str]) -> list[Board]:
    """One board for each threat that anything was attacked with; of norms without an attack, at a certified budget.

    Args:
        subjects: in the order of their articles.
        names: what a person calls them.
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
    """The place of the board that is shown first: most classifiers attacked, by most attacks; of equals the middle."""
    efforts = [_effort(board) for board in found]
    best = [k for k, effort in enumerate(efforts) if effort == max(efforts)]
    return best[(len(best) - 1) // 2]


def _effort(board: Board) -> tuple[int, bool, int]:
    methods = [m for line in board.lines if line.here and line.attacked for m in line.attacked.methods]
    return sum(line.here for line in board.lines), any(m.suite for m in methods), len(methods)


def _rank(line: Line) -> tuple[bool, float, float, float]:
    """Attacked at this budget first, by what stands; then by what is proved, then by what else is known."""
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
