"""Metrics: pure functions from per-sample outcomes to an estimate with its interval.

Throughout, ``correct`` is c_i = [f(x_i) = y_i] before any attack (an abstention is wrong) and ``survived`` is
s_i = [f(x'_i) = y_i] after the strongest attack, both boolean of shape (N,).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hauberk.errors import HauberkError
from hauberk.statistics import Interval, mean_interval, median_interval, wilson

Bools: TypeAlias = NDArray[np.bool_]
Floats: TypeAlias = NDArray[np.float64]


def accuracy(correct: ArrayLike) -> Interval:
    """Share of images classified right, with its Wilson interval.

    Example:
        >>> from hauberk.evaluation.metrics import accuracy
        >>> found = accuracy([True, True, True, False])
        >>> print(f"{found.value:.3f}")
        0.750
    """
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

    Example:
        >>> from hauberk.evaluation.metrics import robust_accuracy
        >>> found = robust_accuracy([True, True, True, False], survived=[True, False, True, False])
        >>> print(f"{found.value:.3f}")
        0.500
    """
    c, s = _outcomes(correct, survived)
    return _share(c & s)


def robust_error(correct: ArrayLike, survived: ArrayLike) -> Interval:
    """One minus robust accuracy; it counts images that are wrong without any attack too."""
    c, s = _outcomes(correct, survived)
    return _share(~(c & s))


def boundary_error(correct: ArrayLike, survived: ArrayLike) -> Interval:
    r"""Share of images that are right and that an attack breaks, :math:`\frac1N\sum_i c_i (1 - s_i)`.

    With the share that is wrong without any attack it adds up to the robust error, image by image:
    :math:`R_{rob} = R_{nat} + R_{bdy}` (Zhang et al. 2019, Eq. 1).  A lower bound of the true boundary error.

    Example:
        >>> from hauberk.evaluation.metrics import boundary_error
        >>> found = boundary_error([True, True, True, False], survived=[True, False, True, False])
        >>> print(f"{found.value:.3f}")
        0.250
    """
    c, s = _outcomes(correct, survived)
    return _share(c & ~s)


def attack_success_rate_lecture(survived: ArrayLike) -> Interval:
    r"""The defence lecture's attack success rate (1) as printed, :math:`\frac1N\sum_i (1 - s_i)`.

    Kept to compare: images that are wrong without any attack count as successes, and one that is wrong before and right
    after it counts as a failure, so that the lecture's robust accuracy (2), one minus this, may exceed clean accuracy.
    ``attack_success_rate`` counts only images that were right.

    Example:
        >>> from hauberk.evaluation.metrics import attack_success_rate_lecture
        >>> found = attack_success_rate_lecture([True, False, True, False])
        >>> print(f"{found.value:.3f}")
        0.500
    """
    return _share(~_bools(survived))


def attack_success_rate(correct: ArrayLike, survived: ArrayLike) -> Interval:
    r"""Share of the images that were right and are no longer, :math:`\sum c_i (1 - s_i) / \sum c_i`.

    The interval's ``n`` is the number of images that were right, so that RA = clean accuracy * (1 - ASR).

    Example:
        >>> from hauberk.evaluation.metrics import attack_success_rate
        >>> found = attack_success_rate([True, True, True, False], survived=[True, False, True, False])
        >>> print(f"{found.value:.3f}")
        0.333
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

    Example:
        >>> from hauberk.evaluation.metrics import certified_accuracy
        >>> found = certified_accuracy([True, True, True, False], radius=[0.6, 0.2, 0.0, 0.9], eps=0.5)
        >>> print(f"{found.value:.3f}")
        0.250
    """
    c, r = _certified(correct, radius)
    _radii([eps])
    return _share(c & (r >= eps))


def average_certified_radius(correct: ArrayLike, radius: ArrayLike, seed: int = 0) -> Interval:
    r"""Mean certified radius over all images, :math:`\frac1N\sum_i c_i r_i`, with a bootstrap interval.

    Wrong and abstained images count as 0 (Zhai et al. 2020): an average over only the right images rises when a model
    misclassifies the hard ones.

    Raises:
        HauberkError: if a radius is negative or NaN.

    Example:
        >>> from hauberk.evaluation.metrics import average_certified_radius
        >>> found = average_certified_radius([True, True, True, False], radius=[0.6, 0.2, 0.0, 0.9])
        >>> print(f"{found.value:.3f}")
        0.200
    """
    c, r = _certified(correct, radius)
    return mean_interval(np.where(c, r, 0.0), seed=seed)


def mean_perturbation(correct: ArrayLike, survived: ArrayLike, distance: ArrayLike, seed: int = 0) -> Interval:
    r"""Mean distance of the successful attacks on images that were right, :math:`\sum w_i d_i / \sum w_i`.

    With :math:`w_i = c_i (1 - s_i)`.  Informative for minimum-norm attacks; a budget attack sits near its budget.

    Example:
        >>> from hauberk.evaluation.metrics import mean_perturbation
        >>> right, survived = [True, True, True, False], [True, False, True, False]
        >>> found = mean_perturbation(right, survived, distance=[0.1, 0.3, 0.1, 0.0])
        >>> print(f"{found.value:.3f}")
        0.300
    """
    return mean_interval(_broken_distances(correct, survived, distance), seed=seed)


