"""The mixed classifier's whole range of alpha, from ``mix`` records: clean and certified accuracy are exact counts.

Measurements (attacked mixes of the same two models, of any kind) and estimates are kept beside these counts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from hauberk import records
from hauberk.errors import HauberkError
from hauberk.evaluation import metrics
from hauberk.records import Part
from hauberk.report.estimate import Estimate, estimates
from hauberk.report.subject import Subject
from hauberk.statistics import Interval, wilson
from hauberk.threats import epsilon

KINDS = {"adaptive_mixed": "mixing network", "mixed_nuts": "MixedNUTS"}


@dataclass(frozen=True)
class Dot:
    """One attacked point of the plane.

    Args:
        alpha: weight of the robust model; None for a mix that is not on the path of constant weights.
        label: the name of the point.
        norm: norm of the threat.
        eps: its budget.
        predictor: the attacked predictor.
        clean: its accuracy.
        attacked: its worst accuracy at that threat.
    """

    alpha: float | None
    label: str
    norm: str
    eps: float
    predictor: str
    clean: Interval
    attacked: Interval


@dataclass(frozen=True)
class Mix:
    """Two models and the mixes between them.

    Args:
        accurate: the accurate model's predictor.
        robust: the robust model's predictor.
        dataset: name of the data set.
        split: its split.
        scales: factors on the logits of the accurate and of the robust model.
        classes: names of the classes.
        norm: norm of the certificates; empty if nothing is proved.
        proof: ``deterministic`` or ``none``.
        chosen: the alphas that were chosen when the records were written.
        eps: the radii of ``certified``; none if nothing is proved.
        ids: ids of the images.
        labels: their classes.
        predictions: the answers of the accurate and of the robust model for each image.
        right: for each image, the open interval of alpha in which the mix is right; None: never.
        certified: for each image and eps, the alpha from which it is certified and right; None: never.
        either_right: share of images at which at least one of the two models is right.
        dots: the mixes that were attacked, of any kind, and both models alone.
        estimates: estimates of attacked accuracy along alpha, from attacks on the robust model.
    """

    accurate: str
    robust: str
    dataset: str
    split: str
    scales: tuple[float, float]
    classes: tuple[str, ...]
    norm: str
    proof: str
    chosen: tuple[float, ...]
    eps: tuple[float, ...]
    ids: tuple[int, ...]
    labels: tuple[int, ...]
    predictions: tuple[tuple[int, int], ...]
    right: tuple[tuple[float, float] | None, ...]
    certified: tuple[tuple[float | None, ...], ...]
    either_right: Interval
    dots: tuple[Dot, ...]
    estimates: tuple[Estimate, ...]

    def clean_accuracy(self, alpha: float) -> Interval:
        """Share of images that the mix with that alpha classifies right; exact for these images."""
        return wilson(sum(1 for r in self.right if r is not None and r[0] < alpha < r[1]), len(self.right))

    def certified_accuracy(self, alpha: float, eps: float) -> Interval:
        """Share of images right and certified at one of the radii ``eps``; exact for these images.

        Raises:
            HauberkError: if that radius is not among the records.
        """
        if eps not in self.eps:
            known = ", ".join(map(epsilon, self.eps))
            raise HauberkError(f"the records hold no radius {epsilon(eps)}", f"choose one of {known}")
        k = self.eps.index(eps)
        needed = [row[k] for row in self.certified]
        return wilson(sum(1 for a in needed if a is not None and a <= alpha), len(needed))


def mixes(parts: Iterable[Part], subjects: Iterable[Subject]) -> list[Mix]:
    """One mix for each pair of models, their scales, split, norm, proof and grid of radii.

    Args:
        parts: records of all kinds; attacks on the robust model make the estimates.
        subjects: where attacked accuracies are looked up.

    Raises:
        HauberkError: if records of one pair disagree about when the mix is right.
    """
    families: dict[str, list[Part]] = {}
    names = ("accurate", "robust", "dataset", "split", "norm", "proof", "eps", "classes")
    found, known = list(parts), list(subjects)
    for part in records.group(p for p in found if p.kind == "mix"):
        key = records.content_hash([*(part.facts[n] for n in names), _scales(str(part.unit["predictor"]))])
        families.setdefault(key, []).append(part)
    attacks = [p for p in found if p.kind == "attack"]
    return [_mix(items, known, attacks) for items in families.values()]


def certificate(part: Part) -> Part | None:
    """The proof of a ``mix`` part about the mix at its chosen alpha, as a certificate part; None unless deterministic.

    The radius of an image is the largest of the part's radii at which it is certified and right.  The accuracy is
    therefore exact at these radii and a lower bound between them.  Images that are not certified as right have no
    decision.
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


