"""Laplace noise: its law, its radius by closed form, and the worst set of two pixels found by sorting a fine grid."""

import numpy as np
import pytest
from scipy import stats
from torch import Tensor

from hauberk.certificates import SmoothingCertificate
from hauberk.conformance import check_certificate, check_noise
from hauberk.defences.smoothed import SmoothedClassifier
from hauberk.errors import HauberkError
from hauberk.noises import Gaussian, Laplace, Noise
from hauberk.randomness import Consecutive, PerSample, Randomness, stream

ROOT = 2.0**0.5


class Generous(Laplace):
    """A family whose F falls too slowly, whose radii would be too large."""

    def cdf(self, value: float) -> float:
        return super().cdf(0.5 * value)

    def quantile(self, probability: float) -> float:
        return 2.0 * super().quantile(probability)


class Wide(Laplace):
    """Draws of another deviation than it says."""

    def sample(self, randomness: Randomness, *shape: int) -> Tensor:
        return 1.1 * super().sample(randomness, *shape)


class Euclidean(Laplace):
    """Laplace noise that claims radii in L2, where a shift of many pixels is shorter."""

    norm = "l2"


@pytest.mark.parametrize(
    ("broken", "rule"), [(Generous, "half-line falls faster"), (Wide, "deviation"), (Euclidean, "two pixels")]
)
def test_the_contract_names_what_is_broken(broken: type[Laplace], rule: str) -> None:
    with pytest.raises(HauberkError, match=rule):
        check_noise(broken(0.25))


@pytest.mark.parametrize("noise", [Laplace(0.25), Gaussian(0.25)], ids=str)
def test_both_families_keep_the_contract(noise: Noise) -> None:
    check_noise(noise)


def test_the_contract() -> None:
    votes = SmoothingCertificate(Laplace(0.1), n0=10, n=300, alpha=0.05)
    assert votes.norm == "l1"
    check_certificate(votes, lambda net: SmoothedClassifier(net, Laplace(0.1), bank=2, votes=20, alpha=0.01))


@pytest.mark.parametrize("p", [0.55, 0.7, 0.99])
@pytest.mark.parametrize("sigma", [0.25, 1.0])
def test_the_radius_is_the_published_one(p: float, sigma: float) -> None:
    assert Laplace(sigma).radius(p) == pytest.approx(-sigma / ROOT * np.log(2 * (1 - p)), rel=1e-12)
    assert Laplace(sigma).margin(p, Laplace(sigma).radius(p, 0.05)) == pytest.approx(0.05, abs=1e-12)


@pytest.mark.parametrize("shift", [(0.5, 0.0), (0.25, 0.25), (0.4, -0.1)])
def test_no_set_of_two_pixels_falls_faster_and_one_pixel_reaches_it(shift: tuple[float, float]) -> None:
    """The worst set of a given probability holds the points where the shifted density is smallest beside the first."""
    law, step = stats.laplace(scale=1 / ROOT), 0.02
    grid = np.arange(-9.0, 9.0, step) + step / 2
    # the mass of each cell, so that nothing is lost to the grid but its cells
    first = np.diff(law.cdf(np.append(grid - step / 2, grid[-1] + step / 2)))
    mass = np.outer(first, first)
    moved = np.outer(*(np.diff(law.cdf(np.append(grid - step / 2, grid[-1] + step / 2) - s)) for s in shift))
    order = np.argsort((moved / mass).ravel(), kind="stable")
    have, left = np.cumsum(mass.ravel()[order]), np.cumsum(moved.ravel()[order])
    for p in (0.6, 0.8, 0.95):
        worst = float(np.interp(p, have, left))
        bound = Laplace(1.0).cdf(Laplace(1.0).quantile(p) - 0.5)
        assert worst >= bound - 1e-4
        if shift[1] == 0.0:
            assert worst == pytest.approx(bound, abs=2e-3)


def test_samples_are_laplace_and_keyed_by_row() -> None:
    noise = Laplace(0.3)
    draws = noise.sample(Consecutive(stream(0, 0, "test"), 4), 1, 60, 60)
    assert draws.shape == (4, 1, 60, 60)
    assert stats.kstest(draws.double().numpy().ravel(), stats.laplace(scale=0.3 / ROOT).cdf).pvalue > 1e-3
    both = noise.sample(PerSample(0, [3, 5], "test"), 2, 2)
    assert both[1].equal(noise.sample(PerSample(0, [5], "test"), 2, 2)[0])


def test_the_steepest_probability() -> None:
    noise, r = Laplace(0.5), 1e-6
    falls = (0.5 - noise.cdf(-r / noise.sigma)) / r
    assert noise.steepest == pytest.approx(falls, rel=1e-5)
