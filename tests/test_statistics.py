import itertools
import math

import numpy as np
import pytest
from scipy import stats

from hauberk.errors import HauberkError
from hauberk.statistics import (
    anytime_lower,
    clopper_pearson_lower,
    clopper_pearson_upper,
    holm,
    log_wealth,
    mean_interval,
    median_interval,
    paired_difference,
    student,
    two_sided_binomial_p,
    unpaired_difference,
    wilson,
)

GRID = np.concatenate([np.linspace(0.003, 0.997, 61), [1e-6, 1e-3, 0.5, 0.9, 0.999, 1 - 1e-6]])


def pmf(n: int, p: float) -> np.ndarray:
    """The binomial distribution from logarithms of factorials: shares no code with scipy's Beta quantiles."""
    k = np.arange(n + 1)
    choose = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in k]
    return np.exp(np.array(choose) + k * math.log(p) + (n - k) * math.log1p(-p))


@pytest.mark.parametrize("n", [1, 2, 5, 17, 60, 200])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3])
def test_clopper_pearson_covers_exactly(n: int, alpha: float) -> None:
    lower = np.array([clopper_pearson_lower(k, n, alpha) for k in range(n + 1)])
    upper = np.array([clopper_pearson_upper(k, n, alpha) for k in range(n + 1)])
    for p in GRID:
        probability = pmf(n, p)
        assert probability[lower <= p].sum() >= 1 - alpha - 1e-12
        assert probability[upper >= p].sum() >= 1 - alpha - 1e-12


@pytest.mark.parametrize(("k", "n"), [(1, 10), (7, 10), (99, 100), (50, 200)])
def test_clopper_pearson_is_tight(k: int, n: int) -> None:
    bound = clopper_pearson_lower(k, n, 0.01)
    assert pmf(n, bound)[k:].sum() == pytest.approx(0.01, rel=1e-9)
    assert clopper_pearson_upper(n - k, n, 0.01) == pytest.approx(1 - bound, rel=1e-12)


def test_clopper_pearson_edges() -> None:
    assert clopper_pearson_lower(0, 100, 0.001) == 0.0
    assert clopper_pearson_lower(0, 0, 0.001) == 0.0
    assert clopper_pearson_upper(100, 100, 0.001) == 1.0
    assert clopper_pearson_upper(0, 0, 0.001) == 1.0
    for n in (1, 100, 100_000):
        assert clopper_pearson_lower(n, n, 0.001) == 0.001 ** (1 / n)
        assert clopper_pearson_upper(0, n, 0.001) == pytest.approx(1 - 0.001 ** (1 / n), rel=1e-9)


def test_clopper_pearson_rises_with_the_successes() -> None:
    bounds = [clopper_pearson_lower(k, 1000, 0.001) for k in range(1001)]
    assert np.all(np.diff(bounds) > 0)
    assert all(b < k / 1000 for k, b in enumerate(bounds) if k)


def test_wilson_solves_the_score_equation() -> None:
    z = stats.norm.ppf(0.975)
    for k, n in [(0, 10), (3, 10), (10, 10), (512, 10_000)]:
        interval = wilson(k, n)
        assert (interval.value, interval.n) == (k / n, n)
        for end in (interval.low, interval.high):
            if 0 < end < 1:
                assert (k / n - end) ** 2 == pytest.approx(z * z * end * (1 - end) / n, rel=1e-9)
    assert wilson(0, 10).low == 0.0
    assert wilson(10, 10).high == 1.0


def test_wilson_of_nothing() -> None:
    empty = wilson(0, 0)
    assert math.isnan(empty.value)
    assert (empty.low, empty.high, empty.n) == (0.0, 1.0, 0)


@pytest.mark.parametrize("call", [
    lambda: wilson(3, 2), lambda: wilson(-1, 2), lambda: wilson(1, 2, 1.0), lambda: clopper_pearson_lower(1, 2, 0.0),
    lambda: clopper_pearson_upper(5, 2, 0.1), lambda: anytime_lower(1, 2, 1.5), lambda: two_sided_binomial_p(-1, 3),
    lambda: mean_interval([1.0, math.nan]), lambda: paired_difference([1], [1, 0]),
    lambda: median_interval([math.nan]),
])
def test_impossible_arguments_are_refused(call) -> None:
    with pytest.raises(HauberkError):
        call()


