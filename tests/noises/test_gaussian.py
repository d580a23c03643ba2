"""Radii of Gaussian noise against closed forms, tables, and the two-sided Neyman-Pearson bound solved numerically."""

import math

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import optimize, stats

from hauberk.noises import Gaussian
from hauberk.randomness import Consecutive, stream


def kept_margin(p: float, r: float, sigma: float) -> float:
    """p_y - p_j at distance r in the worst case: half-spaces for both classes, with p_j = 1 - p_y at the image."""
    return stats.norm.cdf(stats.norm.ppf(p) - r / sigma) - stats.norm.cdf(stats.norm.ppf(1 - p) + r / sigma)


@pytest.mark.parametrize("sigma", [0.12, 0.25, 1.0])
@pytest.mark.parametrize("p", [0.51, 0.7, 0.99, 0.99999])
def test_radius_without_margin_is_cohens(sigma: float, p: float) -> None:
    assert Gaussian(sigma).radius(p) == pytest.approx(sigma * stats.norm.ppf(p), rel=1e-12)


@pytest.mark.parametrize("p", [0.8, 0.95, 0.999])
@pytest.mark.parametrize("m", [0.01, 0.25, 0.5])
def test_radius_with_margin_is_the_largest_that_keeps_it(p: float, m: float) -> None:
    sigma = 0.5
    found = Gaussian(sigma).radius(p, m)
    assert found == pytest.approx(optimize.brentq(lambda r: kept_margin(p, r, sigma) - m, -3.0, 3.0), abs=1e-10)
    assert Gaussian(sigma).margin(p, found) == pytest.approx(m, abs=1e-12)
    assert Gaussian(sigma).margin(p, 0.0) == pytest.approx(2 * p - 1, abs=1e-12)
    assert Gaussian(sigma).margin(p, found + 0.01) < m < Gaussian(sigma).margin(p, found - 0.01)


def test_the_published_example_of_a_mix() -> None:
    """Alpha 0.79 and p 0.999: 2.751 sigma, where Theorem A.1 as printed gives 0.804 sigma."""
    alpha, p = 0.79, 0.999
    assert Gaussian(1.0).radius(p, (1 - alpha) / alpha) == pytest.approx(2.751, abs=5e-4)
    printed = 0.5 * (stats.norm.ppf(alpha * p) - stats.norm.ppf(alpha * (1 - p) + 1 - alpha))
    assert printed == pytest.approx(0.804, abs=5e-4)


def test_samples_are_normal_float32_and_do_not_depend_on_how_they_are_cut() -> None:
    noise = Gaussian(0.3)
    whole = noise.sample(Consecutive(stream(1, 2, "test"), 7), 1, 40, 50).numpy()
    assert whole.dtype == np.float32
    assert whole.shape == (7, 1, 40, 50)
    generator = stream(1, 2, "test")
    cut = np.concatenate([noise.sample(Consecutive(generator, n), 1, 40, 50) for n in (4, 1, 2)])
    np.testing.assert_array_equal(whole, cut)
    assert stats.kstest(whole.ravel() / 0.3, "norm").pvalue > 1e-3


def test_the_steepest_probability() -> None:
    noise, r = Gaussian(0.5), 1e-6
    assert noise.steepest == pytest.approx((0.5 - noise.cdf(-r / noise.sigma)) / r, rel=1e-5)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.inf, math.nan])
def test_impossible_noise_is_refused(sigma: float) -> None:
    with pytest.raises(ValidationError):
        Gaussian(sigma)
