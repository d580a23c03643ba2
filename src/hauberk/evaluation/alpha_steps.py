"""The accuracy of a mix as a step function of its weight, from arrays of probabilities."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from hauberk.errors import HauberkError

Floats: TypeAlias = NDArray[np.float64]
Labels: TypeAlias = NDArray[np.int64]

BELOW = 1e-6  # how far a chosen weight stays from the breakpoint at which an image is lost


def right_intervals(accurate: ArrayLike, robust: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    r"""The open intervals of alpha where :math:`(1-\alpha) g + \alpha h` predicts the label, for all images at once.

    Args:
        accurate: probabilities g, (N, K).
        robust: probabilities h, (N, K).
        labels: y, (N,).

    Returns:
        lower and upper ends, (N,) each; where the mix is right at 0 or 1 itself, the interval reaches beyond it (-1 or
        2), so that strict comparison is always right; NaN where the mix is never right.
    """
    y, g, h = tables("probabilities", labels, accurate, robust)
    start, end = leads(g, y), leads(h, y)  # the lead over each rival is linear in alpha, from start to end
    with np.errstate(invalid="ignore", divide="ignore"):
        cross = start / (start - end)
    low = np.where((start <= 0.0) & (end > 0.0), cross, -1.0).max(1)
    high = np.where((start > 0.0) & (end <= 0.0), cross, 2.0).min(1)
    never = ((start <= 0.0) & (end <= 0.0)).any(1) | (low >= high)
    return np.where(never, np.nan, low), np.where(never, np.nan, high)


def right_where_finite(accurate: Floats, robust: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """As ``right_intervals``, and NaN where the output of a model is NaN."""
    low, high = np.full((2, len(labels)), np.nan)
    known = np.isfinite(accurate).all(1) & np.isfinite(robust).all(1)
    if known.any():
        low[known], high[known] = right_intervals(accurate[known], robust[known], labels[known])
    return low, high


def _steps(low: Floats, high: Floats, top: float) -> tuple[Floats, NDArray[np.int64]]:
    """A point near the upper end of every piece of [0, top] between breakpoints, top itself, and the images right."""
    known = ~np.isnan(low)
    lows, highs = np.sort(low[known]), np.sort(high[known])
    inside = np.concatenate([lows, highs])
    ends = np.unique(np.concatenate([[0.0, top], inside[(inside > 0.0) & (inside < top)]]))
    points = np.append(ends[1:] - np.minimum(BELOW, np.diff(ends) / 2), top)
    return points, _count(lows, highs, points)


def _count(lows: Floats, highs: Floats, points: Floats) -> NDArray[np.int64]:
    """How many open intervals hold each point; both ends sorted."""
    counts: NDArray[np.int64] = np.searchsorted(lows, points, "left") - np.searchsorted(highs, points, "right")
    return counts


def largest(low: Floats, high: Floats, needed: int, top: float) -> tuple[float, int]:
    """The largest point of [0, top] at which enough images are right, and how many are."""
    points, counts = _steps(low, high, top)
    enough = counts >= needed
    if not enough.any():
        at, n = int(counts.argmax()), len(low)
        raise HauberkError(
            f"expected {needed} of {n} clean images right, but the mix gets {counts[0]} near {points[0]:.4g}, "
            f"{counts[-1]} at {points[-1]:.4g}, and at most {counts[at]} ({counts[at] / n:.4g}), near {points[at]:.4g}",
            "choose a lower target, other scales or other models",
        )
    at = int(np.flatnonzero(enough).max())
    return float(points[at]), int(counts[at])


def most(low: Floats, high: Floats, least: float) -> tuple[float, int]:
    """The largest point of [least, 1] at which the most images are right, and how many are."""
    points, counts = _steps(low, high, 1.0)
    known = ~np.isnan(low)
    here = _count(np.sort(low[known]), np.sort(high[known]), np.array([least]))
    points, counts = np.append(least, points[points > least]), np.append(here, counts[points > least])
    at = int(np.flatnonzero(counts == counts.max()).max())
    return float(points[at]), int(counts[at])


# --- arrays ----------------------------------------------------------------------------------------------------


def leads(scores: Floats, labels: Labels) -> Floats:
    """The label's score minus each other class's, (N, K - 1)."""
    n, k = scores.shape
    own = scores[np.arange(n), labels][:, None]
    others: Floats = scores[np.arange(k) != labels[:, None]].reshape(n, k - 1)
    return np.subtract(own, others)


def margin(probabilities: Floats, labels: Labels) -> Floats:
    """The label's probability minus the largest other one, (N,)."""
    least: Floats = leads(probabilities, labels).min(1)
    return least


