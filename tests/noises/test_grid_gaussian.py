"""Noise on the grid: its law, sums that keep no trace of the image, and the example that fools noise in floats."""

import math
from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from hauberk.batch import Batch
from hauberk.certificates import SmoothingCertificate
from hauberk.certificates.evidence import VoteCounts
from hauberk.conformance import check_certificate, check_noise
from hauberk.defences.smoothed import SmoothedClassifier, noisy_votes
from hauberk.noises import Gaussian, GridGaussian, Noise
from hauberk.noises.grid_gaussian import thresholds
from hauberk.randomness import BITS, Consecutive, PerSample, stream


def test_the_contracts() -> None:
    check_noise(GridGaussian(0.25))
    votes = SmoothingCertificate(GridGaussian(0.1), n0=10, n=300, alpha=0.05)
    check_certificate(votes, lambda net: SmoothedClassifier(net, GridGaussian(0.1), bank=2, votes=20, alpha=0.01))


@pytest.mark.parametrize("sigma", [0.001, 0.002, 0.05, 0.12, 0.15, 0.25, 0.39, 1.0])
def test_the_table_is_the_law_up_to_the_slack(sigma: float) -> None:
    """The thresholds against forty digits of the normal distribution; with the tails they are within the slack."""
    table = thresholds(sigma).tolist()
    assert all(a <= b for a, b in pairwise(table))
    assert all(a + b == 2**BITS for a, b in zip(table, reversed(table), strict=True))
    most = len(table) // 2
    with mpmath.workdps(40):
        spread, scale = mpmath.mpf(255) * mpmath.mpf(sigma), mpmath.mpf(2) ** BITS
        exact = [mpmath.ncdf(-(k - mpmath.mpf(0.5)) / spread) for k in range(most, 0, -1)]
        # two laws on a line differ by at most the sum of the errors at the borders between their levels
        off = 2 * sum(abs(t / scale - e) for t, e in zip(table, exact, strict=False))
        beyond = 2 * mpmath.ncdf(-(most + mpmath.mpf(0.5)) / spread)
        assert (off + beyond) * 2**24 <= GridGaussian(sigma).slack / 2  # twice what is needed


def test_samples_are_levels_with_the_gaussian_law() -> None:
    noise = GridGaussian(0.1)
    values = noise.sample(Consecutive(stream(1, 2, "test"), 50), 40, 50).double().numpy().ravel()
    levels = np.rint(values * 255)
    assert np.abs(levels - values * 255).max() < 1e-4
    edges = np.concatenate([[-np.inf], np.arange(-60.5, 61), [np.inf]])
    expected = np.diff(stats.norm.cdf(edges, scale=25.5)) * len(levels)
    assert stats.chisquare(np.histogram(levels, edges)[0], expected).pvalue > 1e-4


@pytest.mark.parametrize("sigma", [0.002, 0.25])
def test_the_short_way_to_a_level_is_the_long_one(sigma: float) -> None:
    class Fixed:
        def bits(self, *shape: int) -> Tensor:
            return draws.view(1, *shape)

    table = thresholds(sigma)
    near = torch.cat([table - 1, table, table + 1, torch.tensor([0, 2**BITS - 1])]).clamp(0, 2**BITS - 1)
    draws = torch.cat([near, PerSample(0, [1], "test").bits(3000).flatten()])
    found = GridGaussian(sigma).sample(Fixed(), len(draws)) * 255  # type: ignore[arg-type]
    expected = [sum(t <= d for t in table.tolist()) - len(table) // 2 for d in draws.tolist()]
    assert found.round().int().flatten().tolist() == expected


def test_the_base_sees_a_function_of_the_integer_sum_alone() -> None:
    """Whatever image and noise a sum comes from, its floats are the same bits."""
    noise = GridGaussian(0.25)
    rows = PerSample(0, range(300), "test")
    levels = (noise.sample(PerSample(0, range(300), "test"), 1, 4, 8) * 255).round().long()
    image = torch.arange(32).view(1, 4, 8) * 8
    noisy = noise.noisy(image.float() / 255, rows)
    sums = (levels + image).flatten().tolist()
    floats: dict[int, set[float]] = {}
    for k, value in zip(sums, noisy.flatten().tolist(), strict=True):
        floats.setdefault(k, set()).add(value)
    assert all(len(values) == 1 for values in floats.values())
    assert all(values == {float(np.float32(k) / np.float32(255))} for k, values in floats.items())
    assert len(floats) > 200
    off = noise.noisy((image.float() + 0.3) / 255, PerSample(0, range(300), "test"))
    assert torch.equal(off, noisy)  # an image off the grid is rounded


class Fingerprint(nn.Module):
    """Class 0 where small noisy pixels have digits that only noise on black can have (Voracek & Hein 2023)."""

    def forward(self, images: Tensor) -> Tensor:
        small = images.abs() < 0.0036
        scaled = images.double() * 2.0**30
        traces = (small & (scaled != scaled.round())).flatten(1).sum(1) >= 5
        return torch.stack([traces, ~traces], 1).float()


@pytest.mark.parametrize(("noise", "fooled"), [(Gaussian(0.25), True), (GridGaussian(0.25), False)], ids=str)
def test_the_known_counter_example(noise: Noise, fooled: bool) -> None:
    """In floats the vote is certified far beyond a distance at which it flips; on the grid it is not."""
    base, distance = Fingerprint().eval(), 0.6
    images = torch.stack([torch.zeros(3, 32, 32), torch.full((3, 32, 32), distance / math.sqrt(3072))])
    votes = [noisy_votes(base, image, noise, 300, (0, 1, "test"), 64).tolist() for image in images]
    assert (votes[0][0] > 290) == fooled
    assert votes[1][0] < 30
    certificate = SmoothingCertificate(noise, n0=20, n=300, alpha=0.001)
    found = certificate(base, Batch(images[:1], torch.zeros(1).long(), torch.zeros(1).long()))
    if fooled:  # documented: the proof is about real numbers
        assert float(found.radius) > 0.4
        assert int(found.prediction) == 0
    else:
        assert int(found.prediction) != 0


def test_the_slack_comes_off_every_bound() -> None:
    exact, grid = (SmoothingCertificate(n(0.25), n=1000, alpha=0.01) for n in (Gaussian, GridGaussian))
    for rival in ("rest", "runner_up"):
        pair = []
        for votes in (exact, grid):
            asked = SmoothingCertificate(votes.noise, n=1000, alpha=0.01, rival=rival)  # type: ignore[arg-type]
            pair.append(asked.bounds(VoteCounts((100, 0, 0), (900, 60, 40), asked.plan)))
        (lower, upper), (less, more) = pair
        slack = 255 * 0.25 / 2**27
        assert lower - less == pytest.approx(slack, rel=1e-6)
        assert more - upper == pytest.approx(slack, rel=1e-6)
