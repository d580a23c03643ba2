"""Gaussian noise in Linf: a half-space across the diagonal reaches the radius, and no cube-shaped noise is better."""

import copy
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats
from torch import Tensor, nn

from hauberk import verify
from hauberk.batch import Batch
from hauberk.certificates import SmoothingCertificate
from hauberk.certificates.evidence import VoteCounts
from hauberk.conformance import check_certificate, check_noise
from hauberk.conformance.rules import SHAPES
from hauberk.defences.smoothed import SmoothedClassifier, smoothed_name
from hauberk.errors import HauberkError
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import certificate_records
from hauberk.evaluation.work import Work
from hauberk.noises import Gaussian, GaussianLinf, Laplace, Uniform
from hauberk.records import group, read_all
from hauberk.verify.derive import smoothing

MOST = max(math.prod(shape) for shape in SHAPES)


def test_the_contracts() -> None:
    check_noise(GaussianLinf(0.25, 2))
    check_noise(GaussianLinf(0.25, 5))
    noise = GaussianLinf(0.1, MOST)
    votes = SmoothingCertificate(noise, n0=10, n=300, alpha=0.05)
    assert votes.norm == "linf"
    check_certificate(votes, lambda net: SmoothedClassifier(net, noise, bank=2, votes=20, alpha=0.01))
    with pytest.raises(HauberkError, match="falls faster"):
        check_noise(GaussianLinf(0.25, 1))  # of two pixels it would claim too much


