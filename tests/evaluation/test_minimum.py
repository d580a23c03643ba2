"""eps50: the median of the nearest errors over several searches, with what no search found censored from above."""

import math

import numpy as np
import pytest
from scipy import stats

from hauberk.errors import HauberkError
from hauberk.evaluation.minimum import eps50, nearest_of


def test_each_image_has_the_nearest_of_all_searches() -> None:
    assert nearest_of([[1.0, math.inf], [2.0, 0.5]]).tolist() == [1.0, 0.5]
    found = eps50([True, True, True, False], [[1.0, 4.0, math.inf, 0.0], [3.0, 2.0, math.inf, 0.0]])
    assert (found.value, found.n) == (2.0, 3)  # of 1, 2 and infinity; the image that is wrong already does not count


def test_too_many_that_stand_leave_it_open_above() -> None:
    distances = np.r_[np.linspace(1.0, 2.0, 45), np.full(55, np.inf)]
    found = eps50(np.ones(100, dtype=bool), [distances])
    assert math.isinf(found.value)
    assert math.isinf(found.high)
    assert 1.0 < found.low < 2.0


def test_the_interval_covers_the_median_of_the_distances() -> None:
    generator, covered = np.random.default_rng(0), 0
    for _ in range(400):
        found = eps50(np.ones(41, dtype=bool), [generator.exponential(size=41)])
        covered += found.low <= stats.expon.median() <= found.high
    assert covered / 400 > 0.93


def test_rows_must_fit() -> None:
    with pytest.raises(HauberkError, match="same images"):
        eps50([True], [])
    with pytest.raises(HauberkError, match="same images"):
        nearest_of([[1.0], [1.0, 2.0]])
