"""Radii of guarantees about sets of classes, from logits and pairwise Lipschitz constants."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from hauberk.verify.derive.logits import lipschitz


def top_k(row: Mapping[str, Any], shared: Mapping[str, Any]) -> tuple[int, float]:
    """Class of the largest logit, and the radius that keeps the k largest: the least over pairs across their border."""
    top, _ = lipschitz(row, shared)
    if top < 0 or not 1 <= shared["k"] < len(row["logits"]):
        return top, 0.0
    return top, _border(row, shared, shared["k"])


def affinity(row: Mapping[str, Any], shared: Mapping[str, Any]) -> tuple[int, float]:
    """As ``top_k``, for the best k whose set of largest logits lies in a declared set."""
    top, _ = lipschitz(row, shared)
    order = _order(row["logits"])
    fitting = [
        k for k in range(1, len(order)) if any(all(j in members for j in order[:k]) for members in shared["sets"])
    ]
    if top < 0:
        return top, 0.0
    return top, max((_border(row, shared, k) for k in fitting), default=0.0)


def _order(logits: Iterable[float]) -> list[int]:
    """Classes from the largest logit down; among equal logits the lower class comes first."""
    values = list(logits)
    return sorted(range(len(values)), key=lambda j: (-values[j], j))


def _border(row: Mapping[str, Any], shared: Mapping[str, Any], k: int) -> float:
    logits, order = row["logits"], _order(row["logits"])
    nearest = math.inf
    for j in order[:k]:
        for i in order[k:]:
            gap, speed = logits[j] - logits[i] - float(row.get("rounding", 0.0)), float(shared["pairwise"][j][i])
            if gap <= 0.0:
                return 0.0
            nearest = min(nearest, gap / speed if speed > 0.0 else math.inf)
    return nearest if math.isfinite(nearest) else 0.0
