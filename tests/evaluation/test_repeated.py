"""Points that are sent again: the chance of N right tries against enumeration, and its estimate without bias."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from hauberk.errors import HauberkError
from hauberk.evaluation.metrics import random_accuracy
from hauberk.evaluation.repeated import repeated_accuracy


def test_it_is_the_share_of_sets_of_tries_that_are_all_right() -> None:
    drawn = np.random.default_rng(0).integers(-1, 3, (5, 7))
    labels = np.array([0, 1, 2, 0, 1])
    drawn[1] = 1
    for tries in range(1, 8):
        shares = [np.mean([all(row[list(chosen)] == y) for chosen in combinations(range(7), tries)])
                  for row, y in zip(drawn, labels, strict=True)]  # fmt: skip
        assert repeated_accuracy(drawn, labels, tries).value == pytest.approx(np.mean(shares))
    known = random_accuracy(drawn, labels)
    assert repeated_accuracy(drawn, labels, 1) == known.mean
    assert repeated_accuracy(drawn, labels, 7).value == known.all_right.value


def test_it_has_no_bias_where_the_largest_of_many_would() -> None:
    """Over all counts k of n draws with their binomial chances, the mean of the estimate is p to the N."""
    for p in (0.3, 0.8, 0.99):
        chances = stats.binom.pmf(np.arange(13), 12, p)
        rows = np.array([[0] * k + [1] * (12 - k) for k in range(13)])
        for tries in (1, 3, 10):
            each = np.array([repeated_accuracy(row[None], [0], tries).value for row in rows])
            assert float(chances @ each) == pytest.approx(p**tries)


def test_intervals_hold_where_all_images_agree() -> None:
    found = repeated_accuracy(np.zeros((20, 4), int), np.zeros(20, int), 4)
    assert (found.value, found.high) == (1.0, 1.0)
    assert 0.8 < found.low < 0.9
    assert repeated_accuracy(np.ones((20, 4), int), np.zeros(20, int), 2).high > 0.1


def test_what_does_not_fit_is_refused() -> None:
    for drawn, labels, tries in ((np.zeros((3, 4)), [0, 0, 0], 5), (np.zeros((3, 4)), [0, 0, 0], 0)):
        with pytest.raises(HauberkError, match="tries need as many draws"):
            repeated_accuracy(drawn, labels, tries)
    with pytest.raises(HauberkError, match="one column for each draw"):
        repeated_accuracy(np.zeros((3, 4)), [0, 0], 1)
