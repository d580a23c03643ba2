"""Class and radius from draws of a random model: margins of a vote, or means of clamped logits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats


def random_vote(row: Mapping[str, Any], shared: Mapping[str, Any]) -> tuple[int, float]:
    """Class, and the value below which the median margin lies with probability at most alpha.

    The sorted margin at index i, from 0, exceeds the median only if at least n - i of the n margins do.  Each margin
    exceeds the median with probability at most one half.
    """
    margins, n = np.sort(np.asarray(row["margins"], dtype=np.float64)), int(shared["draws"])
    if len(margins) != n or not np.isfinite(margins).all() or not row["distance"] <= row["explained"]:
        return -1, 0.0
    beyond = stats.binom.sf(n - np.arange(n) - 1, n, 0.5)  # that at least n - i margins lie beyond the median
    kept = margins[beyond <= float(shared["alpha"])]
    radius = float(kept[-1]) if len(kept) else 0.0
    return (int(np.argmax(row["first"])), radius) if radius > 0.0 else (-1, 0.0)


def expected_logits(row: Mapping[str, Any], shared: Mapping[str, Any]) -> tuple[int, float]:
    """Class, and the distance that the image may move before a bounded gap of expected clamped logits closes."""
    top, n = int(np.argmax(row["first"])), int(shared["draws"])
    gaps, variances, speeds = (
        np.delete(np.asarray(values, dtype=np.float64), top)
        for values in (row["gaps"], row["variances"], np.asarray(shared["pairwise"], dtype=np.float64)[top])
    )
    finite = np.isfinite(gaps).all() and np.isfinite(variances).all() and (variances >= 0.0).all()
    lost = float(row["rounding"])
    if not finite or not lost >= 0.0 or not row["distance"] <= row["explained"] or n < 2:
        return -1, 0.0
    share, clamp = float(shared["alpha"]) / len(gaps), float(shared["clamp"])
    if shared["interval"] == "hoeffding":  # differences lie in [-2B, 2B]
        off = 2.0 * clamp * math.sqrt(2.0 * math.log(1.0 / share) / n) * np.ones_like(gaps)
    else:
        off = np.sqrt(2.0 * variances * math.log(2.0 / share) / n)
        off = off + 28.0 * clamp * math.log(2.0 / share) / (3.0 * (n - 1))
    left = gaps - off - lost
    if not (left > 0.0).all() or not (speeds > 0.0).any():
        return -1, 0.0
    with np.errstate(divide="ignore"):
        return top, float((left / speeds).min())
