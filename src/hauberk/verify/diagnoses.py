"""Rows of a diagnosis: the verdict of each check follows from its value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hauberk.records import Part

ORDER = ("sound", "questionable", "broken")
# a check is sound up to the first number and broken beyond the second; None: it is never broken
LIMITS: dict[str, tuple[float, float | None]] = {
    "randomness": (1e-6, 1e-3),
    "output_form": (0.2, None),
    "zero_gradients": (0.05, 0.5),
    "vanishing_gradients": (0.1, None),
    "wrong_gradients": (0.3, 0.7),
    "neighbourhood": (0.05, 0.2),
    "silent_success": (0.0, 0.0),
    "rising_loss": (0.1, 0.3),
    "black_box": (0.02, 0.05),
    "random_search": (0.0, 0.02),
    "single_step": (0.02, 0.05),
    "more_steps": (0.03, 0.1),
    "stronger_attack": (0.05, 0.2),
    "transfer": (0.02, 0.05),
    "budget_sweep": (0.02, 0.1),
    "unbounded": (0.0, 0.05),
    "binarisation": (0.95, 0.8),
    "noise_share": (1.0, None),
    "eot_pgd": (0.05, 0.2),
    "draw_transfer": (0.05, 0.2),
    "more_draws": (0.05, 0.2),
    "fewer_steps": (0.03, 0.1),
}


def diagnosis_problems(part: Part) -> Iterator[str]:
    """Whether the verdict of each check follows from its value."""
    rows = part.table.to_pylist()
    if [row["id"] for row in rows] != list(range(len(rows))):
        yield "its checks are not numbered from 0 on"
    names = [str(row["check"]) for row in rows]
    yield from (f"check {n}: it is there more than once" for n in sorted({n for n in names if names.count(n) > 1}))
    yield from (f"check {n}: every diagnosis makes it, and it is missing" for n in _due(rows) if n not in names)
    for row in rows:
        name, value, verdict = str(row["check"]), row["value"], row["verdict"]
        if name not in LIMITS or verdict not in ORDER or value is None or not math.isfinite(value):
            yield f"check {name}: no known check with a value and a verdict"
            continue
        sound, broken = LIMITS[name]
        if row["threshold"] != sound:
            yield f"check {name}: its threshold is {sound}, the record says {row['threshold']}"
        sign = -1.0 if broken is not None and broken < sound else 1.0
        if name == "randomness" and verdict == "sound" and "noise_share" in names:
            continue  # the model declares that it is random, and other checks judge its noise
        if (verdict == "sound") != (sign * value <= sign * sound):
            yield f"check {name}: its value {value:.6g} does not make it {verdict}"
        elif verdict == "broken" and (broken is None or sign * value <= sign * broken):
            yield f"check {name}: its value {value:.6g} does not make it broken"
        if not isinstance(row["images"], int) or row["images"] < 0 or not row["reason"]:
            yield f"check {name}: no reason or number of images"


def _due(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The checks that every diagnosis must hold; some of them apply only to a model that is not random."""
    yield from ("randomness", "output_form", "zero_gradients", "black_box", "random_search", "single_step")
    if all(row["value"] <= LIMITS["randomness"][0] for row in rows if row["check"] == "randomness"):
        yield from ("vanishing_gradients", "wrong_gradients", "neighbourhood")
