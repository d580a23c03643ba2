"""Comparisons of a contestant with another, or with the straight line between two, on the images that all have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from hauberk.comparison.contestant import Contestant, Outcome, Quantity, check_labels
from hauberk.comparison.line import above
from hauberk.errors import HauberkError
from hauberk.evaluation.metrics import Floats
from hauberk.report.outcomes import Ids
from hauberk.report.words import listed, typed
from hauberk.statistics import Interval, paired_difference, student

CLEAN = Quantity("clean")


@dataclass(frozen=True)
class Effect:
    """The difference of a contestant's share from that of another contestant, or from the line between two others.

    Args:
        one: name of the contestant.
        against: name of the other, or of the two ends of the line.
        quantity: the compared quantity.
        interval: the difference on the images that all have, with its interval over images, for these trainings.
        over_seeds: the same over trainings, if all have several seeds in common; else None.
        p: two-sided p-value of no difference: the larger of the p-values over images and over seeds.
        more: whether this one met attacks that another did not meet, so that a lower share may be due to them.
        fewer: whether another met attacks that this one did not meet, so that a higher share may be due to them.
    """

    one: str
    against: tuple[str, ...]
    quantity: Quantity
    interval: Interval
    over_seeds: Interval | None
    p: float
    more: bool = False
    fewer: bool = False


def difference(
    one: Contestant, other: Contestant, quantity: Quantity, confidence: float = 0.95, unlike: bool = False
) -> Effect:
    """The share of one contestant minus the share of another.

    Single runs are compared by Tango's interval and McNemar's exact test, pooled ones by Student's t over images.

    Args:
        one: a contestant with the quantity.
        other: another contestant with the quantity.
        quantity: the compared quantity.
        confidence: confidence of the intervals.
        unlike: whether attacks may differ in both directions.

    Raises:
        HauberkError: if they share no images, have different data, or were not attacked alike.
    """
    ids = _common([one, other], [quantity])
    more, fewer = _attacks(one, [other], quantity, unlike)
    mine, theirs = one.outcomes[quantity], other.outcomes[quantity]
    seeds = _seeds([one, other])
    if not one.seeds and not other.seeds:
        interval, p = paired_difference(mine.on(ids)[0], theirs.on(ids)[0], confidence)
        return Effect(one.name, (other.name,), quantity, interval, None, p, more, fewer)
    gaps = _seeded(one, mine, ids, seeds) - _seeded(other, theirs, ids, seeds)
    each = gaps.mean(1) if len(seeds) > 1 else None
    return _effect(one, (other,), quantity, gaps.mean(0), each, confidence, (more, fewer))


def height(
    one: Contestant, ends: tuple[Contestant, Contestant], quantity: Quantity, confidence: float = 0.95,
    unlike: bool = False,
) -> Effect:  # fmt: skip
    """The height of one contestant above the straight line between two others, at its clean accuracy.

    A point on the line is the result of tossing a coin between the two ends; beyond its ends the line is level.

    Raises:
        HauberkError: as ``difference``, and if the clean accuracies of the ends do not differ significantly.
    """
    everyone = [one, *ends]
    ids = _common(everyone, [CLEAN, quantity])
    more, fewer = _attacks(one, ends, quantity, unlike)
    gap = difference(*ends, CLEAN, confidence).interval
    if gap.low <= 0.0 <= gap.high:
        raise HauberkError(
            f"there is no line between {ends[0].name} and {ends[1].name}: their clean accuracies do not differ "
            "significantly",
            "choose two runs of different clean accuracy",
        )
    seeds = _seeds(everyone)
    tables = [[_seeded(c, c.outcomes[q], ids, seeds) for q in (CLEAN, quantity)] for c in everyone]
    point, *curve = [(clean.mean(0), robust.mean(0)) for clean, robust in tables]
    each = None
    if len(seeds) > 1:
        rows = [[(clean[s], robust[s]) for clean, robust in tables] for s in range(len(seeds))]
        each = np.array([above([own], rest).mean() for own, *rest in rows])
    return _effect(one, ends, quantity, above([point], curve), each, confidence, (more, fewer))


def _effect(
    one: Contestant, against: Sequence[Contestant], quantity: Quantity, gaps: Floats, each: Floats | None,
    confidence: float, attacks: tuple[bool, bool],
) -> Effect:  # fmt: skip
    interval, p = student(gaps, confidence)
    over_seeds, p_seeds = (None, 0.0) if each is None else student(each, confidence)
    names = tuple(c.name for c in against)
    return Effect(one.name, names, quantity, interval, over_seeds, max(p, p_seeds), *attacks)


def _seeded(contestant: Contestant, outcome: Outcome, ids: Ids, seeds: Sequence[int]) -> Floats:
    """One row for each shared seed; if there are not several, one row: the mean over the contestant's own seeds."""
    rows = outcome.on(ids).astype(np.float64)
    found: Floats = rows[[contestant.seeds.index(s) for s in seeds]] if len(seeds) > 1 else rows.mean(0, keepdims=True)
    return found


def _seeds(contestants: Sequence[Contestant]) -> list[int]:
    return sorted(set.intersection(*(set(c.seeds) for c in contestants)))


# --- what may be compared -----------------------------------------------------------------------------------------


def _common(contestants: Sequence[Contestant], quantities: Sequence[Quantity]) -> Ids:
    """The images that all contestants have for all quantities."""
    first, names = contestants[0], listed([c.name for c in contestants])
    for other in contestants[1:]:
        if (first.dataset, first.split) != (other.dataset, other.split):
            raise HauberkError(
                f"{first.name} was measured on {first.dataset}/{first.split}, {other.name} on "
                f"{other.dataset}/{other.split}",
                "compare runs that were measured on the same split of the same data",
            )
        check_labels(first.labels, other.labels, first.name, other.name)
    ids = reduce(np.intersect1d, [c.outcomes[q].ids for c in contestants for q in quantities])
    if not len(ids):
        raise HauberkError(f"{names} share no image: {quantities[-1]}", "measure them on the same images")
    return ids


def _attacks(one: Contestant, others: Sequence[Contestant], quantity: Quantity, unlike: bool) -> tuple[bool, bool]:
    """Whether this one met attacks that another did not, and the reverse; both are refused unless ``unlike`` is set."""
    if quantity.kind != "attacked":
        return False, False
    mine = one.outcomes[quantity].tried
    theirs = {other.name: other.outcomes[quantity].tried for other in others}
    more = any(mine.used - their.met for their in theirs.values())
    fewer = any(their.used - mine.met for their in theirs.values())
    if more and fewer and not unlike:
        name, their = next((n, t) for n, t in theirs.items() if t.used - mine.met)
        raise HauberkError(
            f"{one.name} and {name} were not attacked alike, {quantity}: {_said(mine.used)} against "
            f"{_said(their.used)}",
            f"attack both with the same suite: hauberk attack RUN --threat {typed(quantity.norm, quantity.eps)}, or "
            "add --unlike-attacks to see the numbers without a verdict",
        )
    return more, fewer


def _said(how: frozenset[str]) -> str:
    return "; ".join(sorted(how)) or "nothing"
