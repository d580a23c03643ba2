"""Intervals and tests for proportions and means, exact where an exact answer exists."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from hauberk.errors import HauberkError

DRAWS = 2000
_CHUNK_ENTRIES = 4_000_000


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval.

    Args:
        value: the point estimate; NaN where nothing was observed.
        low: lower end.
        high: upper end.
        n: how many observations it rests on.
    """

    value: float
    low: float
    high: float
    n: int


# --- one proportion -------------------------------------------------------------------------------------------


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    r"""Wilson's score interval of a proportion.

    .. math:: \frac{\hat p + z^2/2n \pm z\sqrt{\hat p(1-\hat p)/n + z^2/4n^2}}{1 + z^2/n}

    Args:
        successes: how often it happened.
        n: how often it could have; with 0 the value is NaN and the interval [0, 1].
        confidence: of the two-sided interval, approximate (the certificates use Clopper-Pearson instead).

    Raises:
        HauberkError: if the counts or the confidence are impossible.

    Reference: Wilson 1927.

    Example:
        >>> from hauberk.statistics import wilson
        >>> share = wilson(90, 100)
        >>> print(f"{share.value:.3f} ({share.low:.3f} to {share.high:.3f})")
        0.900 (0.826 to 0.945)
    """
    _check(successes, n, confidence)
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, 0)
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    share, shrink = successes / n, 1.0 + z * z / n
    centre = (share + z * z / (2 * n)) / shrink
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4.0 * n * n)) / shrink
    # the ends are exact at 0 and n successes; the square root alone would miss them by a rounding
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(share, low, high, n)


def clopper_pearson_lower(successes: int, n: int, alpha: float) -> float:
    r"""One-sided lower confidence bound of a proportion, exact.

    The p with :math:`P(\mathrm{Bin}(n, p) \ge k) = \alpha`, which is the alpha quantile of Beta(k, n - k + 1).

    Args:
        successes: k.
        n: trials.
        alpha: the bound exceeds the true proportion with at most this probability.

    Returns:
        0 for no success, :math:`\alpha^{1/n}` for n successes.

    Raises:
        HauberkError: if the counts or alpha are impossible.

    Reference: Clopper & Pearson 1934.

    Example:
        >>> from hauberk.statistics import clopper_pearson_lower
        >>> round(clopper_pearson_lower(990, 1000, alpha=0.001), 4)
        0.976
        >>> round(clopper_pearson_lower(1000, 1000, alpha=0.001), 4) == round(0.001 ** (1 / 1000), 4)
        True
    """
    _check(successes, n, alpha)
    if successes == 0:
        return 0.0
    if successes == n:
        return math.pow(alpha, 1.0 / n)
    return float(stats.beta.ppf(alpha, successes, n - successes + 1))


def clopper_pearson_upper(successes: int, n: int, alpha: float) -> float:
    """One-sided upper confidence bound of a proportion, exact: one minus the lower bound of the failures.

    Raises:
        HauberkError: if the counts or alpha are impossible.

    Example:
        >>> from hauberk.statistics import clopper_pearson_upper
        >>> round(clopper_pearson_upper(10, 1000, alpha=0.001), 4)
        0.024
    """
    _check(successes, n, alpha)
    if successes == n:
        return 1.0
    if successes == 0:
        return -math.expm1(math.log(alpha) / n)
    return float(stats.beta.isf(alpha, successes + 1, n - successes))


def two_sided_binomial_p(a: int, b: int) -> float:
    r"""Exact two-sided p-value of the hypothesis that both outcomes are equally likely.

    .. math:: \min\{1,\; 2\,P(\mathrm{Bin}(a+b, 1/2) \ge \max(a, b))\}

    Two-sided because the test picks the larger count itself: the one-sided value is half of what may be claimed.

    Raises:
        HauberkError: if a count is negative.

    Reference: Cohen et al. 2019, Section 3.2.2; Hung & Fithian 2019.

    Example:
        >>> from hauberk.statistics import two_sided_binomial_p
        >>> round(two_sided_binomial_p(9, 1), 5)
        0.02148
    """
    _check(a, a + b, 0.5)
    return min(1.0, 2.0 * float(stats.binom.sf(max(a, b) - 1, a + b, 0.5)))


# --- a proportion looked at again and again -------------------------------------------------------------------


def log_wealth(successes: int, n: int, p: float) -> float:
    r"""Logarithm of the Krichevsky-Trofimov mixture against Bernoulli(p), an e-process under that p.

    .. math:: W = \frac{B(A + 1/2,\; N - A + 1/2)}{B(1/2, 1/2)\; p^A (1-p)^{N-A}}

    Args:
        successes: A.
        n: N.
        p: the hypothesis, in [0, 1].

    Raises:
        HauberkError: if the counts are impossible.

    Reference: Krichevsky & Trofimov 1981.
    """
    _check(successes, n, 0.5)
    mixture = special.betaln(successes + 0.5, n - successes + 0.5) - special.betaln(0.5, 0.5)
    return float(mixture - special.xlogy(successes, p) - special.xlog1py(n - successes, -p))