def median_perturbation(correct: ArrayLike, survived: ArrayLike, distance: ArrayLike) -> Interval:
    """Median distance of the successful attacks on images that were right, with its exact order-statistic interval."""
    return median_interval(_broken_distances(correct, survived, distance))


def mean_perturbation_lecture(survived: ArrayLike, distance: ArrayLike, seed: int = 0) -> Interval:
    r"""The defence lecture's average perturbation (3) as printed, :math:`\frac1N\sum_i d_i (1 - s_i)`.

    Kept to compare: it divides by all N, so a better defence gets a smaller value.
    """
    s, d = _bools(survived), np.asarray(distance, dtype=np.float64)
    _check_rows(s, d)
    return mean_interval(np.where(s, 0.0, d), seed=seed)


def robust_accuracy_curve(correct: ArrayLike, nearest: ArrayLike, eps: Sequence[float]) -> list[Interval]:
    r"""Robust accuracy at every budget from one minimum-norm attack.

    .. math:: \mathrm{RA}(\epsilon) = \frac1N\sum_i c_i\,[d_i > \epsilon]

    An upper bound of the true curve at each budget, as tight as the distances are small.

    Args:
        correct: shape (N,).
        nearest: distance of the nearest misclassified point found, infinite where none was; shape (N,).
        eps: budgets, in the distances' norm.

    Raises:
        HauberkError: if a distance or a budget is negative or NaN.
    """
    c, d = _certified(correct, nearest)
    return [_share(c & (d > budget)) for budget in _radii(eps)]


def median_distance(correct: ArrayLike, nearest: ArrayLike) -> Interval:
    """Median distance to the nearest misclassified point over the images that were right, failures at infinity.

    Unlike ``median_perturbation`` it cannot fall because an attack fails on the robust images.  The interval is that
    of the order statistics; value and ends are infinite where too many searches failed.

    Args:
        correct: shape (N,).
        nearest: distance of the nearest misclassified point found, infinite where none was; shape (N,).

    Raises:
        HauberkError: if a distance is negative or NaN.

    Example:
        >>> from hauberk.evaluation.metrics import median_distance
        >>> found = median_distance([True, True, True, False], nearest=[0.6, 0.2, 0.4, 0.0])
        >>> print(f"{found.value:.3f}")
        0.400
    """
    c, d = _certified(correct, nearest)
    return median_interval(d[c])


# --- two models: when does mixing them help? ------------------------------------------------------------------


@dataclass(frozen=True)
class Gap:
    """How confident a model is over a set of images.

    Args:
        mean: of the gap between the two largest probabilities, with a bootstrap interval.
        median: of that gap, with its exact order-statistic interval.
        n: how many images; with none the values are NaN.
    """

    mean: Interval
    median: Interval
    n: int


@dataclass(frozen=True)
class ConfidenceGaps:
    """The confidence gap of one model in four cases, of which Table 1 of Bai et al. 2024 compares two models'.

    Args:
        clean_right: images it gets right.
        clean_wrong: images it gets wrong.
        attacked_right: attacked images it gets right.
        attacked_wrong: attacked images it gets wrong.
    """

    clean_right: Gap
    clean_wrong: Gap
    attacked_right: Gap
    attacked_wrong: Gap


def confidence_gap(probabilities: ArrayLike, chosen: ArrayLike, seed: int = 0) -> Gap:
    r"""How far the winner leads, :math:`p_{(1)} - p_{(2)}`, over the chosen images.

    Args:
        probabilities: shape (N, K), K at least 2; rows sum to 1.
        chosen: which images, shape (N,) bool.
        seed: of the bootstrap.

    Raises:
        HauberkError: if the rows are no distributions or the lengths differ.

    Reference: Bai et al. 2024 (adaptive smoothing), Table 1.
    """
    p, picked = _distributions(probabilities), _bools(chosen)
    _check_rows(picked, p[:, 0])
    return _gap(_leads(p)[picked], seed)


