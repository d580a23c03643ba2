"""Lower confidence bounds of proportions and means beside those of ``statistics``, with the condition of each."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from hauberk.errors import HauberkError
from hauberk.statistics import clopper_pearson_lower


def randomised_lower(successes: int, n: int, alpha: float, u: float) -> float:
    r"""One-sided lower confidence bound of a proportion, exact on average over a uniform number.

    The p with :math:`P(\mathrm{Bin}(n, p) > k) + u\,P(\mathrm{Bin}(n, p) = k) = \alpha`.  It exceeds the proportion
    with probability alpha and no less, over the trials and over u: Clopper & Pearson's bound, which is that of u = 1,
    spends less than alpha because counts are whole numbers.  So this one is never smaller.

    It holds for an n that was fixed beforehand, and for one u, drawn without a look at the trials: whoever draws
    several and takes the smallest has no such bound.

    With n successes the bound would be 1 for every u up to alpha.  No noise gives a radius for that, so it is at most
    :math:`2^{-1/n}` (or Clopper & Pearson's bound, where that is larger), and only for proportions beyond that is the
    probability smaller than alpha.

    Args:
        successes: k.
        n: trials, fixed beforehand.
        alpha: the bound exceeds the true proportion with this probability.
        u: in [0, 1], drawn uniformly and once.

    Returns:
        the bound, rounded down.

    Raises:
        HauberkError: if the counts, alpha or u are impossible.

    Reference: Stevens 1950; for smoothing Voracek 2024.

    Example:
        >>> from hauberk.confidence import randomised_lower
        >>> [round(randomised_lower(990, 1000, alpha=0.001, u=u), 4) for u in (0.1, 1.0)]
        [0.9773, 0.976]
    """
    if not 0.0 <= u <= 1.0:
        raise HauberkError(f"expected a number from 0 to 1, got {u}", "draw it once, uniformly from [0, 1]")
    exact = clopper_pearson_lower(successes, n, alpha)
    if n == 0:
        return exact
    if successes == n:
        return max(exact, math.pow(alpha / u if u > 2.0 * alpha else 0.5, 1.0 / n))
    if successes == 0:
        return 0.0 if u >= alpha else -math.expm1((math.log1p(-alpha) - math.log1p(-u)) / n)

    def excess(p: float) -> float:
        more = float(special.betainc(successes + 1, n - successes, p))
        return (1.0 - u) * more + u * float(special.betainc(successes, n - successes + 1, p)) - alpha

    high = min(1.0, clopper_pearson_lower(successes + 1, n, alpha) * (1.0 + 1e-9))
    root = float(optimize.brentq(excess, exact * (1.0 - 1e-9), high, xtol=1e-300, rtol=1e-15))
    while excess(root) > 0.0:
        root *= 1.0 - 1e-15
    return max(exact, root)


# --- means of bounded numbers -----------------------------------------------------------------------------------


def hoeffding_lower(means: NDArray[np.float64], n: int, width: float, alpha: float) -> NDArray[np.float64]:
    r"""Lower confidence bounds of means of numbers in intervals of a width, :math:`\bar x - w\sqrt{\ln(1/\alpha)/2n}`.

    Args:
        means: of n numbers each.
        n: how many.
        width: of the interval that they lie in.
        alpha: each bound exceeds its expectation with at most this probability.

    Reference: Hoeffding 1963, Theorem 2.

    Example:
        >>> import numpy as np
        >>> from hauberk.confidence import hoeffding_lower
        >>> hoeffding_lower(np.array([0.8]), n=1000, width=1.0, alpha=0.001).round(4)
        array([0.7412])
    """
    return means - width * math.sqrt(-math.log(alpha) / (2.0 * n))


def bernstein_lower(
    means: NDArray[np.float64], variances: NDArray[np.float64], n: int, width: float, alpha: float
) -> NDArray[np.float64]:
    r"""Lower confidence bounds of means of numbers in intervals of a width w, from their unbiased variances V too.

    .. math:: \bar x - \sqrt{2 V \ln(2/\alpha)/n} - 7 w \ln(2/\alpha) / 3(n-1)

    Args:
        means: of n numbers each, n >= 2.
        variances: of the same numbers.
        n: how many.
        width: of the interval that they lie in.
        alpha: each bound exceeds its expectation with at most this probability.

    Reference: Maurer & Pontil 2009, Theorem 4.

    Example:
        >>> import numpy as np
        >>> from hauberk.confidence import bernstein_lower
        >>> bernstein_lower(np.array([0.8]), np.array([0.01]), n=1000, width=1.0, alpha=0.001).round(4)
        array([0.7699])
    """
    log = math.log(2.0 / alpha)
    return means - np.sqrt(2.0 * log / n * variances) - 7.0 * width * log / (3.0 * (n - 1))
