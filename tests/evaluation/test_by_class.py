"""Numbers by class, against counts by hand and a simulation of their coverage."""

import numpy as np
import pytest

from hauberk.errors import HauberkError
from hauberk.evaluation.by_class import UNKNOWN, balanced, by_class, mean_share
from hauberk.statistics import wilson

LABELS = [0, 0, 0, 1, 1, 15]
ANSWERS = [0, 0, 1, 1, -1, 2]


def test_shares_balanced_worst_and_confusion_by_hand() -> None:
    found = by_class(LABELS, ANSWERS)
    assert [(s.label, s.accuracy) for s in found.shares] == [(0, wilson(2, 3)), (1, wilson(1, 2)), (15, wilson(0, 1))]
    assert found.balanced.value == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert found.balanced.n == 6
    assert found.worst.label == 15
    cells = {(c.label, c.answer): c.count for c in found.confusion}
    assert cells == {(0, 0): 2, (0, 1): 1, (1, 1): 1, (1, -1): 1, (15, 2): 1}
    assert found.constant is None


def test_the_worst_of_several_classes_has_a_wider_interval() -> None:
    found = by_class(LABELS, ANSWERS)
    assert found.worst.accuracy == wilson(0, 1, confidence=1 - 0.05 / 3)
    assert found.worst.accuracy.high > found.shares[-1].accuracy.high


def test_what_is_right_may_be_said_apart_from_the_answer() -> None:
    found = by_class([0, 0, 1], [0, UNKNOWN, 0], [True, False, False])
    assert [s.accuracy.value for s in found.shares] == [0.5, 0.0]
    assert found.constant == 0  # an answer that is not on record is none
    assert by_class([0, 0, 1], [0, 0, 1]).constant is None
    assert by_class([3], [3]).constant is None  # one image says nothing about a habit


def test_one_share_keeps_its_interval_and_perfect_shares_a_width() -> None:
    only = mean_share([wilson(7, 9)])
    assert (only.low, only.high) == pytest.approx((wilson(7, 9).low, wilson(7, 9).high))
    perfect = mean_share([wilson(20, 20)] * 10)
    assert perfect.value == perfect.high == 1.0
    assert 0.9 < perfect.low < 1.0


@pytest.mark.parametrize("truth", [(0.9, 0.5, 0.1), (1.0, 0.97, 0.9), (0.02, 0.0, 0.05)])
def test_the_interval_of_the_balanced_accuracy_covers(truth) -> None:
    draws, sizes = np.random.default_rng(0), (30, 50, 20)
    hits = 0
    for _ in range(400):
        found = mean_share([wilson(int(draws.binomial(n, p)), n) for n, p in zip(sizes, truth, strict=True)])
        hits += found.low <= np.mean(truth) <= found.high
    assert hits >= 0.91 * 400  # 93 to 96 % over many more draws


@pytest.mark.parametrize(("labels", "answers"), [([], []), ([0, 1], [0]), ([-1], [0])])
def test_rows_that_say_nothing_are_refused(labels, answers) -> None:
    with pytest.raises(HauberkError):
        by_class(labels, answers)


def test_the_balanced_share_of_any_outcome_by_hand() -> None:
    held = [True, False, True, True, False, False]
    found = balanced(LABELS, held)
    assert found.value == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert found == by_class(LABELS, ANSWERS, held).balanced


def test_classes_are_uneven_beyond_one_and_a_half() -> None:
    assert not by_class([0] * 3 + [1] * 2, [0] * 5).uneven
    assert by_class([0] * 4 + [1, 1], [0] * 6).uneven