def kept_by(margins: Floats, alpha: float | Floats) -> int:
    """How many margins exceed (1 - alpha) / alpha."""
    return int((alpha * margins > 1.0 - np.asarray(alpha)).sum())


def softmax(logits: Floats) -> Floats:
    """Probabilities, (N, K)."""
    probabilities: Floats = torch.from_numpy(logits).softmax(1).numpy()
    return probabilities


def enough_of(wanted: float, n: int) -> int:
    """The smallest number of images that is the wanted share of n."""
    if not 0.0 < wanted <= 1.0:
        raise HauberkError(f"expected a share in (0, 1], got {wanted}", "for example 0.9 for nine images of ten")
    return max(1, int(np.ceil(wanted * n - 1e-9)))


def tables(kind: Literal["probabilities", "logits"], labels: ArrayLike, *tables: ArrayLike) -> tuple[Any, ...]:
    """Labels (N,) and tables of one kind and shape (N, K), finite, float64."""
    y = np.asarray(labels)
    arrays = [np.asarray(table, dtype=np.float64) for table in tables]
    shape = arrays[0].shape
    fits = y.ndim == 1 and len(shape) == 2 and shape[1] >= 2 and all(a.shape == (len(y), shape[1]) for a in arrays)
    if not fits or len(y) == 0:
        raise HauberkError(
            f"expected labels (N,) and tables (N, K), got {y.shape} and {', '.join(str(a.shape) for a in arrays)}",
            "join the rows by sample id",
        )
    if not all(np.isfinite(a).all() for a in arrays) or (y < 0).any() or (y >= shape[1]).any():
        raise HauberkError(f"expected finite numbers and labels in 0..{shape[1] - 1}", "leave out rows that failed")
    for a in arrays:
        if ((a >= 0.0).all() and np.allclose(a.sum(1), 1.0, atol=1e-3)) != (kind == "probabilities"):
            other = "apply a softmax to logits first" if kind == "probabilities" else "give the logits themselves"
            raise HauberkError(f"expected {kind}, but the rows of a table {_sums(kind)}", other)
    return (y.astype(np.int64), *arrays)


def _sums(kind: str) -> str:
    return "do not sum to 1" if kind == "probabilities" else "sum to 1"


def margins_of(values: ArrayLike, rows: int | None = None) -> Floats:
    """Probability margins, (N,), checked."""
    m = np.asarray(values, dtype=np.float64)
    if m.ndim != 1 or len(m) != (rows or len(m)) or len(m) == 0 or not (np.abs(m) <= 1.0 + 1e-6).all():
        raise HauberkError(
            f"expected margins of probabilities in [-1, 1], one for each image, got shape {m.shape}",
            "use AttackResult.probability_margin, not logit_margin",
        )
    return m


def sigmoids_of(values: ArrayLike, rows: int) -> Floats:
    """A mixing network's outputs, (N,), checked."""
    u = np.asarray(values, dtype=np.float64)
    if u.shape != (rows,) or not ((u >= 0.0) & (u <= 1.0)).all():
        raise HauberkError(f"expected {rows} sigmoid outputs in [0, 1], got shape {u.shape}", "one for each image")
    return u
