"""Whether printed radii can come from the number of votes and the failure probability that a log states."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from hauberk.certification_log import CertificationLog
from hauberk.evaluation.metrics import Bools, Floats
from hauberk.noises import Noise

ALPHAS = (0.01, 0.001, 0.0005, 0.0001)  # of the published logs
SLACK = 1e-9  # relative, for the last bits of another library's quantiles


@dataclass(frozen=True)
class Ladder:
    """How the radii of a log agree with its stated n and alpha.

    Args:
        n: stated votes.
        alpha: stated failure probability.
        most: the largest radius that n votes prove.
        radii: number of positive radii of the log.
        beyond: how many of these radii are larger than ``most``.
        apart: how many of these radii come from no count of votes, including those larger than ``most``.
        fitting: the usual alphas under which every radius comes from a count of votes.
    """

    n: int
    alpha: float
    most: float
    radii: int
    beyond: int
    apart: int
    fitting: tuple[float, ...]


def ladder(log: CertificationLog, noise: Noise, n: int, alpha: float) -> Ladder:
    r"""Compare the radii of a log with the radii that n votes can give at level alpha.

    From k votes for the class CERTIFY proves :math:`\sigma F^{-1}(\text{Beta}^{-1}(\alpha; k, n-k+1))`, at most
    :math:`\sigma F^{-1}(\alpha^{1/n})`.  The values just below differ by more than a printed digit, so that another
    alpha is detected.  Published logs are rounded to the nearest digit.  This library rounds down and writes no times,
    so a log without times may have been rounded either way.

    Args:
        log: a log with one-sided Clopper-Pearson bounds of the chosen class, as in Cohen et al. 2019.
        noise: the stated noise.
        n: the stated number of votes.
        alpha: the stated failure probability.
    """
    positive = log.radii > 0
    pairs, counts = np.unique(np.stack([log.radii, log.places])[:, positive], axis=1, return_counts=True)
    timed = bool((log.seconds > 0).any())
    low, high = pairs[0] - 0.5 * pairs[1], pairs[0] + (0.5 if timed else 1.0) * pairs[1]
    most = float(_proved(noise, n, alpha, np.array([n]))[0])
    apart = _apart(noise, n, alpha, low, high)
    return Ladder(
        n, alpha, most, int(counts.sum()), int(counts[low > most * (1 + SLACK)].sum()), int(counts[apart].sum()),
        tuple(level for level in ALPHAS if not _apart(noise, n, level, low, high).any()),
    )  # fmt: skip


def _apart(noise: Noise, n: int, alpha: float, low: Floats, high: Floats) -> Bools:
    """Whether no count of votes proves a radius from ``low`` to ``high``."""
    reached = np.array([noise.probability(r) for r in low * (1 - SLACK)])
    # the least count whose bound is at least p: under p that many votes or more have probability at most alpha
    least = stats.binom.isf(alpha, n, np.minimum(1.0, reached + noise.slack)).astype(np.int64) + 1
    proved = _proved(noise, n, alpha, np.minimum(least, n))
    missed: Bools = (least > n) | (proved > high * (1 + SLACK))
    return missed


def _proved(noise: Noise, n: int, alpha: float, votes: NDArray[np.int64]) -> Floats:
    """The radius that each count of votes proves."""
    lower = np.where(votes == n, alpha ** (1.0 / n), stats.beta.ppf(alpha, votes, n - votes + 1)) - noise.slack
    return np.array([noise.radius(p) for p in np.maximum(lower, 0.0).tolist()])
