"""CERTIFY against linear models, whose vote probability is Phi(margin / (sigma |w|)); coverage; separate samples."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from hauberk.batch import Batch
from hauberk.certificates import ABSTAIN, SmoothingCertificate
from hauberk.certificates.evidence import VoteCounts, VotePlan, on_record
from hauberk.classifier import predictor_name
from hauberk.conformance import LinearOracle, check_certificate
from hauberk.defences import SmoothedClassifier
from hauberk.errors import HauberkError
from hauberk.noises import Gaussian
from hauberk.statistics import clopper_pearson_lower

SMALL = SmoothingCertificate(Gaussian(0.25), n0=20, n=400, alpha=0.01)


class Coin(nn.Module):
    """Votes for one of K classes by the first noisy pixel alone, class 0 with probability ``p`` and the rest evenly."""

    def __init__(self, p: float, classes: int, sigma: float) -> None:
        super().__init__()
        edges = np.concatenate([[p], p + (1 - p) * np.arange(1, classes) / (classes - 1)])[:-1]
        self.edges = torch.tensor(0.5 + sigma * stats.norm.ppf(edges), dtype=torch.float32)

    def forward(self, images: Tensor) -> Tensor:
        votes = (images.flatten(1)[:, :1] > self.edges).sum(1)
        return nn.functional.one_hot(votes, len(self.edges) + 1).float() * 3.0 - 1.0


def grey(rows: int, first: int = 0) -> Batch:
    return Batch(torch.full((rows, 1, 1, 1), 0.5), torch.zeros(rows).long(), torch.arange(first, first + rows))


def test_conformance() -> None:
    check_certificate(SMALL)
    votes = SmoothingCertificate(Gaussian(0.1), n0=10, n=300, alpha=0.05)
    check_certificate(votes, lambda net: smoothed(net, 0.1))


def smoothed(net: nn.Module, sigma: float) -> SmoothedClassifier:
    return SmoothedClassifier(net, Gaussian(sigma), bank=2, votes=20, alpha=0.01)


@pytest.mark.parametrize("p", [0.6, 0.9, 0.99])
def test_counts_have_the_known_probability_and_radii_grow_to_the_true_one(p: float) -> None:
    model = Coin(p, 2, 0.25).eval()
    certificate = SmoothingCertificate(Gaussian(0.25), n0=50, n=20_000, alpha=0.001)
    found = certificate(model, grey(4), tile=2048)
    true = 0.25 * stats.norm.ppf(p)
    for row, radius, prediction in zip(found.rows, found.radius.tolist(), found.prediction.tolist(), strict=True):
        assert sum(row["counts0"]) == 50
        assert sum(row["counts"]) == 20_000
        assert stats.binomtest(row["counts"][0], 20_000, p).pvalue > 1e-4
        assert prediction == 0
        assert radius <= true
        assert radius == pytest.approx(true, abs=0.04)
        bound = clopper_pearson_lower(row["counts"][0], 20_000, 0.001)
        assert radius == pytest.approx(0.25 * stats.norm.ppf(bound), rel=1e-9)


def test_coverage_on_a_linear_model() -> None:
    """2000 images at one distance from the boundary: at most alpha of the radii, up to chance, exceed it."""
    sigma, alpha, distance = 0.25, 0.05, 0.1
    model = Coin(float(stats.norm.cdf(distance / sigma)), 2, sigma).eval()
    certificate = SmoothingCertificate(Gaussian(sigma), n0=5, n=60, alpha=alpha)
    found = certificate(model, grey(2000), seed=1, tile=64)
    wrong = (found.radius > distance) | ((found.prediction != 0) & (found.prediction != ABSTAIN))
    assert int(wrong.sum()) <= stats.binom.ppf(1 - 1e-6, 2000, alpha)
    assert int(wrong.sum()) >= 10  # the bound is not loose by far either: exact coverage here is about 0.04


def test_the_class_is_chosen_on_a_sample_of_its_own() -> None:
    """At p = (1/2, 1/2) every certificate is wrong; choosing and bounding on one sample doubles their number."""
    n, alpha, images = 60, 0.05, 3000
    certificate = SmoothingCertificate(Gaussian(0.25), n0=n, n=n, alpha=alpha)
    found = certificate(Coin(0.5, 2, 0.25).eval(), grey(images), seed=2, tile=64)
    certified = int((found.radius > 0).sum())
    exact = float(stats.binom.sf(_smallest_certified(n, alpha) - 1, n, 0.5))  # for a class fixed beforehand
    assert certified <= stats.binom.ppf(1 - 1e-5, images, exact) < images * 2 * exact * 0.8
    assert any(row["counts0"] != row["counts"] for row in found.rows)


def _smallest_certified(n: int, alpha: float) -> int:
    return next(k for k in range(n) if clopper_pearson_lower(k, n, alpha) > 0.5)


def test_the_two_samples_are_independent() -> None:
    certificate = SmoothingCertificate(Gaussian(0.25), n0=60, n=60, alpha=0.05)
    rows, _ = on_record(certificate.gather(Coin(0.5, 2, 0.25).eval(), grey(400), 0, 64))
    pairs = np.array([[row["counts0"][0], row["counts"][0]] for row in rows])
    assert abs(stats.pearsonr(pairs[:, 0], pairs[:, 1]).statistic) < 0.2
    assert (pairs[:, 0] != pairs[:, 1]).mean() > 0.5


def seen(certificate: SmoothingCertificate, counts0: list[int], counts: list[int]) -> VoteCounts:
    plan = VotePlan(certificate.noise, certificate.n0, certificate.n, certificate.alpha)
    return VoteCounts(tuple(counts0), tuple(counts), plan)


@pytest.mark.parametrize("other", [{"alpha": 0.1}, {"n": 800}, {"n0": 7}, {"noise": Gaussian(0.5)}], ids=str)
def test_votes_of_another_plan_are_refused(other: dict[str, Any]) -> None:
    """A looser alpha or a larger sigma read into the same counts would give a radius that nobody planned."""
    evidence = seen(SMALL, [20, 0], [390, 10])
    assert SMALL.radius(evidence) > 0
    with pytest.raises(HauberkError, match="by the plan"):
        dataclasses.replace(SMALL, **other).radius(evidence)


@pytest.mark.parametrize("votes", range(41))
def test_it_abstains_unless_the_bound_exceeds_one_half(votes: int) -> None:
    certificate = SmoothingCertificate(Gaussian(1.0), n0=3, n=40, alpha=0.01)
    row = seen(certificate, [0, 3], [40 - votes, votes])
    bound = stats.beta.ppf(0.01, votes, 41 - votes) if votes else 0.0
    assert certificate.decision(row) == (1 if bound > 0.5 else ABSTAIN)
    radius = certificate.radius(row)
    assert radius == (pytest.approx(stats.norm.ppf(bound), rel=1e-9) if bound > 0.5 else 0.0)
    if votes == 40:
        assert radius == pytest.approx(stats.norm.ppf(0.01 ** (1 / 40)))


def test_the_chosen_class_is_kept_even_if_the_second_sample_prefers_another() -> None:
    certificate = SmoothingCertificate(Gaussian(1.0), n0=5, n=100, alpha=0.01)
    row = seen(certificate, [3, 2], [5, 95])
    assert certificate.decision(row) == ABSTAIN
    assert certificate.radius(row) == 0.0


@pytest.mark.parametrize("margin", [0.1, 0.4])
def test_radius_at_a_margin(margin: float) -> None:
    row = seen(SMALL, [20, 0], [390, 10])
    bound = clopper_pearson_lower(390, 400, 0.01)
    found = SMALL.radius(row, margin)
    assert found == pytest.approx(0.25 * (stats.norm.ppf(bound) - stats.norm.ppf((1 + margin) / 2)), rel=1e-9)
    assert SMALL.margin(row, found) == pytest.approx(margin, abs=1e-9)
    assert SMALL.radius(seen(SMALL, [20, 0], [210, 190]), 0.4) == 0.0


def test_ties_and_nan_are_nobodys_votes() -> None:
    class Trap(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            first = images.flatten(1)[:, 0]
            logits = torch.stack([torch.ones_like(first), torch.zeros_like(first)], 1)
            logits[first > 0.5] = 1.0  # half of the copies: a tie
            logits[first > 0.75, 0] = math.nan
            return logits

    certificate = SmoothingCertificate(Gaussian(0.25), n0=100, n=400, alpha=0.01)
    found = certificate(Trap().eval(), grey(3))
    for row in found.rows:
        assert 120 < row["counts"][0] < 280
        assert row["counts"][1] == 0
    assert found.prediction.tolist() == [ABSTAIN] * 3
    assert found.radius.tolist() == [0.0] * 3


def test_votes_do_not_depend_on_the_tile_or_on_company() -> None:
    oracle = LinearOracle.random((1, 2, 2), 3)
    batch = oracle.batch(5)
    whole = SMALL(oracle, batch, seed=3, tile=64)
    for tile in (7, 64, 400):
        alone = SMALL(oracle, batch.select(slice(2, 3)), seed=3, tile=tile)
        assert alone.rows[0] == whole.rows[2]
    assert SMALL(oracle, batch, seed=4).rows != whole.rows


def test_the_smoothed_classifier_is_named_not_its_base() -> None:
    net = LinearOracle.random((1, 2, 2), 2).layers
    vote = smoothed(net, 0.25)
    assert SMALL.predictor(net) == SMALL.predictor(vote) == predictor_name(vote)
    assert predictor_name(net) in SMALL.predictor(net) != predictor_name(net)
    with pytest.raises(HauberkError, match="smoothed with Gaussian"):
        batch = Batch(torch.rand(2, 1, 2, 2), torch.zeros(2).long(), torch.arange(2))
        SMALL(smoothed(net, 0.5).eval(), batch)


@pytest.mark.parametrize("p", [0.6, 0.8, 0.95, 0.999])
def test_what_a_bound_for_all_n_costs(p: float) -> None:
    """2 to 10 % of the radius at 10,000 votes, as docs/smoothing.md says."""
    counts = round(p * 10_000), round((1 - p) * 10_000)
    fixed, anytime = (SmoothingCertificate(Gaussian(1.0), n=10_000, rule=rule) for rule in ("fixed", "anytime"))
    radii = [votes.radius(VoteCounts((100, 0), counts, votes.plan)) for votes in (fixed, anytime)]
    assert 0.89 <= radii[1] / radii[0] <= 0.98
