"""Uniform noise: its law, its radius by closed form, and sets that fall as fast as the bound and no faster."""

import numpy as np
import pytest
from scipy import optimize, stats

from hauberk.certificates import SmoothingCertificate
from hauberk.conformance import check_certificate, check_noise
from hauberk.defences.smoothed import SmoothedClassifier
from hauberk.noises import Gaussian, Laplace, Noise, Uniform
from hauberk.randomness import Consecutive, stream

ROOT = 3.0**0.5


def test_the_contracts() -> None:
    check_noise(Uniform(0.25))
    votes = SmoothingCertificate(Uniform(0.1), n0=10, n=300, alpha=0.05)
    assert votes.norm == "l1"
    check_certificate(votes, lambda net: SmoothedClassifier(net, Uniform(0.1), bank=2, votes=20, alpha=0.01))


@pytest.mark.parametrize("p", [0.5, 0.7, 0.99, 1.0])
def test_the_radius_is_the_published_one(p: float) -> None:
    noise = Uniform(0.25)
    width = 2 * ROOT * 0.25
    assert noise.radius(p) == pytest.approx(width * (p - 0.5), abs=1e-12)
    assert noise.margin(p, 0.1) == pytest.approx(2 * (p - 0.1 / width) - 1, abs=1e-12)
    assert noise.steepest == pytest.approx(1 / width)


@pytest.mark.parametrize("shift", [(0.5, 0.0), (0.25, 0.25), (0.4, -0.1)])
def test_what_two_cubes_share_is_at_least_what_the_bound_leaves(shift: tuple[float, float]) -> None:
    """The worst set of probability p gives up what only the first cube has; one pixel's shift reaches the bound."""
    width = 2 * ROOT
    common = np.prod([1 - abs(s) / width for s in shift])
    for p in (0.6, 0.8, 0.95):
        worst = max(0.0, p - (1 - common))
        bound = Uniform(1.0).cdf(Uniform(1.0).quantile(p) - 0.5)
        assert worst >= bound - 1e-12
        if shift[1] == 0.0:
            assert worst == pytest.approx(bound, abs=1e-12)


def test_samples_are_uniform() -> None:
    values = Uniform(0.3).sample(Consecutive(stream(1, 2, "test"), 7), 40, 50).numpy()
    assert values.dtype == np.float32
    assert stats.kstest(values.ravel(), stats.uniform(-0.3 * ROOT, 0.6 * ROOT).cdf).pvalue > 1e-3


@pytest.mark.parametrize("noise", [Gaussian(0.5), Laplace(0.5), Uniform(0.5)], ids=str)
@pytest.mark.parametrize(("p", "q"), [(0.9, 0.1), (0.9, 0.02), (0.45, 0.2), (0.3, 0.25)])
def test_two_bounds_meet_where_the_margin_is_used_up(noise: Noise, p: float, q: float) -> None:
    for m in (0.0, 0.04, 0.2, 0.5):
        found = noise.radius(p, m, q)
        if p - q > m:
            assert noise.margin(p, found, q) == pytest.approx(m, abs=1e-12)
            assert noise.margin(p, found * 1.01, q) < m < noise.margin(p, found * 0.99, q)
        elif m:
            assert found <= 0.0
    assert noise.radius(0.9, 0.3, 0.1) == pytest.approx(noise.radius(0.9, 0.3), rel=1e-12)
    assert noise.margin(0.9, 0.1, 0.1) == pytest.approx(noise.margin(0.9, 0.1), abs=1e-12)


def test_uniform_radii_are_larger_than_those_of_laplace_up_to_a_probability() -> None:
    """What docs/smoothing.md says of them."""
    meet = optimize.brentq(lambda p: Uniform(1.0).radius(p) - Laplace(1.0).radius(p), 0.8, 0.99)
    assert meet == pytest.approx(0.943, abs=1e-3)
