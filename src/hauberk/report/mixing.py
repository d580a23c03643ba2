"""The mixed classifier's whole range of alpha, from ``mix`` records: clean and certified accuracy are exact counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hauberk import records
from hauberk.errors import HauberkError
from hauberk.evaluation import metrics
from hauberk.records import Part
from hauberk.report.subject import Subject
from hauberk.statistics import Interval, wilson


@dataclass(frozen=True)
class Dot:
    """One attacked point of the plane.

    Args:
        alpha: weight of the robust model.
        norm: of the threat.
        eps: its budget.
        predictor: who was attacked.
        clean: its accuracy.
        attacked: its worst accuracy at that threat.
    """

    alpha: float
    norm: str
    eps: float
    predictor: str
    clean: Interval
    attacked: Interval


@dataclass(frozen=True)
class Mix:
    """Two models and everything between them.

    Args:
        accurate: the accurate model's predictor.
        robust: the robust model's.
        dataset: its name.
        split: its part.
        norm: of the certificates.
        proof: ``deterministic``, ``probabilistic`` or ``estimate``.
        chosen: the alphas that were chosen when the records were written.
        eps: the radii of ``certified``.
        right: for each image, the open interval of alpha in which the mix is right; None: never.
        certified: for each image and eps, the alpha from which it is certified and right; None: never.
        either_right: share of images at which at least one of the two models is right.
        dots: the mixes that were attacked, and both models alone.
    """

    accurate: str
    robust: str
    dataset: str
    split: str
    norm: str
    proof: str
    chosen: tuple[float, ...]
    eps: tuple[float, ...]
    right: tuple[tuple[float, float] | None, ...]
    certified: tuple[tuple[float | None, ...], ...]
    either_right: Interval
    dots: tuple[Dot, ...]

    def clean_accuracy(self, alpha: float) -> Interval:
        """Share of images that the mix with that alpha classifies right; exact for these images."""
        return wilson(sum(1 for r in self.right if r is not None and r[0] < alpha < r[1]), len(self.right))

    def certified_accuracy(self, alpha: float, eps: float) -> Interval:
        """Share of images right and certified at one of the radii ``eps``; exact for these images.

        Raises:
            HauberkError: if that radius is not among the records.
        """
        if eps not in self.eps:
            known = ", ".join(f"{e:g}" for e in self.eps)
            raise HauberkError(f"the records hold no radius {eps:g}", f"they hold {known}")
        k = self.eps.index(eps)
        needed = [row[k] for row in self.certified]
        return wilson(sum(1 for a in needed if a is not None and a <= alpha), len(needed))


def mixes(parts: Iterable[Part], subjects: Iterable[Subject]) -> list[Mix]:
    """One mix for each pair of models, split, norm, proof and grid of radii.

    Args:
        parts: records of all kinds.
        subjects: where attacked accuracies are looked up.

    Raises:
        HauberkError: if records of one pair disagree about when the mix is right.
    """
    families: dict[str, list[Part]] = {}
    names = ("accurate", "robust", "dataset", "split", "norm", "proof", "eps", "classes")
    for part in records.group(p for p in parts if p.kind == "mix"):
        families.setdefault(records.content_hash([part.facts[n] for n in names]), []).append(part)
    known = list(subjects)
    return [_mix(items, known) for items in families.values()]


def certificate(part: Part) -> Part | None:
    """What a ``mix`` part proves about the mix at its chosen alpha, as a certificate part; None unless deterministic.

    The radius of an image is the largest of the part's radii at which it is certified and right, so the accuracy at
    those radii is exact and between them a lower bound.  Images that are not certified as right have no decision.
    """
    if part.facts["proof"] != "deterministic" or not part.facts["eps"]:
        return None
    eps, alpha = [float(e) for e in part.facts["eps"]], float(part.facts["alpha"])
    rows = part.table.column("certified_alpha").to_pylist()
    held = [[e for e, a in zip(eps, row, strict=True) if _number(a) is not None and a <= alpha] for row in rows]
    labels = part.column("label").tolist()
    facts = {k: part.facts[k] for k in ("dataset", "split", "classes", "shape", "norm", "proof")}
    return records.part("certificate", part.unit, facts | {"failure_probability": 0.0, "shared": {}}, {
        "id": part.column("id"),
        "label": labels,
        "prediction": [y if h else -1 for y, h in zip(labels, held, strict=True)],
        "radius": [max(h, default=0.0) for h in held],
    })  # fmt: skip


def _mix(parts: list[Part], subjects: list[Subject]) -> Mix:
    first, facts = parts[0], parts[0].facts
    for other in parts[1:]:
        if not other.table.equals(first.table):
            raise HauberkError(
                f"two mixes of {facts['accurate']} and {facts['robust']} have different rows",
                "they were measured on different images or with different settings; report them apart",
            )
    low, high = first.column("alpha_low"), first.column("alpha_high")
    dots = [d for p in parts for d in _dots(float(p.facts["alpha"]), str(p.unit["predictor"]), facts, subjects)]
    dots += _dots(0.0, str(facts["accurate"]), facts, subjects) + _dots(1.0, str(facts["robust"]), facts, subjects)
    return Mix(
        accurate=str(facts["accurate"]),
        robust=str(facts["robust"]),
        dataset=str(facts["dataset"]),
        split=str(facts["split"]),
        norm=str(facts["norm"]),
        proof=str(facts["proof"]),
        chosen=tuple(sorted({float(p.facts["alpha"]) for p in parts})),
        eps=tuple(map(float, facts["eps"])),
        right=tuple(_interval(float(a), float(b)) for a, b in zip(low, high, strict=True)),
        certified=tuple(
            tuple(_number(a) for a in row) for row in first.table.column("certified_alpha").to_pylist()
        ),
        either_right=metrics.either_right(
            *(first.column(f"{name}_prediction") == first.column("label") for name in ("accurate", "robust"))
        ),
        dots=tuple(sorted(dots, key=lambda d: (d.norm, d.eps, d.alpha))),
    )


def _dots(alpha: float, predictor: str, facts: Mapping[str, Any], subjects: list[Subject]) -> list[Dot]:
    return [
        Dot(alpha, a.norm, a.eps, predictor, s.clean, a.accuracy)
        for s in subjects
        if (s.predictor, s.dataset, s.split) == (predictor, facts["dataset"], facts["split"])
        for a in s.attacked
    ]


def _interval(low: float, high: float) -> tuple[float, float] | None:
    if math.isnan(low) or math.isnan(high):
        return None
    # any end outside [0, 1] means the same; a finite one can be written as JSON
    return float(np.clip(low, -1.0, 2.0)), float(np.clip(high, -1.0, 2.0))


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
