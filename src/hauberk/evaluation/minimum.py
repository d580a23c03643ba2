"""How far away errors are: the smallest distance of each image over several searches, and its median."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hauberk.errors import HauberkError
from hauberk.evaluation.metrics import median_distance
from hauberk.statistics import Interval


def nearest_of(distances: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """The smallest of several distances of each image, infinite where no search found an error; shape (N,).

    Args:
        distances: one array of shape (N,) for each search, rows in the same order.

    Raises:
        HauberkError: if there is none or their lengths differ.
    """
    found = [np.asarray(d, dtype=np.float64) for d in distances]
    if not found or len({d.shape for d in found}) > 1 or found[0].ndim != 1:
        raise HauberkError("expected distances of the same images from each search", "join the rows by sample id")
    return np.asarray(np.minimum.reduce(found))


def eps50(correct: ArrayLike, distances: Sequence[ArrayLike]) -> Interval:
    r"""The budget within which half of the images that the model gets right are broken.

    .. math:: \epsilon_{50} = \mathrm{median}_{i : c_i = 1} \min_a d_{a,i}

    An attack finds an upper bound of each distance, so this is an upper bound of the median of the true ones.  Images
    that no search broke count as infinitely far (they are censored from above): value and ends of the interval are
    infinite where too many of them stand.  The interval is that of the order statistics (binomial), exact for
    continuous distances; it covers the choice of images, not the weakness of the search.

    Args:
        correct: whether each image is right before any attack, shape (N,).
        distances: of the nearest misclassified point, one array of shape (N,) for each search; infinite where none.

    Raises:
        HauberkError: if a distance is negative or NaN, or the rows do not fit.
    """
    return median_distance(correct, nearest_of(distances))
