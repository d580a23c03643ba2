"""What is foretold of a certificate lies within its stated error of what comes, at probabilities that are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hauberk.certificates import SmoothingCertificate
from hauberk.certificates.evidence import VoteCounts
from hauberk.evaluation.forecast import forecast
from hauberk.noises import Gaussian

RADII = (0.0, 0.25, 0.5, 0.75, 1.0)


def population(name: str, size: int, draws: np.random.Generator) -> np.ndarray:
    """Probabilities of the label."""
    if name == "beta":
        return draws.beta(1.2, 0.4, size)
    if name == "mixture":
        parts = np.stack([draws.beta(40, 1.0, size), draws.beta(5, 4, size), draws.beta(0.5, 6, size)])
        return parts[draws.choice(3, size, p=[0.5, 0.3, 0.2]), np.arange(size)]
    return np.asarray(stats.norm.cdf(draws.normal(0.8, 1.0, size)))  # distances to a plane, over sigma


def truth(certificate: SmoothingCertificate, p: np.ndarray) -> tuple[list[float], float]:
    """Certified accuracy and mean radius that the certificate has on average over these probabilities."""
    counts = np.random.default_rng(1).binomial(certificate.n, p)
    known = {}
    for k in np.unique(counts).tolist():
        known[k] = certificate.radius(VoteCounts((certificate.n0, 0), (k, certificate.n - k), certificate.plan))
    radii = np.array([known[k] for k in counts.tolist()])
    return [float(((radii >= r) & (radii > 0)).mean()) for r in RADII], float(radii.mean())


@pytest.mark.parametrize("name", ["beta", "mixture", "planes"])
def test_what_is_foretold_is_within_its_stated_error(name: str) -> None:
    certificate = SmoothingCertificate(Gaussian(0.5), n=10_000, alpha=0.001)
    accuracies, mean = truth(certificate, population(name, 3000, np.random.default_rng(0)))
    inside = np.zeros(len(RADII) + 1)
    for seed in range(10):
        draws = np.random.default_rng(seed + 10)
        own = draws.binomial(200, population(name, 200, draws))
        found = forecast(certificate, own.tolist(), 200, RADII)
        intervals = [*(interval for _, interval in found.levels), found.mean_radius]
        inside += [i.low <= t <= i.high for i, t in zip(intervals, [*accuracies, mean], strict=True)]
    assert inside.min() >= 7


def test_a_radius_that_no_count_proves_is_foretold_of_no_image() -> None:
    certificate = SmoothingCertificate(Gaussian(0.5), n=1000, alpha=0.001)
    found = forecast(certificate, [200] * 50 + [0] * 50, 200, (0.0, 2.0))
    assert found.levels[0][1].value == pytest.approx(0.5, abs=0.02)
    assert found.levels[1][1].value == 0.0  # the largest radius of 1000 votes is 1.23
    assert 0.25 < found.mean_radius.value < 0.62


def test_without_radii_a_few_round_ones_are_taken() -> None:
    certificate = SmoothingCertificate(Gaussian(0.5), n=1000, alpha=0.001)
    assert [r for r, _ in forecast(certificate, [150], 200).levels] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_errors_for_one_class_are_the_worst_of_two_bounds() -> None:
    given = {"noise": Gaussian(0.5), "n": 1000, "alpha": 0.001}
    one, two = (SmoothingCertificate(**given, rival=rival) for rival in ("rest", "runner_up"))  # type: ignore[arg-type]
    own = list(range(100, 200))
    values = [forecast(c, own, 200, (0.1,)).levels[0][1].value for c in (one, two)]
    assert values[1] <= values[0] < values[1] + 0.02
