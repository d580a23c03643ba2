"""Images from attack records: original, adversarial and magnified difference, as PNG data URIs."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hauberk import records
from hauberk.records import Part
from hauberk.report.outcomes import correct
from hauberk.report.subject import Subject
from hauberk.report.words import class_name

MOST_PICTURES = 24
MOST_BARS = 4
FACTORS = (1, 2, 5, 10, 20, 50, 100)
Radius: TypeAlias = tuple[float, str, bool]


@dataclass(frozen=True)
class Bar:
    """Probability of one class before and after."""

    name: str
    clean: float
    attacked: float


@dataclass(frozen=True)
class Picture:
    """One attacked image.

    Args:
        id: id of the sample.
        method: the attack.
        norm: norm of its threat.
        eps: its budget.
        distance: how far the image was moved, in that norm.
        broken: whether the attack succeeded.
        label: the right class.
        before: prediction at the image.
        after: prediction at the returned point.
        original: PNG as a data URI.
        adversarial: likewise.
        difference: grey is no change; likewise.
        factor: the factor that magnifies the difference.
        bars: the likeliest classes.
        radius: certified radius of the same predictor at this image, with its norm, or None where unknown.
        state: ``wrong`` before any attack, ``broken`` or ``held``.
        certified: whether the proof covers the budget of the attack, in its norm and for the right class.
        nearest: distance of the nearest misclassified point that the attack saw, infinite without one.
    """

    id: int
    method: str
    norm: str
    eps: float
    distance: float
    broken: bool
    label: str
    before: str
    after: str
    original: str
    adversarial: str
    difference: str
    factor: int
    bars: tuple[Bar, ...]
    radius: tuple[float, str] | None
    state: str
    certified: bool
    nearest: float


def pictures(subject: Subject, parts: Iterable[Part]) -> list[Picture]:
    """The kept images at the headline's budget, or at the first budget that kept any; in order of id.

    Each image is shown with the attack that broke it, else with the attack that came closest.
    """
    own = [
        p
        for p in records.group(q for q in parts if q.kind in ("attack", "certificate"))
        if (p.unit["predictor"], p.facts["dataset"], p.facts["split"])
        == (subject.predictor, subject.dataset, subject.split)
    ]
    kept = [p for p in own if p.kind == "attack" and p.table.column("image").null_count < p.table.num_rows]
    head = subject.headline
    kept.sort(key=lambda p: head is None or p.unit["threat"] != {"name": head.norm, "eps": head.eps})
    if not kept:
        return []
    chosen: dict[int, tuple[tuple[bool, float], Part, dict[str, Any]]] = {}
    for part in (p for p in kept if p.unit["threat"] == kept[0].unit["threat"]):
        for row in part.table.filter(part.table.column("image").is_valid()).to_pylist():
            rank = (not row["success"], float(row["logit_margin"]))
            if row["id"] not in chosen or rank < chosen[row["id"]][0]:
                chosen[row["id"]] = (rank, part, row)
    radii = _radii(own)
    return [_picture(subject, chosen[i][1], chosen[i][2], radii.get(i)) for i in sorted(chosen)[:MOST_PICTURES]]


def png(pixels: NDArray[np.float32]) -> str:
    """A data URI of a (C, H, W) image in [0, 1]: one channel is grey, three are colour, others their mean."""
    values = np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8)
    picture = np.moveaxis(values, 0, 2) if len(values) == 3 else np.rint(values.mean(0)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def magnified(original: NDArray[np.float32], adversarial: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """Half grey plus a multiple of the change: the largest round factor that keeps every pixel in [0, 1]."""
    change = adversarial - original
    largest = float(np.abs(change).max(initial=0.0))
    factor = max((f for f in FACTORS if f * largest <= 0.5), default=1)
    return (0.5 + factor * change).astype(np.float32), factor


def _radii(parts: list[Part]) -> dict[int, Radius]:
    """The first proved radius of each image, its norm, and whether the certified class is right."""
    found: dict[int, Radius] = {}
    for part in parts:
        if part.kind == "certificate" and part.facts["proof"] != "estimate":
            rows = zip(*(part.column(n).tolist() for n in ("id", "radius")), correct(part).tolist(), strict=True)
            for i, radius, right in rows:
                found.setdefault(i, (radius, str(part.facts["norm"]), right))
    return found


def _picture(subject: Subject, part: Part, row: dict[str, Any], radius: Radius | None) -> Picture:
    original, adversarial = _pixels(row["image"], subject), _pixels(row["adversarial"], subject)
    difference, factor = magnified(original, adversarial)
    norm, eps = str(part.unit["threat"]["name"]), float(part.unit["threat"]["eps"])
    label, before, after = (int(row[n]) for n in ("label", "clean_prediction", "prediction"))
    return Picture(
        id=int(row["id"]),
        method=str(part.unit["method"]["name"]),
        norm=norm,
        eps=eps,
        distance=float(row["distance"]),
        broken=bool(row["success"]),
        label=class_name(label, subject.classes),
        before=class_name(before, subject.classes),
        after=class_name(after, subject.classes),
        original=png(original),
        adversarial=png(adversarial),
        difference=png(difference),
        factor=factor,
        bars=_bars(subject, row, {label, before, after}),
        radius=radius[:2] if radius else None,
        state="wrong" if before != label else "broken" if row["success"] else "held",
        certified=radius is not None and radius[1:] == (norm, True) and radius[0] >= eps,
        nearest=math.inf if row["nearest"] is None or math.isnan(row["nearest"]) else float(row["nearest"]),
    )


def _pixels(content: bytes, subject: Subject) -> NDArray[np.float32]:
    return np.frombuffer(content, np.float32).reshape(subject.shape)


def _bars(subject: Subject, row: dict[str, Any], wanted: set[int]) -> tuple[Bar, ...]:
    if row["clean_probabilities"] is None or row["probabilities"] is None:
        return ()
    clean, attacked = np.asarray(row["clean_probabilities"]), np.asarray(row["probabilities"])
    likely = [int(k) for k in np.argsort(-np.maximum(clean, attacked), kind="stable")]
    chosen = sorted(likely, key=lambda k: k not in wanted)[: max(MOST_BARS, len(wanted - {-1}))]
    return tuple(Bar(class_name(k, subject.classes), float(clean[k]), float(attacked[k])) for k in sorted(chosen))