def confidence_gaps(
    clean: ArrayLike, attacked: ArrayLike, labels: ArrayLike, seed: int = 0, least: ArrayLike | None = None
) -> ConfidenceGaps:
    """Confidence gaps of one model where it is right and where it is wrong, before and after an attack.

    Mixing an accurate model g with a robust model h pays where h is sure when right under attack and unsure when wrong
    on clean images: compare h's ``attacked_right`` with g's ``attacked_wrong``, and h's ``clean_wrong`` with g's
    ``clean_right``.

    Args:
        clean: probabilities at the images, (N, K).
        attacked: probabilities at the attacked images, (N, K), rows in the same order.
        labels: (N,).
        seed: of the bootstrap.
        least: the smallest lead of the label that any attack saw, (N,), where it is smaller than that of ``attacked``;
            it counts for the images that are right after the attack.

    Raises:
        HauberkError: if the rows are no distributions, the shapes differ, or a label is not among the K classes.

    Reference: Bai et al. 2024 (adaptive smoothing), Table 1.
    """
    before, after, y = _distributions(clean), _distributions(attacked), np.asarray(labels)
    _check_rows(before[:, 0], after[:, 0], y)
    kinds = before.shape[1]
    if after.shape[1] != kinds or (y < 0).any() or (y >= kinds).any():
        raise HauberkError(f"expected labels and attacked rows of {kinds} classes", "use two tables of one model")
    right, still = before.argmax(1) == y, after.argmax(1) == y
    sure, left = _leads(before), _leads(after)
    if least is not None:  # the answer of a vote may stand where a single forward pass is wrong: nothing leads there
        left = np.where(still, np.minimum(left, np.clip(np.asarray(least, dtype=np.float64), 0.0, None)), left)
    cells = ((sure, right), (sure, ~right), (left, still), (left, ~still))
    return ConfidenceGaps(*(_gap(lead[chosen], seed) for lead, chosen in cells))


def either_right(accurate_right: ArrayLike, robust_right: ArrayLike) -> Interval:
    r"""Share of images at which at least one of two models is right, :math:`\frac1N\sum_i \max(g_i, h_i)`.

    What a mix reaches if its weight is chosen image by image with the label known (Bai et al. 2024, Theorem 4.1).  With
    two classes no mix of probabilities does better; with more one can, where a class that neither model chose wins.

    Args:
        accurate_right: whether the accurate model is right, shape (N,).
        robust_right: whether the robust model is right at the same input, shape (N,).
    """
    g, h = _outcomes(accurate_right, robust_right)
    return _share(g | h)


# --- random classifiers ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RandomAccuracy:
    """Accuracy of a classifier whose answers are random at every call.

    Args:
        mean: chance that a single answer is right, with a bootstrap interval over images.
        all_right: share of images at which every one of the n answers is right; an attacker may send a point again.
        vote: share of images at which the plurality of the n answers is right; a tie counts as wrong.
    """

    mean: Interval
    all_right: Interval
    vote: Interval


def random_accuracy(predictions: ArrayLike, labels: ArrayLike, seed: int = 0) -> RandomAccuracy:
    r"""The accuracy of n fresh answers to each image, in three definitions.

    .. math::
        \frac1N\sum_i \frac1n\sum_t [f_t(x_i) = y_i], \qquad \frac1N\sum_i \prod_t [f_t(x_i) = y_i], \qquad
        \frac1N\sum_i \Bigl[\textstyle\sum_t [f_t(x_i) = y_i] > \max_{j \ne y_i} \sum_t [f_t(x_i) = j]\Bigr]

    Give it attacked points, with draws that the attack has not seen, and the clean images as a control: repeated calls
    break some images without any attack. An abstention (-1) is a wrong answer, and votes like a separate class.

    Args:
        predictions: classes, shape (N, n).
        labels: shape (N,), non-negative.
        seed: of the bootstrap.

    Raises:
        HauberkError: if the shapes do not fit, there is no draw, or a label is negative.

    Reference: the resubmission protocols of DiffHammer and DiffBreak.
    """
    drawn, y = np.asarray(predictions), np.asarray(labels)
    if drawn.ndim != 2 or drawn.shape[1] == 0:
        raise HauberkError(f"expected predictions of shape (N, n), got {drawn.shape}", "one column for each draw")
    _check_rows(drawn[:, 0], y)
    if (y < 0).any():
        raise HauberkError("expected labels of at least 0, got a negative one", "-1 is an abstention, not a label")
    right = drawn == y[:, None]
    own = right.sum(1)
    # how often each answer was given, by comparing it with all draws of its image
    votes = np.stack([(drawn == column[:, None]).sum(1) for column in drawn.T], 1)
    rival = np.where(right, 0, votes).max(1)
    return RandomAccuracy(mean_interval(right.mean(1), seed=seed), _share(own == drawn.shape[1]), _share(own > rival))


# --- checks ---------------------------------------------------------------------------------------------------


def _leads(probabilities: Floats) -> Floats:
    """The largest probability less the second, (N,)."""
    top = np.sort(probabilities, axis=1)[:, -2:]
    lead: Floats = top[:, 1] - top[:, 0]
    return lead


def _gap(lead: Floats, seed: int) -> Gap:
    return Gap(mean_interval(lead, seed=seed), median_interval(lead), len(lead))


def _distributions(values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] < 2:
        raise HauberkError(f"expected probabilities of shape (N, K), K >= 2, got {array.shape}", "one row per image")
    if not (np.isfinite(array).all() and (array >= 0).all() and np.allclose(array.sum(1), 1.0, atol=1e-3)):
        raise HauberkError("expected rows that sum to 1 without a negative number", "apply a softmax to logits first")
    return array


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
        raise HauberkError("expected radii of at least 0, got a negative number or NaN", "use 0 where none is known")
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
