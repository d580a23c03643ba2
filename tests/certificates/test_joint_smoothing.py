r"""Smoothing a random base: a vote over input noise and the base's own, each vote with a fresh draw of both.

The toy is a half-space with Gaussian noise inside, :math:`f(x;\omega) = \mathrm{sign}(x_1 - t + \tau\omega)`, whose
joint vote at a point has the probability :math:`\Phi((x_1 - t)/\sqrt{\sigma^2 + \tau^2})`.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from tests.random_nets import net
from torch import Tensor, nn

from hauberk.audit.certificates import certify_again
from hauberk.batch import Batch
from hauberk.capabilities import Random
from hauberk.certificates import MixedCertificate, SmoothingCertificate
from hauberk.classifier import decide, traits
from hauberk.conformance import check_classifier
from hauberk.defences import MixedClassifier, SmoothedClassifier
from hauberk.defences.smoothed import _answers, noisy_votes
from hauberk.errors import HauberkError
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import certificate_records
from hauberk.evaluation.work import Work
from hauberk.layers import NoiseInjection
from hauberk.noises import Gaussian
from hauberk.randomness import Draw
from hauberk.records import group, read_all
from hauberk.verify.facts import _names
from hauberk.verify.polls import poll_problems
from hauberk.verify.proofs import verify_part

SIGMA, TAU, AT = 0.3, 0.4, 0.7  # the noise outside, the noise inside, and where the image is
P = float(stats.norm.cdf((AT - 0.5) / np.hypot(SIGMA, TAU)))


class HalfSpace(nn.Module):
    """Logits 0 and x_1 - 1/2."""

    def forward(self, images: Tensor) -> Tensor:
        first = images.flatten(1)[:, :1]
        return torch.cat([torch.zeros_like(first), first - 0.5], 1)


class OneShift(Random):
    """One number for all rows of a call, which is added to all pixels."""

    def __init__(self, tau: float) -> None:
        super().__init__()
        self.tau = tau

    def draw(self, key: Draw) -> nn.Module:
        return Shifted(key, self.tau)


class Shifted(nn.Module):
    def __init__(self, key: Draw, tau: float) -> None:
        super().__init__()
        self.key, self.tau = key, tau

    def forward(self, values: Tensor) -> Tensor:
        return values + self.tau * self.key.shared(values).normal(1)[0]


def toy(tau: float = TAU, shared: bool = False) -> nn.Module:
    return nn.Sequential(OneShift(tau) if shared else NoiseInjection(Gaussian(tau)), HalfSpace()).eval()


def batch(rows: int = 4, at: float = AT) -> Batch:
    images = torch.full((rows, 1, 1, 2), at)
    return Batch(images, torch.ones(rows, dtype=torch.int64), torch.arange(rows) + 30)


def test_votes_are_fresh_draws_of_both_noises_and_do_not_follow_each_other() -> None:
    """Lag-1 correlation, the correlation of both noises, and the noise inside at another image: all as of i.i.d."""
    n, key = 4000, (3, 7, "smoothing-counts@0")
    zero, one = torch.zeros(n, 1, 1, 2), torch.ones(n, 1, 1, 2)
    inside = _answers(toy(1.0), zero, key, 0)[:, 1].numpy() + 0.5
    assert len(np.unique(inside)) == n
    assert stats.kstest(inside, "norm").pvalue > 1e-4
    assert abs(np.corrcoef(inside[1:], inside[:-1])[0, 1]) < 4 / np.sqrt(n)
    np.testing.assert_allclose(_answers(toy(1.0), one, key, 0)[:, 1].numpy() - 0.5, inside, atol=1e-6)
    outside = Gaussian(1.0).noisy(zero[0], _consecutive(key, n)).flatten(1)[:, 0].numpy()
    assert abs(np.corrcoef(inside, outside)[0, 1]) < 4 / np.sqrt(n)
    for other in ((4, 7, key[2]), (3, 8, key[2]), (3, 7, "smoothing-counts0@0")):
        assert abs(np.corrcoef(inside, _answers(toy(1.0), zero, other, 0)[:, 1].numpy())[0, 1]) < 4 / np.sqrt(n)


def _consecutive(key: tuple[int, int, str], rows: int) -> object:
    from hauberk.randomness import Consecutive, stream

    return Consecutive(stream(*key), rows)


@pytest.mark.parametrize("shared", [False, True])
def test_votes_do_not_depend_on_the_rows_of_a_call_and_have_the_joint_probability(shared: bool) -> None:
    """Also where the noise inside is one for all rows of a call: then every vote is a call of its own."""
    n, image = (600 if shared else 4000), batch().images[0]
    model, key = toy(shared=shared), (0, 5, "votes")
    counts = [noisy_votes(model, image, Gaussian(SIGMA), n, key, tile).tolist() for tile in (64, 7)]
    assert counts[0] == counts[1]
    assert stats.binomtest(counts[0][1], n, P).pvalue > 1e-3
    alone = stats.norm.cdf((AT - 0.5) / SIGMA)  # of the noise outside, and one draw inside for all votes
    assert stats.binomtest(counts[0][1], n, alone).pvalue < 1e-6


def test_a_thousand_certificates_fail_with_at_most_alpha() -> None:
    r"""The radius exceeds :math:`\sigma\Phi^{-1}(p)` of the joint vote in at most a share alpha of repetitions."""
    alpha, runs = 0.05, 1000
    votes = SmoothingCertificate(Gaussian(SIGMA), n0=1, n=60, alpha=alpha)
    found = votes(toy(), batch(runs), seed=1)
    failed = int(((found.radius > SIGMA * stats.norm.ppf(P)) & (found.prediction == 1)).sum())
    assert failed + int((found.prediction == 0).sum()) <= stats.binom.ppf(1 - 1e-4, runs, alpha)
    assert failed > 0  # it is no empty promise
    assert int((found.radius > 0).sum()) > 300


def test_no_radius_beyond_the_ceiling() -> None:
    votes = SmoothingCertificate(Gaussian(SIGMA), n0=10, n=500, alpha=0.001)
    ceiling = SIGMA * stats.norm.ppf(0.001 ** (1 / 500))
    far = votes(toy(0.01), batch(2, at=1.0), seed=0)
    assert float(far.radius.max()) <= ceiling
    sure = votes(nn.Sequential(NoiseInjection(Gaussian(0.01)), HalfSpace(), Add()).eval(), batch(2), seed=0)
    assert float(sure.radius.min()) == pytest.approx(ceiling, rel=1e-9)
    assert float(sure.radius.max()) <= ceiling


class Add(nn.Module):
    """Push the second logit so far up that every vote is for it."""

    def forward(self, logits: Tensor) -> Tensor:
        return logits + torch.tensor([0.0, 50.0])


def test_its_name_says_that_each_vote_draws(tmp_path: Path) -> None:
    votes, model = SmoothingCertificate(Gaussian(SIGMA), n0=50, n=200, alpha=0.01), toy()
    assert votes.predictor(model).startswith(f"smoothed(sigma={SIGMA}, draws of Sequential[")
    wrapped = SmoothedClassifier(model, Gaussian(SIGMA), 4, 100, 0.01).eval()
    assert wrapped.predictor == votes.predictor(model) == votes.predictor(wrapped)
    found = certificate_records(model, batch(), votes, Setting("toy", "test", ("a", "b"), tile=4), Work(tmp_path))
    (part,) = group(found)
    assert verify_part(part).problems == ()
    assert list(poll_problems([*found, *read_all(tmp_path, "votes"), *read_all(tmp_path, "plan")])) == []
    assert part.unit["predictor"] in _names(part, votes.predictor(model).split("draws of ")[1][:-1])
    generator = np.random.default_rng(0)
    target = type("Target", (), {"model": model})()
    assert list(certify_again(part, target, batch(), generator, [])) == []  # type: ignore[arg-type]
    louder = type("Target", (), {"model": toy(20.0)})()
    assert list(certify_again(part, louder, batch(), generator, []))  # type: ignore[arg-type]


def test_the_smoothed_classifier_of_a_random_base_is_one_vote_and_its_bank_is_public() -> None:
    model = SmoothedClassifier(net(), Gaussian(0.2), bank=3, votes=200, alpha=0.05).eval()
    images = Batch(torch.rand(6, 1, 2, 4), torch.zeros(6, dtype=torch.int64), torch.arange(6))
    assert torch.equal(model(images.images), model(images.images))
    assert traits(model).stochastic
    check_classifier(model, (1, 2, 4))
    whole = decide(model, images, seed=2, tile=4)
    assert torch.equal(decide(model, images.select([5]), seed=2), whole[5:])
    assert set(whole.tolist()) <= {-1, 0, 1, 2}


class Global(nn.Module):
    """Noise from torch's generator, which no key repeats."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.randn(len(images), 2)


class Mixing(Random):
    """A random part that lets the rows of a batch see each other."""

    def draw(self, key: Draw) -> nn.Module:
        return Centred(key)


class Centred(nn.Module):
    def __init__(self, key: Draw) -> None:
        super().__init__()
        self.key = key

    def forward(self, values: Tensor) -> Tensor:
        return values - values.mean(0) + self.key.rows(values).normal(*values.shape[1:])


def test_what_is_no_function_of_image_and_draw_is_refused() -> None:
    votes = SmoothingCertificate(Gaussian(SIGMA), n0=5, n=20, alpha=0.1)
    with pytest.raises(HauberkError, match="draws random numbers"):
        votes(nn.Sequential(NoiseInjection(Gaussian(0.1)), Global()).eval(), batch())
    with pytest.raises(HauberkError, match="other images of the batch"):
        votes(nn.Sequential(Mixing(), HalfSpace()).eval(), batch())
    mix = MixedClassifier(toy(), SmoothedClassifier(HalfSpace().eval(), Gaussian(SIGMA), 2, 20, 0.1), 0.8, 1.0, 1.0)
    with pytest.raises(HauberkError, match="random"):  # the accurate half of a mix has to be one function
        MixedCertificate(votes)(mix.eval(), batch())