def _mix(parts: list[Part], subjects: list[Subject], attacks: list[Part]) -> Mix:
    first, facts = parts[0], parts[0].facts
    for other in parts[1:]:
        if not _path(other).equals(_path(first)):
            raise HauberkError(
                f"two mixes of {facts['accurate']} and {facts['robust']} have different rows",
                "they were measured on different images or with different settings; report them apart",
            )
    scales, proved = _scales(str(first.unit["predictor"])), facts["proof"] == "deterministic"
    low, high = first.column("alpha_low"), first.column("alpha_high")
    ids, labels = first.column("id"), first.column("label")
    said = [first.column(f"{name}_prediction") for name in ("accurate", "robust")]
    base = [p for p in attacks if _about(facts, p, "robust")]
    return Mix(
        accurate=str(facts["accurate"]),
        robust=str(facts["robust"]),
        dataset=str(facts["dataset"]),
        split=str(facts["split"]),
        scales=scales,
        classes=tuple(map(str, facts["classes"])),
        norm=str(facts["norm"]) if proved else "",
        proof="deterministic" if proved else "none",
        chosen=tuple(sorted({float(p.facts["alpha"]) for p in parts})),
        eps=tuple(map(float, facts["eps"])) if proved else (),
        ids=tuple(ids.tolist()),
        labels=tuple(labels.tolist()),
        predictions=tuple(zip(*(s.tolist() for s in said), strict=True)),
        right=tuple(_interval(float(a), float(b)) for a, b in zip(low, high, strict=True)),
        certified=tuple(
            tuple(_number(a) for a in row) if proved else ()
            for row in first.table.column("certified_alpha").to_pylist()
        ),
        either_right=metrics.either_right(*(s == labels for s in said)),
        dots=tuple(_dots(facts, scales, subjects)),
        estimates=estimates(base, ids.tolist(), scales[1]),
    )


def _path(part: Part) -> pa.Table:
    """The columns that hold at every alpha; the evidence also holds the answers of the mix at its own alpha."""
    return part.table.drop_columns(["evidence"]) if "evidence" in part.table.column_names else part.table


def _about(facts: Mapping[str, Any], part: Part, name: str) -> bool:
    return (part.unit["predictor"], part.facts["dataset"], part.facts["split"]) == (
        facts[name], facts["dataset"], facts["split"]
    )  # fmt: skip


def _dots(facts: Mapping[str, Any], scales: tuple[float, float], subjects: list[Subject]) -> list[Dot]:
    """Every attacked classifier that is made of these two models, and both models alone."""
    found = []
    for s in subjects:
        place = _place(s.predictor, str(facts["accurate"]), str(facts["robust"]), scales)
        if place is not None and (s.dataset, s.split) == (facts["dataset"], facts["split"]):
            found += [Dot(*place, a.norm, a.eps, s.predictor, s.clean, a.accuracy) for a in s.attacked]
    return sorted(found, key=lambda d: (d.norm, d.eps, 2.0 if d.alpha is None else d.alpha, d.predictor))


def _place(
    predictor: str, accurate: str, robust: str, scales: tuple[float, float]
) -> tuple[float | None, str] | None:
    """Alpha (None off the path of constant weights) and label of a predictor; None if it is no mix of the two."""
    if predictor == accurate:
        return 0.0, "accurate alone"
    if predictor == robust:
        return 1.0, "robust alone"
    bases = f", {accurate}, {robust})"  # every mix's name ends with its bases, the accurate one first
    if not predictor.endswith(bases):
        return None
    kind, _, settings = predictor.removesuffix(bases).partition("(")
    alpha = re.match(r"alpha=([\d.e+-]+)", settings)
    weights = [f"{float(a):.3g}" for a in alpha[1].split("..")] if alpha else []
    if kind != "mixed":
        return None, " ".join([KINDS.get(kind, kind.replace("_", " ")), "..".join(weights)]).strip()
    own = _scales(predictor)
    if own == scales and alpha:
        return float(alpha[1]), f"α = {weights[0]}"
    return None, f"α = {'..'.join(weights)}, scales {own[0]:g} and {own[1]:g}"


def _scales(predictor: str) -> tuple[float, float]:
    """Factors on both models' logits, from a mix's name; the name leaves them out where both are 1."""
    found = re.match(r"\w+\(alpha=[^,]*, scales=([^/,]+)/([^,]+), ", predictor)
    return (float(found[1]), float(found[2])) if found else (1.0, 1.0)


def _interval(low: float, high: float) -> tuple[float, float] | None:
    if math.isnan(low) or math.isnan(high):
        return None
    # any end outside [0, 1] means the same; a finite one can be written as JSON
    return float(np.clip(low, -1.0, 2.0)), float(np.clip(high, -1.0, 2.0))


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
