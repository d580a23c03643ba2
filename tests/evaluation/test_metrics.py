import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hauberk.errors import HauberkError
from hauberk.evaluation import metrics
from hauberk.statistics import Interval

# Six images by hand: right and survives, right and broken (twice), wrong already, abstains, right and survives.
CORRECT = np.array([True, True, True, False, False, True])
SURVIVED = np.array([True, False, False, False, True, True])
DISTANCE = np.array([0.3, 0.1, 0.2, 0.0, 0.25, 0.3])
RADIUS = np.array([0.5, 0.05, 0.0, 0.4, 0.0, 0.25])


def test_six_points_by_hand() -> None:
    assert metrics.accuracy(CORRECT).value == 4 / 6
    assert metrics.robust_accuracy(CORRECT, SURVIVED).value == 2 / 6
    assert metrics.robust_error(CORRECT, SURVIVED).value == 4 / 6
    assert metrics.boundary_error(CORRECT, SURVIVED).value == 2 / 6
    rate = metrics.attack_success_rate(CORRECT, SURVIVED)
    assert (rate.value, rate.n) == (2 / 4, 4)
    assert metrics.mean_perturbation(CORRECT, SURVIVED, DISTANCE).value == pytest.approx(0.15)
    assert metrics.median_perturbation(CORRECT, SURVIVED, DISTANCE).value == pytest.approx(0.15)
    # the lecture's equations as printed do not look at the image before the attack: the fifth one counts as a failure
    assert metrics.attack_success_rate_lecture(SURVIVED[:5]).value == 3 / 5
    assert metrics.mean_perturbation_lecture(SURVIVED, DISTANCE).value == pytest.approx((0.1 + 0.2 + 0.0) / 6)
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


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(arrays(bool, n), arrays(bool, n))))
def test_robust_error_is_natural_plus_boundary_error_for_each_image(rows: tuple[np.ndarray, np.ndarray]) -> None:
    def count(of: Interval) -> int:
        return round(of.value * len(rows[0]))

    boundary, natural = count(metrics.boundary_error(*rows)), len(rows[0]) - int(rows[0].sum())
    assert count(metrics.robust_error(*rows)) == natural + boundary
    for c, s in zip(*([row[i : i + 1] for i in range(len(rows[0]))] for row in rows), strict=True):
        assert metrics.robust_error(c, s).value == (1 - float(c[0])) + metrics.boundary_error(c, s).value


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


# --- curves ---------------------------------------------------------------------------------------------------

# right and never broken, broken at 0.1 and 0.2, wrong already, abstains (so its distance is 0), broken at 0.4
NEAREST = np.array([math.inf, 0.1, 0.2, 0.0, 0.0, 0.4])


def test_the_curve_of_six_points_by_hand() -> None:
    curve = metrics.robust_accuracy_curve(CORRECT, NEAREST, [0.0, 0.1, 0.15, 0.2, 0.4, 100.0])
    assert [point.value for point in curve] == [4 / 6, 3 / 6, 3 / 6, 2 / 6, 1 / 6, 1 / 6]
    assert all(point.n == 6 for point in curve)
    median = metrics.median_distance(CORRECT, NEAREST)
    assert (median.value, median.n) == (pytest.approx(0.3), 4)
    assert median.high == math.inf
    lost = metrics.median_distance(np.ones(3, dtype=bool), [0.1, math.inf, math.inf])
    assert lost.value == math.inf


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(arrays(bool, n), arrays(float, n, elements=st.floats(0, 2)))))
def test_the_curve_is_robust_accuracy_at_each_budget_and_falls(rows: tuple[np.ndarray, np.ndarray]) -> None:
    correct, nearest = rows
    budgets = [0.0, 0.3, 1.0, 2.0]
    curve = metrics.robust_accuracy_curve(correct, nearest, budgets)
    for point, eps in zip(curve, budgets, strict=True):
        assert point == metrics.robust_accuracy(correct, nearest > eps)
        rate = metrics.attack_success_rate(correct, nearest > eps)
        if rate.n:
            assert point.value == pytest.approx(metrics.accuracy(correct).value * (1 - rate.value))
    assert all(a.value >= b.value for a, b in itertools.pairwise(curve))
    assert curve[-1].value == 0.0


# --- two models -----------------------------------------------------------------------------------------------

CLEAN = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.5, 0.1, 0.4], [0.25, 0.3, 0.45]])
ATTACKED = np.array([[0.5, 0.4, 0.1], [0.8, 0.1, 0.1], [0.1, 0.2, 0.7], [0.4, 0.35, 0.25]])
LABELS = np.array([0, 1, 2, 2])


def test_four_cells_of_confidence_by_hand() -> None:
    gaps = metrics.confidence_gaps(CLEAN, ATTACKED, LABELS)
    cells = {name: (cell.n, cell.mean.value, cell.median.value) for name, cell in vars(gaps).items()}
    assert cells == {
        "clean_right": (3, pytest.approx((0.5 + 0.3 + 0.15) / 3), pytest.approx(0.3)),
        "clean_wrong": (1, pytest.approx(0.1), pytest.approx(0.1)),
        "attacked_right": (2, pytest.approx((0.1 + 0.5) / 2), pytest.approx(0.3)),
        "attacked_wrong": (2, pytest.approx((0.7 + 0.05) / 2), pytest.approx(0.375)),
    }


