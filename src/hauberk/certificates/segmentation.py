r"""Which pixels of a segmentation are certified, from the votes over sub-samples for each of them (MMCert, Holm).

For one pixel the claim "its class survives the edits" holds once at least a share :math:`p^*` of all sub-samples votes
for the class (``mmcert.least_share``).  The opposite claim has the p-value

.. math:: P[\mathrm{Bin}(n, p^*) \ge n_A],

and Holm's procedure takes the pixels from the smallest p-value on and stops at the first that fails.

The error probability covers the following:

- *Pixels*: with probability :math:`1 - \alpha` the claim holds for every certified pixel of the image.  One sub-sample
  votes for all pixels at once; Holm's procedure needs no independence.
- *Classes*: none.  A pixel's class is chosen on votes of its own, and the rest of the sub-samples is one rival.
- *Edits*: one vector of edits, fixed beforehand.  Several of them are several tests.
- *Samples*: each image has its own alpha.  For a claim about all m images of a set together, use alpha / m.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from hauberk.certificates.mmcert import Modality, least_share
from hauberk.classifier import ABSTAIN
from hauberk.errors import HauberkError
from hauberk.statistics import holm


@dataclass(frozen=True)
class CertifiedPixels:
    """A segmentation of P pixels.

    Args:
        prediction: class of each pixel, (P,) int64, -1 where it is not certified.
        chosen: class with most of the first votes, (P,) int64.
        p_value: that this class does not survive the edits, corrected by Holm, (P,) float64.
    """

    prediction: NDArray[np.int64]
    chosen: NDArray[np.int64]
    p_value: NDArray[np.float64]


def certified_pixels(
    counts0: ArrayLike, counts: ArrayLike, n: int, alpha: float, modalities: Sequence[Modality]
) -> CertifiedPixels:
    """Certify the pixels of one image, with one error probability for all of them.

    Args:
        counts0: votes that choose each pixel's class, (P, K).
        counts: other votes, (P, K); a pixel's sum is n minus the draws without a vote.
        n: votes of the second sample, fixed beforehand.
        alpha: the probability that any pixel is certified and does not survive the edits.
        modalities: with the edits.

    Raises:
        HauberkError: on counts that are not valid numbers of votes.
    """
    first, second = np.asarray(counts0), np.asarray(counts)
    _check(first, second, n)
    chosen = first.argmax(1).astype(np.int64)
    # the largest share that fails is below this one, which rounding up makes no smaller; no number of votes shows a 1
    share = min(1.0, math.nextafter(float(least_share(modalities)), math.inf))
    values = stats.binom.sf(second[np.arange(len(chosen)), chosen] - 1, n, share)
    corrected = np.asarray(holm(values.tolist()))
    return CertifiedPixels(np.where(corrected <= alpha, chosen, ABSTAIN), chosen, corrected)


def _check(first: NDArray[np.int64], second: NDArray[np.int64], n: int) -> None:
    """Raise on counts that cannot be those of n votes."""
    fits = first.ndim == 2 and first.shape == second.shape and first.shape[1] > 1
    whole = all(np.issubdtype(c.dtype, np.integer) and (c >= 0).all() for c in (first, second))
    if not (fits and whole and (second.sum(1) <= n).all()):
        raise HauberkError(
            f"expected two tables of votes, pixels by classes, of at most {n} votes for each pixel, got shapes "
            f"{first.shape} and {second.shape}",
            "count the hard votes of every pixel, in integers",
        )
