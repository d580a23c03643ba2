"""The majority vote: PREDICT's two-sided test, separate streams, and the forward pass that attackers differentiate."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from hauberk.batch import Batch
from hauberk.classifier import decide, predictor_name, traits
from hauberk.conformance import LinearOracle, check_classifier
from hauberk.defences import SmoothedClassifier
from hauberk.defences.smoothed import noisy_votes, smoothed_name
from hauberk.noises import Gaussian
from hauberk.randomness import Key


def vote(base: nn.Module, votes: int = 200, alpha: float = 0.05, sigma: float = 0.25) -> SmoothedClassifier:
    return SmoothedClassifier(base, Gaussian(sigma), bank=5, votes=votes, alpha=alpha).eval()


class Sides(nn.Module):
    """Which side of the threshold the first pixel is on."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, images: Tensor) -> Tensor:
        z = images.flatten(1)[:, 0] - self.threshold
        return torch.stack([-z, z, torch.full_like(z, -9.0)], 1)


@pytest.mark.parametrize(("first", "decided"), [(60, False), (61, True), (40, False), (39, True), (50, False)])
def test_the_test_is_two_sided(first: int, decided: bool) -> None:
    """100 votes at alpha 0.04: 61 to 39 has the two-sided p-value 0.035, 60 to 40 has 0.057 (one-sided 0.028)."""
    assert (stats.binomtest(first, 100).pvalue <= 0.04) == decided

    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen = 0

        def forward(self, images: Tensor) -> Tensor:
            index = torch.arange(self.seen, self.seen + len(images))
            self.seen += len(images)
            return nn.functional.one_hot((index >= first).long(), 3).float()

    model = vote(Counted(), votes=100, alpha=0.04)
    found = model.decide(torch.rand(1, 1, 2, 2), Key(0, 0, (0,), "decide"))
    expected = (0 if first > 50 else 1) if decided else -1
    assert found.tolist() == [expected]


def test_the_error_of_a_decision_is_at_most_alpha() -> None:
    """At p = (1/2, 1/2) every decision is an error of one of the two sides; the two-sided test bounds their sum."""
    images = torch.full((1500, 1, 1, 1), 0.5)
    model = vote(Sides(0.5), votes=60, alpha=0.05)
    batch = Batch(images, torch.zeros(1500).long(), torch.arange(1500))
    decided = int((decide(model, batch, seed=1) >= 0).sum())
    assert decided <= stats.binom.ppf(1 - 1e-6, 1500, 0.05)
    assert decided > 10


def test_votes_have_the_probability_of_the_half_space() -> None:
    counts = noisy_votes(Sides(0.4), torch.full((1, 1, 1), 0.5), Gaussian(0.25), 20_000, (0, 1, "test"), 1000)
    assert counts.tolist()[2] == 0
    assert int(counts.sum()) == 20_000
    assert stats.binomtest(int(counts[1]), 20_000, stats.norm.cdf(0.1 / 0.25)).pvalue > 1e-3


@pytest.mark.parametrize("count", [1, 63, 64, 65, 200])
def test_the_number_of_votes_is_exact_whatever_the_tile(count: int) -> None:
    image = torch.full((1, 1, 1), 0.5)
    found = [noisy_votes(Sides(0.5), image, Gaussian(0.25), count, (0, 1, "test"), tile) for tile in (1, 7, 64, 512)]
    assert all(torch.equal(found[0], other) for other in found)
    assert int(found[0].sum()) == count


def test_a_tie_and_nan_are_nobodys_votes() -> None:
    class Trap(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            rows = torch.zeros(len(images), 3)
            rows[0] = math.nan
            rows[1, 1] = 2.0
            return rows

    counts = noisy_votes(Trap(), torch.rand(1, 2, 2), Gaussian(0.1), 8, (0, 0, "test"), 8)
    assert counts.tolist() == [0, 1, 0]


def test_decisions_depend_on_seed_and_id_alone() -> None:
    model = vote(LinearOracle.random((1, 2, 2), 3), votes=40, alpha=0.3)
    batch = LinearOracle.random((1, 2, 2), 3).batch(20)
    whole = decide(model, batch, seed=5, tile=8)
    assert torch.equal(decide(model, batch.select(torch.arange(19, -1, -1)), seed=5, tile=3), whole.flip(0))
    assert torch.equal(torch.cat([decide(model, batch.select(slice(i, i + 1)), 5) for i in range(20)]), whole)
    assert len({tuple(decide(model, batch, seed=s).tolist()) for s in range(6)}) > 1


def test_forward_is_the_mean_softmax_over_a_fixed_bank() -> None:
    oracle = LinearOracle.random((1, 2, 2), 3)
    model = SmoothedClassifier(oracle, Gaussian(0.25), bank=4000, votes=1, alpha=0.5).eval()
    images = oracle.batch(2).images
    with torch.no_grad():
        found = model(images)
        noise = 0.25 * torch.randn(40_000, 1, 1, 2, 2, generator=torch.Generator().manual_seed(0))
        expected = torch.stack([oracle(x + noise[:, 0]).softmax(1).mean(0) for x in images])
    torch.testing.assert_close(found.exp(), expected, atol=0.02, rtol=0)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(2), atol=1e-4, rtol=0)
    assert torch.equal(found, model(images).detach())


def test_contract_and_names() -> None:
    model = vote(LinearOracle.random((1, 2, 2), 3))
    assert traits(model).stochastic
    check_classifier(model, (1, 2, 2))
    assert model.predictor == smoothed_name(predictor_name(model.base), Gaussian(0.25))
    assert smoothed_name("f", Gaussian(0.25)) == "smoothed(sigma=0.25, f)"
    assert smoothed_name("f", Gaussian(0.25)) != smoothed_name("f", Gaussian(0.2500000001))