class Diagonal(nn.Module):
    """Class 1 where the sum of all values is large."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, images: Tensor) -> Tensor:
        lead = images.flatten(1).sum(1) - self.threshold
        return torch.stack([-lead, lead], 1)


def test_a_half_space_across_the_diagonal_reaches_the_radius() -> None:
    noise, true = GaussianLinf(0.5, 12), 0.1
    images = Batch(torch.full((4, 3, 2, 2), 0.5), torch.zeros(4).long(), torch.arange(4))
    base = Diagonal(12 * (0.5 - true)).eval()
    found = SmoothingCertificate(noise, n0=50, n=50_000, alpha=0.001)(base, images, tile=4096)
    assert found.prediction.tolist() == [1] * 4
    assert bool((found.radius <= true).all()) and float(found.radius.min()) > 0.9 * true
    p = stats.norm.cdf(12 * true / (0.5 * 12**0.5))
    assert noise.radius(float(p)) == pytest.approx(true, rel=1e-12)
    assert noise.margin(float(p), true) == pytest.approx(0.0, abs=1e-12)
    assert noise.steepest == pytest.approx(12**0.5 / (0.5 * math.sqrt(2 * math.pi)))
    assert found.predictor.startswith(smoothed_name("", noise)[:-1]) and "pixels=12" in found.predictor


def test_radii_are_those_of_l2_over_the_root_and_verify_finds_them() -> None:
    plan = SmoothingCertificate(GaussianLinf(0.25, 3072), n0=10, n=1000)
    seen = VoteCounts((0, 10), (20, 980), plan.plan)
    plain = SmoothingCertificate(Gaussian(0.25), n0=10, n=1000)
    other = plain.radius(VoteCounts((0, 10), (20, 980), plain.plan))
    assert plan.radius(seen) == pytest.approx(other / 3072**0.5, rel=1e-9)
    for margin in (0.0, 0.3):
        assert smoothing(seen.row(), seen.shared(), margin) == (1, pytest.approx(plan.radius(seen, margin), rel=1e-9))


def test_an_image_of_more_values_is_refused() -> None:
    images = Batch(torch.full((1, 3, 2, 2), 0.5), torch.zeros(1).long(), torch.arange(1))
    with pytest.raises(HauberkError, match="12 values, but the noise is for 11"):
        SmoothingCertificate(GaussianLinf(0.5, 11), n0=5, n=20, alpha=0.05)(Diagonal(0.0).eval(), images)


@pytest.mark.parametrize("d", [64, 784, 3072])
@pytest.mark.parametrize("p", [0.6, 0.9, 0.99, 0.999])
def test_families_that_were_left_out_are_no_better_at_equal_sigma(d: int, p: float) -> None:
    """What docs/limits.md says of them: closed forms of Yang et al. 2020, each by its own per-pixel deviation."""
    gaussian = GaussianLinf(1.0, d).radius(p)
    scale = math.sqrt(3.0 / ((d + 1) * (d + 2)))  # of exp(-|z|_inf / scale) with deviation 1
    assert -scale * math.log(2 * (1 - p)) < 0.5 * gaussian
    assert 2 * 3**0.5 * (1 - (1.5 - p) ** (1 / d)) < 0.2 * gaussian  # the cube in Linf
    # the ball in L2: how much two balls share, with deviation 1
    ball = math.sqrt(d + 2) * (2 - 4 * stats.beta.ppf(0.75 - p / 2, (d + 1) / 2, (d + 1) / 2))
    assert ball < 1.01 * Gaussian(1.0).radius(p)
    # exp(-|z|_2 / scale) in L2
    spherical = (d - 1) / math.sqrt(d + 1) * math.atanh(1 - 2 * stats.beta.ppf(1 - p, (d - 1) / 2, (d - 1) / 2))
    assert spherical < 1.01 * Gaussian(1.0).radius(p)


@pytest.mark.parametrize("p", [0.6, 0.9, 0.94, 0.99, 0.999])
def test_in_l1_those_that_were_left_out_are_hardly_above_the_better_of_two(p: float) -> None:
    """Exponents between those of Laplace and uniform noise, and Pareto tails, whose radius is an integral."""
    best = max(Uniform(1.0).radius(p), Laplace(1.0).radius(p))
    for power in (1.2, 1.5, 2.0, 3.0, 8.0):
        law = stats.gennorm(power)
        assert law.ppf(p) / law.std() < 1.03 * best
    for a in (3.0, 5.0, 20.0):
        scale = math.sqrt((a - 1) * (a - 2) / 2)
        assert scale / a * integrate.quad(lambda u, a=a: 1 / (1 - u ** (1 + 1 / a)), 0, 2 * p - 1)[0] < best


def test_the_closed_forms_of_those_that_were_left_out_are_right() -> None:
    """By simulation in few dimensions: the deviation of a pixel, and the mass that two balls share."""
    rng, d = np.random.default_rng(0), 5
    inside = rng.standard_normal((200_000, d))
    inside *= (rng.random((200_000, 1)) ** (1 / d)) / np.linalg.norm(inside, axis=1, keepdims=True)
    assert inside.std() == pytest.approx(1 / math.sqrt(d + 2), rel=0.01)
    p = 0.8
    radius = 2 - 4 * stats.beta.ppf(0.75 - p / 2, (d + 1) / 2, (d + 1) / 2)
    shared = (np.linalg.norm(inside - radius * np.eye(d)[0], axis=1) <= 1).mean()
    assert p - (1 - shared) == pytest.approx(0.5, abs=0.01)
    cube = rng.gamma(d, 1.0, (200_000, 1)) * rng.uniform(-1, 1, (200_000, d))
    place = rng.integers(0, d, 200_000)
    side = np.abs(cube).max(1)  # any direction on the surface of the cube: scale one to its face
    cube = cube / side[:, None] * rng.gamma(d, 1.0, (200_000, 1))
    assert cube[np.arange(200_000), place].std() == pytest.approx(math.sqrt((d + 1) * (d + 2) / 3), rel=0.02)
    assert optimize.brentq(lambda t: stats.norm.cdf(t) - p, 0, 3) == pytest.approx(Gaussian(1.0).radius(p))


def test_verify_finds_noise_for_fewer_values_than_the_images_have(tmp_path: Path) -> None:
    images = Batch(torch.full((2, 3, 2, 2), 0.5), torch.ones(2).long(), torch.arange(2))
    certificate = SmoothingCertificate(GaussianLinf(0.5, 12), n0=10, n=200, alpha=0.01)
    setting = Setting("t", "test", ("a", "b"), tile=8)
    certificate_records(Diagonal(3.0).eval(), images, certificate, setting, Work(tmp_path))
    (part,) = group(read_all(tmp_path, "certificate"))
    assert verify.verify_part(part).problems == () and part.facts["norm"] == "linf"
    unit, facts = copy.deepcopy(dict(part.unit)), copy.deepcopy(dict(part.facts))
    for told in (unit["method"], facts["shared"]):
        told["noise"]["pixels"] = 3
    said = verify.verify_part(dataclasses.replace(part, unit=unit, facts=facts)).problems
    assert any("its noise is for 3 values, its images have more" in p for p in said)
