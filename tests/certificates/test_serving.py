"""Certifying while serving: answers are the certificate's, errors at most alpha however votes stop, fresh noise."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from hauberk.batch import Batch
from hauberk.certificates import ABSTAIN, SmoothingCertificate
from hauberk.certificates.serving import serving
from hauberk.defences.smoothed import SmoothedClassifier
from hauberk.errors import HauberkError
from hauberk.noises import Gaussian

SIGMA, DISTANCE = 0.25, 0.12
GOAL = SmoothingCertificate(Gaussian(SIGMA), n0=16, n=1024, alpha=0.05, rule="anytime", goal=DISTANCE * 1.01)


class Threshold(nn.Module):
    """Class 1 above 1/2 in the first pixel."""

    def forward(self, images: Tensor) -> Tensor:
        lead = images.flatten(1)[:, 0] - 0.5
        return torch.stack([-lead, lead], 1)


def image(distance: float) -> Tensor:
    return torch.full((1, 1, 1), 0.5 + distance)


def grey(rows: int = 4) -> Tensor:
    return torch.full((rows, 1, 1, 1), 0.5)


def test_errors_are_at_most_alpha_where_votes_stop_as_soon_as_the_goal_is_certified() -> None:
    """The goal lies just beyond the true radius, so that whoever reaches it is wrong; it is looked at at every stop."""
    requests, loose = 700, dataclasses.replace(GOAL, alpha=0.3)
    with serving(Threshold().eval(), loose, grey(), seed=1, tile=512) as answer:
        found = [answer(image(DISTANCE)) for _ in range(requests)]
    wrong = sum(a.radius > DISTANCE or a.prediction == 0 for a in found)
    assert stats.binomtest(wrong, requests, loose.alpha, alternative="greater").pvalue > 1e-6
    assert wrong > 0  # and it does not abstain from everything
    assert {a.alpha for a in found} == {0.3}


def test_easy_images_take_few_votes() -> None:
    with serving(Threshold().eval(), GOAL, grey(), seed=2, tile=512) as answer:
        easy, hopeless, hard = answer(image(0.45)), answer(image(0.02)), answer(image(DISTANCE))
    assert easy.prediction == 1 and easy.radius >= DISTANCE * 1.01 and easy.votes == 16 + 128
    assert hopeless.votes < hard.votes == 16 + 1024
    assert hard.radius < DISTANCE * 1.01


def test_an_answer_is_that_of_the_certificate_with_noise_of_its_own() -> None:
    fixed = dataclasses.replace(GOAL, rule="fixed", goal=None, n=300)
    base = Threshold().eval()
    model = SmoothedClassifier(base, Gaussian(SIGMA), bank=2, votes=20, alpha=0.01).eval()
    with serving(model, fixed, grey(), seed=3, tile=64) as answer:
        found = [answer(image(0.2)) for _ in range(5)]
    batch = Batch(torch.stack([image(0.2)] * 5), torch.zeros(5).long(), torch.arange(5))
    whole = fixed(base, batch, seed=3, tile=64)
    assert [a.radius for a in found] == whole.radius.tolist() and len({a.radius for a in found}) > 1
    assert [a.prediction for a in found] == whole.prediction.tolist() == [1] * 5
    assert {a.votes for a in found} == {316}
    own = np.array([row["counts"][1] for row in whole.rows])
    lower = stats.beta.ppf(0.05, own, 301 - own)
    assert np.allclose([a.radius for a in found], SIGMA * stats.norm.ppf(lower), rtol=1e-9)


def test_it_abstains_at_the_boundary() -> None:
    with serving(Threshold().eval(), dataclasses.replace(GOAL, goal=None, n=256), grey(), seed=4) as answer:
        found = answer(image(0.0))
    assert (found.prediction, found.radius) == (ABSTAIN, 0.0)


def test_the_gate_stands_at_the_beginning_and_at_the_end() -> None:
    class Turning(Threshold):
        def __init__(self) -> None:
            super().__init__()
            self.sign = 1.0

        def forward(self, images: Tensor) -> Tensor:
            return self.sign * super().forward(images)

    model = Turning().eval()
    with pytest.raises(HauberkError, match="gives different answers"), serving(model, GOAL, grey(), 0) as answer:
        answer(image(0.3))
        model.sign = -1.0
    shared = dataclasses.replace(GOAL, draws="shared")
    with pytest.raises(HauberkError, match="for every request"), serving(Threshold().eval(), shared, grey(), 0):
        pass
    with pytest.raises(HauberkError, match="eval"), serving(Threshold().train(), GOAL, grey(), 0):
        pass
    with serving(Threshold().eval(), GOAL, grey(), 0) as answer:
        with pytest.raises(HauberkError, match="one image of shape"):
            answer(grey())
        with pytest.raises(HauberkError, match=r"\[0, 1\]"):
            answer(image(0.7))
