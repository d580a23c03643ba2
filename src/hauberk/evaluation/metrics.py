"""What the numbers mean: pure functions from per-sample outcomes to an estimate with its interval.

Throughout, ``correct`` is c_i = [f(x_i) = y_i] before any attack (an abstention is wrong) and ``survived`` is
s_i = [f(x'_i) = y_i] after the strongest attack, both boolean of shape (N,).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hauberk.errors import HauberkError
from hauberk.statistics import Interval, mean_interval, median_interval, wilson

Bools: TypeAlias = NDArray[np.bool_]
Floats: TypeAlias = NDArray[np.float64]


def accuracy(correct: ArrayLike) -> Interval:
    """Share of images classified right, with its Wilson interval."""
    return _share(_bools(correct))


def worst_case(survived: Sequence[ArrayLike]) -> Bools:
    """An image survives a suite if it survives each of its attacks: the AND over methods, shape (N,).

    Args:
        survived: one boolean array of shape (N,) for each attack, rows in the same order.

    Raises:
        HauberkError: if there is none or their lengths differ.
    """
    if not survived:
        raise HauberkError("expected at least one attack, got none", "run: hauberk attack")
    rows = [_bools(s) for s in survived]
    _check_rows(*rows)
    together: Bools = np.logical_and.reduce(rows)
    return together


def robust_accuracy(correct: ArrayLike, survived: ArrayLike) -> Interval:
    r"""Share of images that are right before and after the attack, :math:`\frac1N\sum_i c_i s_i`.

    Every image is in the denominator.  An upper bound of the true robust accuracy: a stronger attack may lower it.
    """
    c, s = _outcomes(correct, survived)
    return _share(c & s)


def robust_error(correct: ArrayLike, survived: ArrayLike) -> Interval:
    """One minus robust accuracy: the defence lecture's ASR (1), which also counts images wrong without any attack."""
    c, s = _outcomes(correct, survived)
    return _share(~(c & s))


def attack_success_rate(correct: ArrayLike, survived: ArrayLike) -> Interval:
    r"""Share of the images that were right and are no longer, :math:`\sum c_i (1 - s_i) / \sum c_i`.

    The interval's ``n`` is the number of images that were right, so that RA = clean accuracy * (1 - ASR).
    """
    c, s = _outcomes(correct, survived)
    return wilson(int((c & ~s).sum()), int(c.sum()))


def certified_accuracy(correct: ArrayLike, radius: ArrayLike, eps: float) -> Interval:
    r"""Share of images that are right and certified on the closed ball of radius eps.

    .. math:: \frac1N\sum_i c_i\,[r_i \ge \epsilon]

    Wrong and abstained images count 0, at eps = 0 as well.  A lower bound of the true robust accuracy.

    Args:
        correct: shape (N,).
        radius: certified radii, shape (N,), non-negative.
        eps: the budget, in the radii's norm.

    Raises:
        HauberkError: if a radius or eps is negative or NaN.
    """
    c, r = _certified(correct, radius)
    _radii([eps])
    return _share(c & (r >= eps))


def average_certified_radius(correct: ArrayLike, radius: ArrayLike, seed: int = 0) -> Interval:
    r"""Mean certified radius over all images, :math:`\frac1N\sum_i c_i r_i`, with a bootstrap interval.

    Wrong and abstained images count 0 (Zhai et al. 2020): an average over the right images alone rises when a model
    gives up the hard ones.

    Raises:
        HauberkError: if a radius is negative or NaN.
    """
    c, r = _certified(correct, radius)
    return mean_interval(np.where(c, r, 0.0), seed=seed)


def mean_perturbation(correct: ArrayLike, survived: ArrayLike, distance: ArrayLike, seed: int = 0) -> Interval:
    r"""Mean distance of the successful attacks on images that were right, :math:`\sum w_i d_i / \sum w_i`.

    With :math:`w_i = c_i (1 - s_i)`.  Informative for minimum-norm attacks; a budget attack sits near its budget.
    """
    return mean_interval(_broken_distances(correct, survived, distance), seed=seed)


def median_perturbation(correct: ArrayLike, survived: ArrayLike, distance: ArrayLike) -> Interval:
    """Median distance of the successful attacks on images that were right, with its exact order-statistic interval."""
    return median_interval(_broken_distances(correct, survived, distance))


def mean_perturbation_lecture(correct: ArrayLike, survived: ArrayLike, distance: ArrayLike, seed: int = 0) -> Interval:
    r"""The defence lecture's average perturbation (3) as printed, :math:`\frac1N\sum_i d_i (1 - c_i s_i)`.

    Kept to compare: it divides by all N, so a better defence gets a smaller value.
    """
    c, s = _outcomes(correct, survived)
    d = np.asarray(distance, dtype=np.float64)
    _check_rows(c, d)
    return mean_interval(np.where(c & s, 0.0, d), seed=seed)


def _broken_distances(correct: ArrayLike, survived: ArrayLike, distance: ArrayLike) -> Floats:
    c, s = _outcomes(correct, survived)
    d = np.asarray(distance, dtype=np.float64)
    _check_rows(c, d)
    chosen: Floats = d[c & ~s]
    return chosen


def _share(outcome: Bools) -> Interval:
    return wilson(int(outcome.sum()), len(outcome))


def _bools(values: ArrayLike) -> Bools:
    array = np.asarray(values)
    if array.dtype != np.bool_:
        raise HauberkError(f"expected booleans, got {array.dtype}", "compare predictions with labels first")
    return array


def _radii(values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if np.isnan(array).any() or (array < 0).any():
        raise HauberkError("expected radii of at least 0, got a negative number or NaN", "what is unknown has radius 0")
    return array


def _outcomes(correct: ArrayLike, survived: ArrayLike) -> tuple[Bools, Bools]:
    c, s = _bools(correct), _bools(survived)
    _check_rows(c, s)
    return c, s


def _certified(correct: ArrayLike, radius: ArrayLike) -> tuple[Bools, Floats]:
    c, r = _bools(correct), _radii(radius)
    _check_rows(c, r)
    return c, r


def _check_rows(*arrays: NDArray[Any]) -> None:
    shapes = {a.shape for a in arrays}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise HauberkError(f"expected arrays of one shape (N,), got {sorted(shapes)}", "join the rows by sample id")