def test_two_sided_binomial_p_sums_both_tails() -> None:
    for a, b in [(0, 0), (1, 0), (5, 5), (60, 40), (40, 60), (3, 17)]:
        p = pmf(a + b, 0.5) if a + b else np.ones(1)
        both = sum(p[k] for k in range(a + b + 1) if abs(2 * k - a - b) >= abs(a - b))
        assert two_sided_binomial_p(a, b) == pytest.approx(min(1.0, both), rel=1e-9)
    assert two_sided_binomial_p(60, 40) == pytest.approx(0.0569, abs=5e-5)


def test_wealth_is_an_e_process() -> None:
    for p in (0.1, 0.5, 0.93):
        for n in (1, 7, 40):
            expected = sum(w * math.exp(log_wealth(k, n, p)) for k, w in enumerate(pmf(n, p)))
            assert expected == pytest.approx(1.0, rel=1e-9)
    # the mixture predicts (A + 1/2) / (N + 1), so one success multiplies the wealth by that over p
    step = log_wealth(4, 6, 0.3) - log_wealth(3, 5, 0.3)
    assert math.exp(step) == pytest.approx((3 + 0.5) / 6 / 0.3, rel=1e-12)


@pytest.mark.parametrize("p", [0.5, 0.8, 0.95])
def test_anytime_lower_ever_fails_with_at_most_alpha(p: float) -> None:
    alpha, horizon = 0.1, 300
    alive = np.ones(1)  # probability of each number of successes with the bound never above p
    for n in range(1, horizon + 1):
        alive = np.append(alive * (1 - p), 0.0) + np.insert(alive * p, 0, 0.0)
        ratio = np.arange(n + 1) / n
        rejected = [r > p and log_wealth(k, n, p) >= -math.log(alpha) for k, r in enumerate(ratio)]
        if n in (1, 10, 100, 300):
            bounds = np.array([anytime_lower(k, n, alpha) for k in range(n + 1)])
            assert np.array_equal(bounds >= p, rejected)
        alive[rejected] = 0.0
    assert 1 - alive.sum() <= alpha


def test_anytime_lower_edges_and_cost() -> None:
    assert anytime_lower(0, 50, 0.01) == 0.0
    assert anytime_lower(1, 1, 0.01) == pytest.approx(0.01 * 0.5, rel=1e-9)  # the wealth is 1/2 over p
    for k, n in [(50, 60), (999, 1000), (99_000, 100_000)]:
        bound = anytime_lower(k, n, 0.001)
        assert log_wealth(k, n, bound) >= math.log(1000)
        assert bound < clopper_pearson_lower(k, n, 0.001)


def test_mean_interval_matches_the_normal_one_for_many_values() -> None:
    values = np.random.default_rng(3).normal(2.0, 1.0, 4000)
    interval = mean_interval(values, seed=1)
    half = 1.96 * values.std() / math.sqrt(4000)
    assert interval.value == pytest.approx(values.mean())
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=0.08)
    assert interval == mean_interval(values, seed=1) != mean_interval(values, seed=2)
    assert mean_interval([2.0, 2.0]).low == mean_interval([2.0, 2.0]).high == 2.0
    assert math.isnan(mean_interval([]).value)


def test_student_is_scipys_and_says_nothing_of_one_value() -> None:
    values = np.random.default_rng(4).normal(0.3, 1.0, 40)
    interval, p = student(values, 0.9)
    peer = stats.ttest_1samp(values, 0.0)
    low, high = peer.confidence_interval(0.9)
    assert (interval.value, interval.low, interval.high, p) == pytest.approx((values.mean(), low, high, peer.pvalue))
    for alone in ([], [3.0]):
        interval, p = student(alone)
        assert (interval.low, interval.high, p) == (-math.inf, math.inf, 1.0)
    assert [student([v, v, v])[1] for v in (0.0, 0.5)] == [1.0, 0.25]  # three of one sign, no certainty


