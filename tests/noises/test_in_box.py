"""Noise in the pixel box: what cubes share at the worst change, searched; a base that loses just as much."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from hauberk import registry
from hauberk.batch import Batch
from hauberk.certificates import SmoothingCertificate
from hauberk.certificates.evidence import VoteCounts
from hauberk.conformance import check_certificate, check_noise
from hauberk.defences.smoothed import SmoothedClassifier
from hauberk.noises import Splitting, SplittingInBox, Uniform, UniformInBox
from hauberk.noises.in_box import shared_part
from hauberk.randomness import Consecutive, stream
from hauberk.verify.derive import smoothing

ROOT = 3.0**0.5


@pytest.mark.parametrize("kind", [UniformInBox, SplittingInBox])
def test_the_contracts(kind: type[Uniform]) -> None:
    check_noise(kind(0.25))
    votes = SmoothingCertificate(kind(0.1), n0=10, n=300, alpha=0.05)
    assert votes.norm == "l1"
    if kind is UniformInBox:  # radii below 1 are those of Uniform, which hold for points out of the box too
        check_certificate(votes, lambda net: SmoothedClassifier(net, kind(0.1), bank=2, votes=20, alpha=0.01))
    assert registry.build(registry.spec(kind(0.5))) == kind(0.5)


@pytest.mark.parametrize("width", [0.7, 1.0, 1.3, 2.0, 5.0])
@pytest.mark.parametrize("length", [0.4, 1.0, 1.6, 2.5, 3.0])
def test_no_change_of_one_length_leaves_less_in_common(width: float, length: float) -> None:
    """Every way to share a length out between four pixels, on a grid of tenths."""
    steps = round(10 * length)
    least = min(
        np.prod([max(0.0, 1 - k / 10 / width) for k in parts])
        for parts in itertools.product(range(11), repeat=4)
        if sum(parts) == steps
    )
    assert shared_part(length, width) == pytest.approx(least, abs=1e-12)


class Cube(nn.Module):
    """Class 1 where the noisy image can have come from one image, and the last pixel's noise is not too large."""

    def __init__(self, image: Tensor, half: float, share: float) -> None:
        super().__init__()
        self.image, self.half, self.share = image, half, share

    def forward(self, images: Tensor) -> Tensor:
        noise = (images - self.image) / self.half
        inside = (noise.abs() <= 1).flatten(1).all(1) & (noise.flatten(1)[:, -1] <= 2 * self.share - 1)
        lead = inside.float() - 0.5
        return torch.stack([-lead, lead], 1)


@pytest.mark.parametrize(("change", "p"), [((1.0, 0.5), 0.9), ((1.0, 1.0), 0.95), ((0.4, 0.0), 0.7)])
def test_a_set_loses_as_much_as_the_margin_says(change: tuple[float, float], p: float) -> None:
    """The share of the cube that stays: what leaves it were all its votes; drawn as the certificate draws."""
    noise = UniformInBox(1.2)
    image = torch.zeros(1, 1, 3)
    moved = image.clone()
    moved[..., :2] += torch.tensor(change)
    half = ROOT * 1.2
    base = Cube(image, half, 1.0)
    seen = base(noise.noisy(moved, Consecutive(stream(0, 0, "test"), 200_000))).argmax(1).double().mean().item()
    kept = p - (1 - seen)  # of a set that lies where the cubes part, and as far as needed in both
    assert 2 * kept - 1 == pytest.approx(noise.margin(p, sum(change)), abs=0.01)


def test_votes_are_certified_within_the_box_and_no_farther_than_they_hold() -> None:
    """From black to a grey corner: the radius exceeds that of uniform noise, and the vote stands up to it."""
    noise, image = UniformInBox(1.2), torch.zeros(1, 1, 3)
    base = Cube(image, ROOT * 1.2, 0.97).eval()
    batch = Batch(image[None], torch.ones(1).long(), torch.arange(1))
    found = SmoothingCertificate(noise, n0=50, n=50_000, alpha=0.001)(base, batch, tile=4096)
    (radius,) = found.radius.tolist()
    plain = SmoothingCertificate(Uniform(1.2), n0=50, n=50_000, alpha=0.001)(base, batch, tile=4096).radius.item()
    assert radius > 1.05 * plain > 1.0
    assert 2.0 < radius < 3.0
    for parts in ((1.0, 1.0, radius - 2), (radius / 3,) * 3, (radius - 2, 1.0, 1.0)):
        moved = torch.tensor(parts).view(1, 1, 3)
        p = base(noise.noisy(moved, Consecutive(stream(0, 1, "test"), 100_000))).argmax(1).double().mean().item()
        assert p > 0.5


@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.0, 3.0])
def test_radius_and_margin_are_inverse_no_smaller_than_uniform_and_derived_twice(sigma: float) -> None:
    for kind, plain in ((UniformInBox, Uniform), (SplittingInBox, Splitting)):
        for p, q, m in itertools.product((0.55, 0.8, 0.99, 1.0), (None, 0.0, 0.2), (0.0, 0.1, 0.6)):
            other = 1 - p if q is None else min(q, 1 - p)
            if not p - other > m:
                continue
            noise = kind(sigma)
            radius = noise.radius(p, m, None if q is None else other)
            assert noise.margin(p, radius, None if q is None else other) == pytest.approx(m, abs=1e-12)
            usual = plain(sigma).radius(p, m, None if q is None else other)
            if radius <= 1.0:
                assert radius == pytest.approx(usual, abs=1e-12)
            else:
                assert radius > usual * (1 - 1e-12)
        certificate = SmoothingCertificate(kind(sigma), n0=10, n=1000, rival="runner_up")
        for counts in ((20, 980), (0, 1000), (450, 550, 0), (300, 500, 200)):
            seen = VoteCounts((0, 10, 0)[: len(counts)], counts, certificate.plan)
            for margin in (0.0, 0.05):
                top, again = smoothing(seen.row(), seen.shared(), margin)
                assert top == certificate.decision(seen)
                assert certificate.radius(seen, margin) == pytest.approx(again, rel=1e-9, abs=1e-12)


def test_a_page_tells_the_vote_probability_of_a_radius() -> None:
    for noise in (UniformInBox(1.5), SplittingInBox(0.2), Uniform(0.5), Splitting(1.0)):
        for p in (0.5, 0.6, 0.9, 0.999):
            assert noise.probability(noise.radius(p)) == pytest.approx(p, abs=1e-12)
    assert stats.uniform(-ROOT, 2 * ROOT).cdf(1.0) == pytest.approx(Uniform(1.0).probability(1.0))
