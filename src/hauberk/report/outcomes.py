"""The outcome of each image: whether it is right before any attack, whether it stands after all, and its answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hauberk import records
from hauberk.evaluation import metrics
from hauberk.evaluation.by_class import UNKNOWN
from hauberk.records import Part
from hauberk.report.subject import preference
from hauberk.verify.wrapped import target, white

Ids: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Outcomes:
    """The images of one predictor under one threat, in the order of their ids; every field has shape (N,).

    Args:
        ids: ids of the images.
        labels: their classes.
        right: whether the image is right before any attack.
        survived: whether no attack that saw the image broke it, at this budget or with a point within it.
        after: the answer at the point of the first attack that broke the image; the label if the image stands; -2 if
            only an attack with another budget found a point.
        nearest: distance of the nearest misclassified point that any attack of the norm saw, infinite without one.
    """

    ids: Ids
    labels: Ids
    right: metrics.Bools
    survived: metrics.Bools
    after: Ids
    nearest: metrics.Floats

    @property
    def standing(self) -> metrics.Bools:
        """Whether each image is right before and after the attacks."""
        both: metrics.Bools = self.right & self.survived
        return both


def outcomes(parts: list[Part], eps: float, others: Iterable[Part] = ()) -> Outcomes:
    """Join the attacks of one predictor in one norm; the images are those attacked with the budget eps.

    Args:
        parts: attacks whose verdicts count.
        eps: the budget.
        others: attacks in this norm with another goal; errors that they found within the budget count too.
    """
    own = in_order(p for p in parts if float(p.unit["threat"]["eps"]) == eps)
    ids, right, survived = worst_case(own)
    labels, after = np.zeros(len(ids), np.int64), np.full(len(ids), UNKNOWN)
    for part in own:
        at = np.searchsorted(ids, part.column("id"))
        labels[at] = part.column("label")
        broken = part.column("success").astype(np.bool_) | ~correct(part)
        first = broken & (after[at] == UNKNOWN)
        after[at[first]] = part.column("prediction")[first]
    nearest = _nearest(ids, [*parts, *others])
    survived &= nearest > eps
    standing = right & survived
    after[standing] = labels[standing]
    after[~standing & (after == labels)] = UNKNOWN
    return Outcomes(ids, labels, right, survived, after, nearest)


def plain(part: Part) -> bool:
    """Whether an attack may return any point of its threat and counts any error as a success."""
    return target(part) is None and white(part) is None


def at_budget(attacks: Iterable[Part], norm: str, eps: float) -> Outcomes | None:
    """The outcomes of one predictor's attacks under one threat; None if no plain attack had this budget.

    The images are those of the plain attacks with the budget.  Every error that an attack of the norm found within the
    budget counts, whatever the attack's own budget and goal.
    """
    own = [p for p in attacks if p.unit["threat"]["name"] == norm]
    counting = [p for p in own if plain(p)]
    if not any(float(p.unit["threat"]["eps"]) == eps for p in counting):
        return None
    return outcomes(counting, eps, own)


def best_proof(parts: Iterable[Part], norm: str) -> Part | None:
    """The certificate that represents a predictor in a norm, chosen without its radii; estimates are excluded."""
    proofs = [
        p for p in parts if p.kind == "certificate" and p.facts["norm"] == norm and p.facts["proof"] != "estimate"
    ]
    return max(
        proofs, key=lambda p: preference(p.facts["proof"], p.unit["method"], p.unit["seed"]), default=None
    )


def in_order(parts: Iterable[Part]) -> list[Part]:
    """Attacks in the order of their suites: a later stage saw the survivors of the earlier stages."""
    return sorted(parts, key=lambda p: (str(p.unit.get("suite", "")), int(p.unit.get("stage", 0)), p.key))


def clean_rows(parts: Iterable[Part]) -> tuple[Ids, Ids, Ids]:
    """Ids, labels and answers before any attack, from the first part that holds the image."""
    found = [
        (p.column("id"), p.column("label"), p.column("clean_prediction" if p.kind == "attack" else "prediction"))
        for p in parts
    ]
    ids, labels, answers = (np.concatenate(columns) for columns in zip(*found, strict=True))
    _, first = np.unique(ids, return_index=True)
    return ids[first], labels[first], answers[first]


def correct(part: Part) -> metrics.Bools:
    """Which rows are right before any attack; an abstention is wrong."""
    name = "clean_prediction" if part.kind == "attack" else "prediction"
    right: metrics.Bools = part.column(name) == part.column("label")
    return right


def right_by_id(parts: Iterable[Part]) -> dict[int, bool]:
    """Which images are right before any attack, from the first part that holds the image."""
    known: dict[int, bool] = {}
    for part in parts:
        for i, right in zip(part.column("id").tolist(), correct(part).tolist(), strict=True):
            known.setdefault(i, right)
    return known


def images_hash(ids: Ids) -> str:
    """A name for a set of image ids."""
    return records.content_hash(sorted(int(i) for i in ids))


def worst_case(parts: list[Part]) -> tuple[Ids, metrics.Bools, metrics.Bools]:
    """Ids, right before, and survived every attack that saw the image (a later attack may see survivors only)."""
    ids = np.unique(np.concatenate([p.column("id") for p in parts]))
    right = np.ones(len(ids), dtype=np.bool_)
    survived = np.ones(len(ids), dtype=np.bool_)
    for part in parts:
        at = np.searchsorted(ids, part.column("id"))
        right[at] &= correct(part)
        survived[at] &= ~part.column("success").astype(np.bool_)
    return ids, right, survived


def reached(ids: Ids, parts: list[Part], eps: float) -> metrics.Bools:
    """Which images some attack of the norm broke at a distance within eps, whatever budget it was run with."""
    found: metrics.Bools = _nearest(ids, parts) <= eps
    return found


def _nearest(ids: Ids, parts: list[Part]) -> metrics.Floats:
    found = np.full(len(ids), np.inf)
    for part in parts:
        _, mine, theirs = np.intersect1d(ids, part.column("id"), return_indices=True)
        found[mine] = np.fmin(found[mine], part.column("nearest")[theirs])
    return found