def pairs(b: int, c: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rows = np.arange(n)
    return rows < b, (rows >= b) & (rows < b + c)


def score(b: int, c: int, n: int, difference: float) -> float:
    """The score with the likeliest probabilities for that difference, found on a grid instead of by a formula."""
    second = np.linspace(max(0.0, -difference), (1.0 - difference) / 2.0, 400_001)[1:-1]
    first = second + difference
    logs = b * np.log(first) + c * np.log(second) + (n - b - c) * np.log(np.maximum(1 - first - second, 1e-300))
    q = second[np.argmax(logs)]
    return (b - c - n * difference) / math.sqrt(n * (2 * q + difference * (1 - difference)))


@pytest.mark.parametrize(("b", "c", "n"), [(12, 2, 50), (3, 9, 40), (30, 25, 400), (0, 4, 30), (5, 0, 60)])
def test_the_paired_interval_ends_where_the_score_is_a_normal_quantile(b: int, c: int, n: int) -> None:
    interval, p = paired_difference(*pairs(b, c, n))
    assert interval.value == (b - c) / n
    assert score(b, c, n, interval.low) == pytest.approx(1.959964, abs=2e-3)
    assert score(b, c, n, interval.high) == pytest.approx(-1.959964, abs=2e-3)
    assert p == two_sided_binomial_p(b, c)
    mirrored, _ = paired_difference(*pairs(c, b, n))
    assert (-mirrored.high, -mirrored.low) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_the_paired_interval_covers() -> None:
    n = 30
    counts = [(b, c) for b in range(n + 1) for c in range(n + 1 - b)]
    intervals = [paired_difference(*pairs(b, c, n))[0] for b, c in counts]
    for first, second in ((0.2, 0.1), (0.1, 0.1), (0.3, 0.05), (0.02, 0.02)):
        chances = stats.multinomial.pmf([[b, c, n - b - c] for b, c in counts], n, [first, second, 1 - first - second])
        covered = [i.low <= first - second <= i.high for i in intervals]
        assert 0.93 < chances[covered].sum() <= 1.0


def test_the_paired_interval_at_its_edges() -> None:
    assert paired_difference([], [])[0].n == 0
    none, p = paired_difference(*pairs(0, 0, 100))
    z2 = 1.959964**2
    assert (none.low, none.high, p) == pytest.approx((-z2 / (100 + z2), z2 / (100 + z2), 1.0), abs=1e-6)
    every, _ = paired_difference(*pairs(20, 0, 20))
    assert every.high == 1.0
    assert 0.5 < every.low < 1.0


def test_the_unpaired_interval_is_newcombes_and_covers() -> None:
    published = unpaired_difference((56, 70), (48, 80))  # Newcombe 1998, Table II, contrast (a), method 10
    assert (published.low, published.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    n, m = 30, 20
    for first, second in ((0.9, 0.7), (0.5, 0.5), (0.95, 0.95)):
        chances = np.outer(stats.binom.pmf(np.arange(n + 1), n, first), stats.binom.pmf(np.arange(m + 1), m, second))
        found = [[unpaired_difference((a, n), (b, m)) for b in range(m + 1)] for a in range(n + 1)]
        covered = [[i.low <= first - second <= i.high for i in row] for row in found]
        assert 0.93 < chances[np.array(covered)].sum() <= 1.0


def test_holm_is_the_closed_test_of_bonferroni() -> None:
    p = [0.01, 0.04, 0.03, 0.2, 0.01, 0.9]
    subsets = [s for k in range(1, 7) for s in itertools.combinations(range(6), k)]
    closed = [max(min(1.0, len(s) * min(p[j] for j in s)) for s in subsets if i in s) for i in range(6)]
    assert holm(p) == pytest.approx(closed)
    assert holm([]) == []


def test_median_interval_covers_exactly() -> None:
    for n in (6, 9, 20, 101):
        interval = median_interval(np.arange(1.0, n + 1))
        rank = int(interval.low)
        assert interval.high == n + 1 - rank
        tail = pmf(n, 0.5)[:rank].sum()
        assert 2 * tail <= 0.05 < 2 * (tail + pmf(n, 0.5)[rank])
    assert median_interval([1.0, 3.0]).low == -math.inf
    assert median_interval([]).n == 0
