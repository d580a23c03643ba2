"""The accuracy of a random classifier when the same point is sent to it several times."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from hauberk.errors import HauberkError
from hauberk.statistics import Interval, mean_interval, wilson


def repeated_accuracy(predictions: ArrayLike, labels: ArrayLike, tries: int, seed: int = 0) -> Interval:
    r"""The chance that a point is classified right in all of N independent tries, over images.

    .. math:: \frac1M\sum_i \binom{k_i}{N} \Big/ \binom{n}{N}

    With :math:`k_i` of n fresh draws right, each term is an unbiased estimate of :math:`p_i^N`: the share of the sets
    of N draws that are all right.  For N = 1 it is the mean accuracy of one draw, for N = n the share of images that
    are right in all.  An abstention (-1) is wrong.

    Args:
        predictions: classes of fresh draws, shape (M, n).
        labels: shape (M,), non-negative.
        tries: N, from 1 to n.
        seed: of the bootstrap over images; where all images agree, the interval is Wilson's.

    Raises:
        HauberkError: if the shapes do not fit, or there are fewer draws than tries.

    Reference: Lucas et al. 2023, on attackers that may query a random defence again.
    """
    drawn, y = np.asarray(predictions), np.asarray(labels)
    if drawn.ndim != 2 or y.shape != drawn.shape[:1]:
        raise HauberkError(
            f"expected predictions (M, n) and labels (M,), got {drawn.shape} and {y.shape}", "one column for each draw"
        )
    if not 1 <= tries <= drawn.shape[1]:
        raise HauberkError(
            f"{tries} tries need as many draws, got {drawn.shape[1]}", "keep at least as many draws as tries"
        )
    right = (drawn == y[:, None]).sum(1)
    chances = np.asarray(special.comb(right, tries) / special.comb(drawn.shape[1], tries))
    if len(chances) and chances.min() == chances.max() and chances[0] in (0.0, 1.0):
        return wilson(int(chances.sum()), len(chances))
    return mean_interval(chances, seed=seed)