def test_the_smallest_lead_that_any_attack_saw_counts_for_the_images_that_stand() -> None:
    plain = metrics.confidence_gaps(CLEAN, ATTACKED, LABELS)
    still = ATTACKED.argmax(1) == LABELS
    gaps = metrics.confidence_gaps(CLEAN, ATTACKED, LABELS, least=np.where(still, [0.02, 0.9, 0.3, 0.9], -0.5))
    leads = np.sort(ATTACKED, 1)[still, -1] - np.sort(ATTACKED, 1)[still, -2]
    expected = np.minimum(leads, np.array([0.02, 0.9, 0.3, 0.9])[still])
    assert gaps.attacked_right.mean.value == pytest.approx(expected.mean())
    assert gaps.attacked_right.mean.value < plain.attacked_right.mean.value
    assert (gaps.attacked_wrong, gaps.clean_right) == (plain.attacked_wrong, plain.clean_right)
    voted = metrics.confidence_gaps(CLEAN, ATTACKED, LABELS, least=[-0.1] * 4)  # a vote that stands, a pass that fell
    assert voted.attacked_right.mean.value == 0.0


def test_an_empty_cell_has_no_value() -> None:
    gap = metrics.confidence_gap(CLEAN, np.zeros(4, dtype=bool))
    assert gap.n == 0
    assert math.isnan(gap.mean.value)
    assert math.isnan(gap.median.value)


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(arrays(bool, n), arrays(bool, n))))
def test_either_right_counts_the_union(rows: tuple[np.ndarray, np.ndarray]) -> None:
    g, h = rows
    share = metrics.either_right(g, h).value
    assert share == pytest.approx(g.mean() + h.mean() - (g & h).mean())


def test_with_two_classes_no_mix_of_probabilities_passes_the_ceiling() -> None:
    generator = np.random.default_rng(0)
    g, h = (np.stack([p, 1 - p], 1) for p in generator.random((2, 50)))
    labels = generator.integers(0, 2, 50)
    ceiling = metrics.either_right(g.argmax(1) == labels, h.argmax(1) == labels).value
    mixes = [((1 - a) * g + a * h).argmax(1) == labels for a in np.linspace(0, 1, 21)]
    assert np.logical_or.reduce(mixes).mean() == pytest.approx(ceiling)


# --- random classifiers ---------------------------------------------------------------------------------------


def test_random_answers_by_hand() -> None:
    predictions = np.array([
        [3, 3, 3, 3],  # always right
        [3, 3, 3, 1],  # right in three of four
        [3, 3, 1, 1],  # a tie is wrong
        [3, 3, -1, -1],  # abstentions vote together
        [3, -1, 0, 3],  # a plurality without a majority
        [-1, -1, -1, -1],
    ])  # fmt: skip
    found = metrics.random_accuracy(predictions, np.full(6, 3))
    assert found.mean.value == pytest.approx((4 + 3 + 2 + 2 + 2 + 0) / 24)
    assert found.all_right.value == 1 / 6
    assert found.vote.value == 3 / 6
    assert found.mean.n == found.vote.n == 6


@given(arrays(np.int64, st.tuples(st.integers(1, 12), st.integers(1, 6)), elements=st.integers(-1, 3)))
def test_random_accuracy_counts_as_a_counter_does(predictions: np.ndarray) -> None:
    labels = np.arange(len(predictions)) % 3
    found = metrics.random_accuracy(predictions, labels)
    votes = [Counter(row.tolist()) for row in predictions]
    won = [
        vote[label] > max((count for answer, count in vote.items() if answer != label), default=0)
        for vote, label in zip(votes, labels.tolist(), strict=True)
    ]
    assert found.vote.value == pytest.approx(np.mean(won))
    assert found.all_right.value <= min(found.mean.value, found.vote.value) + 1e-12
    assert found.mean.value == pytest.approx(np.mean(predictions == labels[:, None]))


def test_one_draw_is_plain_accuracy() -> None:
    found = metrics.random_accuracy([[0], [1], [-1]], [0, 0, 0])
    assert found.all_right == found.vote == metrics.accuracy(np.array([True, False, False]))


@pytest.mark.parametrize("call", [
    lambda: metrics.robust_accuracy_curve([True], [math.nan], [0.1]),
    lambda: metrics.robust_accuracy_curve([True], [0.1], [-0.1]),
    lambda: metrics.median_distance([True], [-0.1]),
    lambda: metrics.confidence_gap([[1.0]], [True]),
    lambda: metrics.confidence_gap([[2.0, -1.0]], [True]),
    lambda: metrics.confidence_gap([[3.0, 1.0]], [True]),
    lambda: metrics.confidence_gaps(CLEAN, ATTACKED[:, :2] / ATTACKED[:, :2].sum(1, keepdims=True), LABELS),
    lambda: metrics.confidence_gaps(CLEAN, ATTACKED, [0, 1, 2, 3]),
    lambda: metrics.either_right([True], [True, False]),
    lambda: metrics.random_accuracy([0, 1], [0, 1]),
    lambda: metrics.random_accuracy(np.zeros((2, 0)), [0, 1]),
    lambda: metrics.random_accuracy([[0], [1]], [0]),
    lambda: metrics.random_accuracy([[-1]], [-1]),
])  # fmt: skip
def test_models_and_draws_that_make_no_sense_are_refused(call) -> None:
    with pytest.raises(HauberkError):
        call()
