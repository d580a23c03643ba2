import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hauberk.errors import HauberkError
from hauberk.evaluation import metrics

# Six images by hand: right and survives, right and broken (twice), wrong already, abstains, right and survives.
CORRECT = np.array([True, True, True, False, False, True])
SURVIVED = np.array([True, False, False, False, True, True])
DISTANCE = np.array([0.3, 0.1, 0.2, 0.0, 0.25, 0.3])
RADIUS = np.array([0.5, 0.05, 0.0, 0.4, 0.0, 0.25])


def test_six_points_by_hand() -> None:
    assert metrics.accuracy(CORRECT).value == 4 / 6
    assert metrics.robust_accuracy(CORRECT, SURVIVED).value == 2 / 6
    assert metrics.robust_error(CORRECT, SURVIVED).value == 4 / 6
    rate = metrics.attack_success_rate(CORRECT, SURVIVED)
    assert (rate.value, rate.n) == (2 / 4, 4)
    assert metrics.mean_perturbation(CORRECT, SURVIVED, DISTANCE).value == pytest.approx(0.15)
    assert metrics.median_perturbation(CORRECT, SURVIVED, DISTANCE).value == pytest.approx(0.15)
    assert metrics.mean_perturbation_lecture(CORRECT, SURVIVED, DISTANCE).value == pytest.approx((0.1 + 0.2 + 0.25) / 6)
    assert metrics.average_certified_radius(CORRECT, RADIUS).value == pytest.approx(0.8 / 6)


@pytest.mark.parametrize(
    ("eps", "count"), [(0.0, 4), (0.05, 3), (0.0500001, 2), (0.25, 2), (0.4, 1), (0.5, 1), (0.6, 0)]
)
def test_certified_accuracy_takes_the_closed_ball_and_never_a_wrong_image(eps: float, count: int) -> None:
    assert metrics.certified_accuracy(CORRECT, RADIUS, eps).value == count / 6


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(arrays(bool, n), arrays(bool, n))))
def test_robust_accuracy_is_clean_times_one_minus_success(rows: tuple[np.ndarray, np.ndarray]) -> None:
    correct, survived = rows
    robust = metrics.robust_accuracy(correct, survived)
    assert robust.value == pytest.approx(1 - metrics.robust_error(correct, survived).value)
    rate = metrics.attack_success_rate(correct, survived)
    if rate.n:
        assert robust.value == pytest.approx(metrics.accuracy(correct).value * (1 - rate.value))
    assert robust.low <= robust.value <= robust.high


@given(st.lists(arrays(bool, 12), min_size=1, max_size=4))
def test_more_attacks_never_raise_robust_accuracy(attacks: list[np.ndarray]) -> None:
    correct = np.arange(12) % 3 > 0
    values = [
        metrics.robust_accuracy(correct, metrics.worst_case(attacks[: k + 1])).value for k in range(len(attacks))
    ]
    assert all(a >= b for a, b in itertools.pairwise(values))


def test_nothing_attacked_yet() -> None:
    wrong = np.zeros(3, dtype=bool)
    assert math.isnan(metrics.attack_success_rate(wrong, wrong).value)
    assert math.isnan(metrics.mean_perturbation(wrong, wrong, np.zeros(3)).value)


@pytest.mark.parametrize("call", [
    lambda: metrics.accuracy([1, 0]),
    lambda: metrics.robust_accuracy([True], [True, False]),
    lambda: metrics.certified_accuracy([True], [math.nan], 0.1),
    lambda: metrics.certified_accuracy([True], [-0.1], 0.1),
    lambda: metrics.certified_accuracy([True], [0.1], -0.1),
    lambda: metrics.worst_case([]),
])
def test_what_makes_no_sense_is_refused(call) -> None:
    with pytest.raises(HauberkError):
        call()
