"""Comparisons of all contestants with each other, with one correction for all comparisons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

from hauberk.comparison.contestant import KINDS, Contestant, Quantity, read
from hauberk.comparison.effects import CLEAN, Effect, difference, height
from hauberk.errors import HauberkError
from hauberk.statistics import Interval, holm, student, wilson
from hauberk.threats import Threat


@dataclass(frozen=True)
class Judged:
    """An effect with its p-value corrected for all comparisons, and its verdict."""

    effect: Effect
    corrected: float
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """The comparisons and their results.

    Args:
        contestants: in the order of the runs.
        quantities: the quantities that at least two contestants have.
        confidence: confidence of every interval by itself, and of all verdicts together.
        judged: differences of pairs, then heights above the line.
        refused: the comparisons that could not be made, and why.
    """

    contestants: tuple[Contestant, ...]
    quantities: tuple[Quantity, ...]
    confidence: float
    judged: tuple[Judged, ...]
    refused: tuple[str, ...]


def compare(
    runs: Sequence[Path], threats: Sequence[Threat] = (), line: tuple[Path, Path] | None = None,
    against: Sequence[Path] = (), confidence: float = 0.95, unlike: bool = False,
) -> Comparison:  # fmt: skip
    """Compare every two runs, or each with chosen runs and with the line between two, in all quantities of both.

    A verdict is drawn at the level ``1 - confidence`` with Holm's correction for all comparisons that are returned.

    Args:
        runs: run directories or bundles.
        threats: budgets of attacks and radii of certificates; without any, all budgets that a run was attacked at.
        line: the two runs whose line the other runs are compared with.
        against: the only runs that others are compared with, beside the ends of the line; without any and without a
            line every two are compared.  These runs and the ends need not be among ``runs``.
        confidence: confidence of every interval by itself, and of all verdicts together.
        unlike: compare also if attacks differ in both directions; no verdict is drawn then.

    Raises:
        HauberkError: if fewer than two models are named, or nothing can be compared.
    """
    if not 0.0 < confidence < 1.0:
        raise HauberkError(f"expected a confidence between 0 and 1, got {confidence}", "for example 0.95")
    known, chosen = {path.resolve() for path in runs}, [*(line or ()), *against]
    others = {path.resolve(): path for path in chosen if path.resolve() not in known}
    contestants = read([*others.values(), *runs], threats)
    if len(contestants) < 2:
        raise HauberkError(
            f"expected two models or more, got only {contestants[0].name}",
            "name another run; seeds of one recipe are pooled into one",
        )
    measured = Counter(q for c in contestants for q in c.outcomes)
    quantities = sorted((q for q, count in measured.items() if count > 1), key=_order)
    refused: list[str] = []
    fixed = [_of(contestants, path).name for path in chosen]
    wanted = [partial(difference, b, a, q) if a.name in fixed else partial(difference, a, b, q)
              for a, b in combinations(contestants, 2) if not fixed or {a.name, b.name} & {*fixed}
              for q in quantities if q in a.outcomes and q in b.outcomes]  # fmt: skip
    if line is not None:
        ends = _of(contestants, line[0]), _of(contestants, line[1])
        wanted += [partial(height, c, ends, q) for c in contestants if c not in ends for q in quantities
                   if q != CLEAN and all(q in x.outcomes for x in (c, *ends))]  # fmt: skip
    effects = [effect for make in wanted for effect in _tried(make, confidence, unlike, refused)]
    if not effects:
        said = refused[0] if refused else f"{contestants[0].name} and {contestants[1].name} have nothing in common"
        raise HauberkError(f"nothing can be compared: {said}", "measure the runs at one threat, on the same images")
    corrected = holm([effect.p for effect in effects])
    judged = tuple(Judged(e, p, _verdict(e, p <= 1.0 - confidence)) for e, p in zip(effects, corrected, strict=True))
    return Comparison(tuple(contestants), tuple(quantities), confidence, judged, tuple(dict.fromkeys(refused)))


def accuracy(contestant: Contestant, quantity: Quantity, confidence: float) -> tuple[Interval, Interval | None]:
    """A contestant's share of its own images, with its interval over images, and over seeds if there are several.

    Wilson's interval for one run, Student's t within [0, 1] for several.
    """
    counts = contestant.outcomes[quantity].counts
    if not contestant.seeds:
        return wilson(int(counts.sum()), counts.shape[1], confidence), None
    images, seeds = (student(counts.mean(axis), confidence)[0] for axis in (0, 1))
    return _within(images), _within(seeds)


def _within(share: Interval) -> Interval:
    return Interval(share.value, max(0.0, share.low), min(1.0, share.high), share.n)


def _tried(make: Callable[[float, bool], Effect], confidence: float, unlike: bool, refused: list[str]) -> list[Effect]:
    try:
        return [make(confidence, unlike)]
    except HauberkError as error:
        refused.append(f"{error.message}; {error.hint}" if error.hint else error.message)
        return []


def _order(quantity: Quantity) -> tuple[int, str, float]:
    return KINDS.index(quantity.kind), quantity.norm, quantity.eps


def _of(contestants: Sequence[Contestant], run: Path) -> Contestant:
    """The contestant of a run; the first one if the run has several predictors."""
    return next(c for c in contestants if run.resolve() in {path.resolve() for path in c.runs})


def _verdict(effect: Effect, told: bool) -> str:
    """The verdict on an effect, in words."""
    higher, lower = ("above", "below") if len(effect.against) == 2 else ("higher", "lower")
    if not told:
        return "not told apart"
    up = effect.interval.value > 0.0
    if effect.fewer if up else effect.more:
        return "none: attacked differently"
    return higher if up else lower