def anytime_lower(successes: int, n: int, alpha: float) -> float:
    r"""A lower bound of a Bernoulli mean that holds at all sample sizes at once, so one may stop at any time.

    The smallest p not yet rejected, :math:`\min\{p : W_N(p) < 1/\alpha\}`.  By Ville's inequality the wealth of the
    true p ever reaches :math:`1/\alpha` with probability at most alpha, however often one looks and whenever one stops.

    Args:
        successes: so far.
        n: trials so far.
        alpha: probability that the bound ever exceeds the mean.

    Returns:
        the bound, rounded down.

    Raises:
        HauberkError: if the counts or alpha are impossible.

    Reference: Ville 1939; Robbins 1970.

    Example:
        >>> from hauberk.statistics import anytime_lower, clopper_pearson_lower
        >>> round(anytime_lower(990, 1000, alpha=0.001), 4), round(clopper_pearson_lower(990, 1000, alpha=0.001), 4)
        (0.968, 0.976)
    """
    _check(successes, n, alpha)
    goal = -math.log(alpha)
    if successes == 0 or log_wealth(successes, n, 0.0) < goal:
        return 0.0
    # the wealth falls on (0, A/N] and is at most 1 at A/N, so there is one crossing
    root = float(optimize.brentq(lambda p: log_wealth(successes, n, p) - goal, 1e-300, successes / n, xtol=1e-15))
    while root > 0.0 and log_wealth(successes, n, root) < goal:
        root = max(0.0, root * (1.0 - 1e-14) - 1e-15)
    return root


# --- means ----------------------------------------------------------------------------------------------------


def mean_interval(values: ArrayLike, confidence: float = 0.95, seed: int = 0, draws: int = DRAWS) -> Interval:
    """Mean with a bootstrap percentile interval.

    Args:
        values: shape (N,), finite.
        confidence: of the two-sided interval, approximate.
        seed: of the resampling.
        draws: number of resamples.

    Raises:
        HauberkError: if a value is not finite or the confidence is impossible.

    Reference: Efron & Tibshirani 1993, Chapter 13.
    """
    data = _finite(values)
    _check(0, len(data), confidence)
    if len(data) == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    means = _resampled_means(data, seed, draws)
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(float(data.mean()), float(low), float(high), len(data))


def student(values: ArrayLike, confidence: float = 0.95) -> tuple[Interval, float]:
    r"""Mean with Student's t interval, and the two-sided p-value of the hypothesis that it is 0.

    .. math:: \bar d \pm t_{n-1} \frac{s}{\sqrt n}

    Args:
        values: shape (N,), finite, for example the differences of pairs.
        confidence: of the two-sided interval, exact for normal values and approximate for many others.

    Returns:
        the interval, infinite for fewer than two values, and the p-value, then 1.  Of equal values the interval has no
        width and the p-value is that of the sign test, :math:`2^{1-n}`.

    Raises:
        HauberkError: if a value is not finite or the confidence is impossible.

    Reference: Student 1908.
    """
    data = _finite(values)
    n = len(data)
    _check(0, n, confidence)
    if n < 2:
        return Interval(float(data.mean()) if n else math.nan, -math.inf, math.inf, n), 1.0
    mean, error = float(data.mean()), float(data.std(ddof=1)) / math.sqrt(n)
    reach = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * error
    # a spread of 0 of a few coarse values is chance; that all have one sign is what is known
    alike = 1.0 if mean == 0.0 else 2.0 ** (1 - n)
    p = 2.0 * float(stats.t.sf(abs(mean) / error, n - 1)) if error > 0.0 else alike
    return Interval(mean, mean - reach, mean + reach, n), p


# --- two proportions on different samples ---------------------------------------------------------------------


def unpaired_difference(first: tuple[int, int], second: tuple[int, int], confidence: float = 0.95) -> Interval:
    r"""Difference of two independent proportions: Newcombe's interval from the two of Wilson.

    With the intervals :math:`[l_1, u_1]` and :math:`[l_2, u_2]` it is
    :math:`d - \sqrt{(p_1 - l_1)^2 + (u_2 - p_2)^2}` to :math:`d + \sqrt{(u_1 - p_1)^2 + (p_2 - l_2)^2}`.

    Args:
        first: how often it happened and how often it could have.
        second: likewise, of other samples.
        confidence: of the two-sided interval, approximate.

    Returns:
        the interval of the first proportion less the second; NaN where either has no samples.

    Raises:
        HauberkError: if the counts or the confidence are impossible.

    Reference: Newcombe 1998, method 10.
    """
    one, other = wilson(*first, confidence), wilson(*second, confidence)
    difference = one.value - other.value
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return Interval(difference, difference - below, difference + above, one.n + other.n)


# --- two proportions on the same samples ----------------------------------------------------------------------


