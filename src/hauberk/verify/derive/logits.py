"""Class and radius from logits and pairwise Lipschitz constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import optimize


def lipschitz(row: Mapping[str, Any], shared: Mapping[str, Any], margin: float = 0.0) -> tuple[int, float]:
    r"""Class and radius from logits z, the most that rounding moved their differences, and pairwise constants K.

    The radius is the largest r with :math:`d_j - K_{yj} r \ge 0` for all rivals, where d is the difference of logits
    less the rounding, and, for a margin m > 0,
    :math:`\frac{1 - e^{-\min_j (d_j - K_{yj} r)}}{1 + \sum_j e^{-(d_j - K_{yj} r)}} > m`.
    """
    logits = np.asarray(row["logits"], dtype=np.float64)
    constants = np.asarray(shared["pairwise"], dtype=np.float64)
    lost = float(row.get("rounding", 0.0))
    if not np.isfinite(logits).all() or not np.isfinite(constants).all() or not lost >= 0.0:
        return -1, 0.0
    top = int(np.argmax(logits))
    if row.get("deployed", top) != top:  # the model in its own precision decides otherwise
        return -1, 0.0
    if not row.get("distance", 0.0) <= row.get("explained", np.inf):  # the model is farther away than rounding explains
        return -1, 0.0
    others = np.delete(np.arange(len(logits)), top)
    gaps, speeds = logits[top] - logits[others] - lost, constants[top, others]
    if not gaps.min() > 0.0 or not (speeds > 0.0).any():
        return top, 0.0
    with np.errstate(divide="ignore"):
        largest = float((gaps / speeds).min())

    def kept(radius: float) -> float:
        left = gaps - speeds * radius
        return float((1.0 - np.exp(-left.min())) / (1.0 + np.exp(-left).sum()))

    if margin <= 0.0:
        return top, largest
    if kept(0.0) <= margin:
        return top, 0.0
    if kept(largest) > margin:  # a margin so small that rounding decides
        return top, largest
    return top, float(optimize.brentq(lambda r: kept(r) - margin, 0.0, largest, xtol=1e-14, rtol=1e-14))


def kept_margins(row: Mapping[str, Any], shared: Mapping[str, Any], radii: Sequence[float]) -> tuple[int, list[float]]:
    r"""Class, and the probability margin that Lipschitz logits keep at each radius; -1 where the class may change."""
    top, largest = lipschitz(row, shared)
    if top < 0:
        return top, [-1.0] * len(radii)
    logits, constants = np.asarray(row["logits"], dtype=np.float64), np.asarray(shared["pairwise"], dtype=np.float64)
    others = np.delete(np.arange(len(logits)), top)
    gaps = logits[top] - logits[others] - row.get("rounding", 0.0)
    left = gaps - np.multiply.outer(np.asarray(radii, dtype=np.float64), constants[top, others])
    kept = (1.0 - np.exp(-left.min(1))) / (1.0 + np.exp(-left).sum(1))
    return top, np.where(np.asarray(radii) > largest, -1.0, kept).tolist()


def kept_margin(row: Mapping[str, Any], shared: Mapping[str, Any], radius: float) -> tuple[int, float]:
    """Class, and the margin kept at one radius."""
    top, (kept,) = kept_margins(row, shared, [radius])
    return top, kept
