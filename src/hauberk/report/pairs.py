"""Comparisons of two classifiers image by image: the shared images on which only one of them holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np

from hauberk.evaluation import metrics
from hauberk.records import Part
from hauberk.report import words
from hauberk.report.outcomes import Ids, at_budget, best_proof, clean_rows, correct
from hauberk.report.subject import Subject
from hauberk.statistics import Interval, paired_difference

Quantity: TypeAlias = tuple[str, str, float]  # clean, attacked or certified; norm and budget
Held: TypeAlias = tuple[Ids, metrics.Bools]

CLEAN: Quantity = ("clean", "", 0.0)
MOST_COMPARED = 12  # classifiers; the pairs grow with their square
MOST_SHOWN = 12


@dataclass(frozen=True)
class Pair:
    """Two classifiers on the images that both saw.

    Args:
        first: number of the first classifier's article on the page, from 1.
        second: likewise for the second classifier.
        quantity: the quantity: right without attack, right under attack, or certified.
        both: number of images on which both hold.
        only_first: number of images on which the first alone holds.
        only_second: number of images on which the second alone holds.
        neither: number of images on which neither holds.
        difference: share of the first minus share of the second, with its paired interval.
        ids: the first few images on which the first alone holds, and the second alone.
    """

    first: int
    second: int
    quantity: Quantity
    both: int
    only_first: int
    only_second: int
    neither: int
    difference: Interval
    ids: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def what(self) -> str:
        """The quantity in words."""
        kind, norm, eps = self.quantity
        return {"clean": "right without attack"}.get(kind) or f"{kind} at {words.budget(norm, eps)}"

    @property
    def key(self) -> str:
        """The quantity as one word, for the script."""
        kind, norm, eps = self.quantity
        return f"{kind} {norm} {eps!r}" if norm else kind


def pairs(
    subjects: Sequence[Subject], parts: Sequence[Sequence[Part]], budgets: Sequence[tuple[str, float]]
) -> list[Pair]:
    """All pairs of classifiers of one split in each quantity that both have, if either holds on a shared image.

    Args:
        subjects: in the order of their articles.
        parts: the joined records of each subject.
        budgets: norms and radii of certified accuracy.
    """
    shown = list(zip(subjects, parts, strict=True))[:MOST_COMPARED]
    known = [held(s, own, budgets) for s, own in shown]
    found = []
    for one, other in combinations(range(len(shown)), 2):
        a, b = subjects[one], subjects[other]
        if (a.dataset, a.split) == (b.dataset, b.split):
            shared = [q for q in known[one] if q in known[other]]
            found += [_pair(one + 1, other + 1, q, known[one][q], known[other][q]) for q in shared]
    return [pair for pair in found if pair.both + pair.only_first + pair.only_second]


def held(
    subject: Subject, parts: Sequence[Part], budgets: Iterable[tuple[str, float]]
) -> Mapping[Quantity, Held]:
    """The images that hold in each measured quantity; the mean over these images is the quantity's accuracy."""
    attacks, proofs = ([p for p in parts if p.kind == kind] for kind in ("attack", "certificate"))
    ids, labels, answers = clean_rows(attacks or proofs)
    found: dict[Quantity, Held] = {CLEAN: (ids, labels == answers)}
    for a in subject.attacked:
        seen = at_budget(attacks, a.norm, a.eps)
        if seen is not None:
            found["attacked", a.norm, a.eps] = (seen.ids, seen.standing)
    for norm, eps in budgets:
        best = best_proof(proofs, norm)
        if best is not None:
            found["certified", norm, eps] = (best.column("id"), correct(best) & (best.column("radius") >= eps))
    return found


def difference(mine: Held, theirs: Held) -> Interval | None:
    """Share of the first minus share of the second on the images that both saw; None if there are none."""
    ids, one, other = _shared(mine, theirs)
    return paired_difference(one, other)[0] if len(ids) else None


def _shared(mine: Held, theirs: Held) -> tuple[Ids, metrics.Bools, metrics.Bools]:
    ids, here, there = np.intersect1d(mine[0], theirs[0], return_indices=True)
    return ids, mine[1][here], theirs[1][there]


def _pair(first: int, second: int, quantity: Quantity, mine: Held, theirs: Held) -> Pair:
    ids, one, other = _shared(mine, theirs)
    difference, _ = paired_difference(one, other)
    cells = (one & other, one & ~other, ~one & other, ~one & ~other)
    both, only_first, only_second, neither = (int(cell.sum()) for cell in cells)
    few = tuple(tuple(int(i) for i in ids[cell][:MOST_SHOWN]) for cell in cells[1:3])
    return Pair(first, second, quantity, both, only_first, only_second, neither, difference, (few[0], few[1]))
