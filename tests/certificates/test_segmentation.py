"""Segmentation: Holm over pixels, by hand, at both ends, and the family-wise error of a simulation."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from hauberk.certificates.mmcert import Modality, least_share
from hauberk.certificates.segmentation import certified_pixels
from hauberk.classifier import ABSTAIN
from hauberk.errors import HauberkError

SOME = (Modality(20, 2, 1), Modality(12, 1, 1))
N = 200


def votes(own: list[int], n: int = N) -> np.ndarray:
    return np.array([[n - v, v, 0] for v in own])


def test_it_stops_at_the_first_failure():
    """The middle one of three fails at alpha / 2, so that the last is not looked at, though it is below alpha."""
    share = float(least_share(SOME))
    first = 190
    second = next(v for v in range(N) if stats.binom.sf(v - 1, N, share) <= 0.05)  # passes alone, not at 0.05 / 2
    assert 0.025 < stats.binom.sf(second - 1, N, share) <= 0.05
    found = certified_pixels(votes([0, 0, 0], 5) + np.array([0, 9, 0]), votes([first, second, second]), N, 0.05, SOME)
    assert found.prediction.tolist() == [1, ABSTAIN, ABSTAIN]
    alone = certified_pixels(votes([9], 9), votes([second]), N, 0.05, SOME)
    assert alone.prediction.tolist() == [1]
    assert alone.p_value[0] == pytest.approx(stats.binomtest(second, N, share, alternative="greater").pvalue)
    pair = certified_pixels(votes([9, 9], 9), votes([first, second]), N, 0.05, SOME)
    assert pair.prediction.tolist() == [1, 1]  # the last of the ranks is held against alpha itself


def test_all_and_none_of_the_pixels():
    every = certified_pixels(votes([9] * 50, 9), votes([N] * 50), N, 0.001, SOME)
    assert (every.prediction == 1).all()
    none = certified_pixels(votes([9] * 50, 9), votes([N // 2] * 50), N, 0.001, SOME)
    assert (none.prediction == ABSTAIN).all() and (none.chosen == 1).all()
    hopeless = certified_pixels(votes([9] * 3, 9), votes([N] * 3), N, 0.001, (Modality(3, 3, 1),))
    assert (hopeless.prediction == ABSTAIN).all()
    empty = certified_pixels(np.zeros((0, 2), int), np.zeros((0, 2), int), N, 0.001, SOME)
    assert empty.prediction.shape == (0,)


def test_the_class_is_that_of_the_first_votes():
    found = certified_pixels(votes([0], 9), votes([N]), N, 0.001, SOME)
    assert found.chosen.tolist() == [0] and found.prediction.tolist() == [ABSTAIN]


@pytest.mark.parametrize("shared", [True, False])
def test_the_family_wise_error_is_at_most_alpha(shared):
    """Pixels at the edge of what is certified, whose votes move together or apart: seldom any is certified."""
    before = math.comb(20, 2) * 12
    share = float(least_share(SOME) - Fraction(1, before))  # the largest share that does not survive
    generator, runs, pixels, alpha = np.random.default_rng(0), 500, 20, 0.1
    wrong = 0
    for _ in range(runs):
        if shared:
            draws = (generator.random(N)[:, None] < share).sum(0).repeat(pixels)
        else:
            draws = generator.binomial(N, share, pixels)
        sure = np.full(5, N)  # others are certified for certain, and so are out of the way
        own = np.concatenate([draws, sure])
        found = certified_pixels(votes([9] * len(own), 9), votes(own.tolist()), N, alpha, SOME)
        assert (found.prediction[pixels:] == 1).all()
        wrong += bool((found.prediction[:pixels] != ABSTAIN).any())
    assert wrong <= alpha * runs + 3 * math.sqrt(alpha * (1 - alpha) * runs)
    assert shared or wrong > 0.4 * alpha * runs  # it is not idle


@pytest.mark.parametrize(
    "counts", [np.array([[N + 1, 0]]), np.array([[-1, 3]]), np.array([[0.5, 1.0]]), np.array([3, 4]), np.array([[3]])]
)
def test_counts_that_are_none_are_refused(counts):
    with pytest.raises(HauberkError, match="tables of votes"):
        certified_pixels(counts, counts, N, 0.001, SOME)