def paired_difference(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> tuple[Interval, float]:
    r"""Difference of two proportions on the same samples: Tango's score interval, and McNemar's exact p-value.

    With b samples where only the first happened and c where only the second did, the interval holds the differences
    :math:`\Delta` whose score :math:`(b - c - n\Delta) / \sqrt{n(2q + \Delta(1 - \Delta))}` is within the normal
    quantiles, q being the likeliest probability of the second kind for that difference.

    Args:
        first: whether it happened to each sample, shape (N,).
        second: the same of the other, row i about the same sample.
        confidence: of the two-sided interval, approximate.

    Returns:
        the interval of the first proportion less the second, NaN with [-1, 1] for no samples; and the two-sided p-value
        of the hypothesis that they are equal.

    Raises:
        HauberkError: if the lengths differ or the confidence is impossible.

    Reference: Tango 1998; McNemar 1947.

    Example:
        >>> from hauberk.statistics import paired_difference
        >>> first, second = [True] * 80 + [False] * 20, [True] * 70 + [False] * 30
        >>> interval, p = paired_difference(first, second)
        >>> print(f"{interval.value:.2f} ({interval.low:.2f} to {interval.high:.2f}), p = {p:.4f}")
        0.10 (0.06 to 0.17), p = 0.0020
    """
    one, other = np.asarray(first, dtype=np.bool_).ravel(), np.asarray(second, dtype=np.bool_).ravel()
    if len(one) != len(other):
        raise HauberkError(f"expected pairs, got {len(one)} and {len(other)} values", "join them by sample id first")
    b, c, n = int((one & ~other).sum()), int((~one & other).sum()), len(one)
    _check(b, n, confidence)
    if n == 0:
        return Interval(math.nan, -1.0, 1.0, 0), 1.0
    z, value = float(stats.norm.ppf(0.5 + confidence / 2)), (b - c) / n
    # at the value the score is 0, and towards either end it rises beyond every bound
    low = -1.0 if c == n else _root(lambda d: _tango_score(b, c, n, d) - z, -1.0, value)
    high = 1.0 if b == n else _root(lambda d: _tango_score(b, c, n, d) + z, value, 1.0)
    return Interval(value, low, high, n), two_sided_binomial_p(b, c)


def _tango_score(b: int, c: int, n: int, difference: float) -> float:
    spread = difference * (1.0 - difference)
    half = (2 * n - b + c) * difference - b - c
    root = math.sqrt(max(0.0, half * half + 8.0 * n * c * spread))
    q = (root - half) / (4.0 * n)
    variance = n * (2.0 * q + spread)
    above = b - c - n * difference
    return above / math.sqrt(variance) if variance > 0.0 else math.copysign(math.inf, above)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function crosses 0; an end may be infinite there."""
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if function(middle) > 0.0 else (low, middle)
    return 0.5 * (low + high)


def holm(p: Sequence[float]) -> list[float]:
    r"""P-values of several tests, corrected so that one is below alpha by chance with at most that probability.

    .. math:: \tilde p_{(k)} = \max_{j \le k} \min\{1,\; (m - j + 1)\, p_{(j)}\}

    Args:
        p: one value for each of the m tests, which may depend on each other.

    Returns:
        the corrected values, in the same order.

    Reference: Holm 1979.

    Example:
        >>> from hauberk.statistics import holm
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = largest
    return adjusted


# --- medians --------------------------------------------------------------------------------------------------


def median_interval(values: Sequence[float] | NDArray[np.float64], confidence: float = 0.95) -> Interval:
    r"""Median with the order statistics that cover it whatever the distribution.

    The interval :math:`[x_{(r)}, x_{(n+1-r)}]` with the largest r that keeps
    :math:`2\,P(\mathrm{Bin}(n, 1/2) < r) \le 1 - c`; minus and plus infinity where n is too small for any.

    Args:
        values: shape (N,); infinity is allowed (a search that found nothing).
        confidence: c, of the two-sided interval, exact for continuous values.

    Raises:
        HauberkError: if a value is NaN or the confidence is impossible.
    """
    data = np.sort(np.asarray(values, dtype=np.float64).ravel())
    n = len(data)
    _check(0, n, confidence)
    if np.isnan(data).any():
        raise HauberkError("expected numbers for a median, got NaN", "leave out the rows without a value")
    if n == 0:
        return Interval(math.nan, -math.inf, math.inf, 0)
    rank = int(stats.binom.ppf((1 - confidence) / 2, n, 0.5))
    if stats.binom.cdf(rank, n, 0.5) <= (1 - confidence) / 2:
        rank += 1
    low, high = (float(data[rank - 1]), float(data[n - rank])) if rank >= 1 else (-math.inf, math.inf)
    return Interval(float(np.median(data)), low, high, n)


def _resampled_means(data: NDArray[np.float64], seed: int, draws: int) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK_ENTRIES // len(data))
    chunks = [
        data[generator.integers(0, len(data), (min(rows, draws - start), len(data)))].mean(1)
        for start in range(0, draws, rows)
    ]
    return np.concatenate(chunks)


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    data = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(data).all():
        raise HauberkError(
            "expected finite values for a mean, got NaN or infinity", "find and correct the rows that hold them"
        )
    return data


def _check(successes: int, n: int, level: float) -> None:
    if not 0 <= successes <= n:
        raise HauberkError(f"expected 0 <= successes <= n, got {successes} of {n}", "check the counts")
    if not 0.0 < level < 1.0:
        raise HauberkError(f"expected a probability strictly between 0 and 1, got {level}", "for example 0.05")
