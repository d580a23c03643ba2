"""Bounds that are exact on average: their failure probability by enumeration, and their order."""

import math

import numpy as np
import pytest
from scipy import stats

from hauberk.confidence import randomised_lower
from hauberk.errors import HauberkError
from hauberk.statistics import clopper_pearson_lower

GRID = (1e-6, 0.01, 0.1, 0.37, 0.5, 0.8, 0.9, 0.97, 0.999, 1 - 1e-5)


def pmf(n: int, p: float) -> np.ndarray:
    """The binomial distribution from logarithms of factorials, which shares no code with incomplete Beta functions."""
    k = np.arange(n + 1)
    choose = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in k]
    return np.exp(np.array(choose) + k * math.log(p) + (n - k) * math.log1p(-p))


def failing_share(k: int, n: int, alpha: float, p: float) -> float:
    """The share of the numbers u for which the bound exceeds p: it falls with u, so there is one crossing."""
    if randomised_lower(k, n, alpha, 1.0) > p:
        return 1.0
    if randomised_lower(k, n, alpha, 0.0) <= p:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(44):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if randomised_lower(k, n, alpha, middle) > p else (low, middle)
    return low


@pytest.mark.parametrize("n", [1, 2, 17, 60, 200])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3, 0.7])
def test_the_randomised_bound_fails_with_exactly_alpha(n: int, alpha: float) -> None:
    for p in GRID:
        near = stats.binom.isf(alpha, n, p)  # the bounds of counts below it do not reach p, those beyond it all do
        counts = range(max(0, int(near) - 2), n + 1)
        failing = float(sum(pmf(n, p)[k] * failing_share(k, n, alpha, p) for k in counts if k <= near + 2))
        failing += float(pmf(n, p)[int(near) + 3 :].sum())
        if p < max(0.5, alpha) ** (1 / n):
            assert failing == pytest.approx(alpha, rel=1e-8)
        else:
            assert failing <= alpha * (1 + 1e-9)


@pytest.mark.parametrize(("n", "alpha"), [(1, 0.05), (20, 0.001), (20, 0.6), (2000, 0.01)])
def test_it_lies_between_clopper_and_pearsons_bounds_of_this_count_and_the_next(n: int, alpha: float) -> None:
    for k in sorted({0, 1, n // 3, n // 2, n - 1, n}):
        bounds = [randomised_lower(k, n, alpha, u) for u in (1.0, 0.9, 0.3, 0.01, 0.0)]
        assert bounds == sorted(bounds)
        assert bounds[0] == pytest.approx(clopper_pearson_lower(k, n, alpha), rel=1e-12, abs=1e-300)
        assert all(b >= clopper_pearson_lower(k, n, alpha) for b in bounds)
        assert bounds[-1] <= (clopper_pearson_lower(k + 1, n, alpha) * (1 + 1e-12) if k < n else 1.0)


def test_it_solves_its_equation_from_below() -> None:
    for k, n in [(1, 3), (50, 60), (9_990, 10_000), (99_999, 100_000)]:
        for u in (0.2, 0.77):
            bound = randomised_lower(k, n, 0.001, u)
            spent = stats.binom.sf(k, n, bound) + u * stats.binom.pmf(k, n, bound)
            assert spent == pytest.approx(0.001, rel=1e-9)
            assert spent <= 0.001 * (1 + 1e-11)


def test_its_edges() -> None:
    assert randomised_lower(0, 0, 0.01, 0.5) == 0.0
    assert randomised_lower(0, 50, 0.01, 0.5) == 0.0
    assert 0.0 < randomised_lower(0, 50, 0.01, 0.005) < 0.01 / 50
    assert randomised_lower(50, 50, 0.01, 0.5) == pytest.approx(0.02 ** (1 / 50))
    for u in (0.0, 1e-300, 0.01, 0.02):  # no bound of 1, whose radius would be infinite
        assert randomised_lower(50, 50, 0.01, u) == pytest.approx(0.5 ** (1 / 50))
    for call in (lambda: randomised_lower(3, 5, 0.1, 1.1), lambda: randomised_lower(3, 5, 0.1, math.nan)):
        with pytest.raises(HauberkError, match="from 0 to 1"):
            call()
