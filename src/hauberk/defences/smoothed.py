"""The smoothed classifier: the majority vote of a base classifier under noise (Cohen et al. 2019, Eq. 1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hauberk import registry
from hauberk.batch import keep_freed_memory
from hauberk.capabilities import Decides, NamesItself
from hauberk.classifier import ABSTAIN, TILE, Traits, predictor_name
from hauberk.defences.denoised import check_sigma
from hauberk.noises import Noise, RandomStep
from hauberk.pulse import beat
from hauberk.randomness import Consecutive, Key, stream, stream_on
from hauberk.specs import Rows
from hauberk.statistics import two_sided_binomial_p

Stream = tuple[int, int, str]


def smoothed_name(base: str, noise: RandomStep) -> str:
    """How records call the smoothed classifier of a base predictor."""
    spec = registry.spec(noise)
    family = "" if spec["name"] == "gaussian" else f"{spec['name']} "  # records had no other noise before there was one
    settings = ", ".join(f"{key}={value!r}" for key, value in spec.items() if key != "name")
    return f"smoothed({family}{settings}, {base})"


@torch.no_grad()
def noisy_votes(base: nn.Module, image: Tensor, noise: RandomStep, count: int, key: Stream, tile: int) -> Tensor:
    """Hard votes of the base for one image under noise.

    Args:
        base: a classifier in eval mode.
        image: shape (C, H, W).
        noise: its distribution, or another random step.
        count: how many votes.
        key: (seed, sample id, purpose) of the random stream, which is drawn where the image is.
        tile: rows of every model call, as many as the votes where they are fewer; the last call is padded.

    Returns:
        counts, int64, shape (K,); their sum is ``count`` less the copies with NaN or a tie at the top, nobody's votes.
    """
    keep_freed_memory()
    rows = min(tile, count)
    randomness = Consecutive(stream_on(image.device, *key), rows)
    counts: Tensor | None = None
    for start in range(0, count, rows):
        logits = base(noise.noisy(image, randomness))[: min(rows, count - start)]
        beat(len(logits))
        top = logits.topk(2, dim=1)
        clear = top.values[:, 0] > top.values[:, 1]
        votes = torch.bincount(top.indices[clear, 0], minlength=logits.shape[1])
        counts = votes if counts is None else counts + votes
    assert counts is not None  # noqa: S101 - count >= 1
    return counts


class SmoothedClassifier(nn.Module, Decides, NamesItself):
    r"""Majority vote of ``base`` under noise, :math:`g(x) = \arg\max_c P[f(x+z)=c]`.

    Two views of one classifier.  ``forward`` is what an attacker differentiates: the log of the mean softmax over a
    fixed bank of noise draws, deterministic and with exact gradients.  ``decide`` is the classifier itself: PREDICT of
    Cohen et al. 2019 on fresh noise of each sample's own stream, which abstains (-1) when the two-sided binomial test
    between the two top classes is not significant.

    Args:
        base: the classifier that sees the noisy images.
        noise: its distribution.
        bank: number of fixed draws in ``forward``.
        votes: number of fresh draws in ``decide``.
        alpha: error probability of one decision.
    """

    traits = Traits(stochastic=True)
    draws: Tensor

    def __init__(self, base: nn.Module, noise: Noise, bank: int, votes: int, alpha: float) -> None:
        super().__init__()
        self.base, self.noise, self.bank, self.votes, self.alpha = base, noise, bank, votes, alpha
        self.spec: dict[str, Any] = {}

    @property
    def predictor(self) -> str:
        """How records call it."""
        return smoothed_name(predictor_name(self.base), self.noise)

    def forward(self, images: Tensor) -> Tensor:
        """Log of the mean softmax over the bank, shape (B, C, H, W) to (B, K)."""
        randomness = Consecutive(stream(0, 0, "smoothed-bank"), 1)
        total: Tensor | None = None
        for _ in range(self.bank):
            draw = self.noise.sample(randomness, *images.shape[1:]).to(images)
            term = self.base(images + draw).log_softmax(1)
            total = term if total is None else torch.logaddexp(total, term)
        assert total is not None  # noqa: S101 - bank >= 1
        return total - float(np.log(self.bank))

    @torch.no_grad()
    def decide(self, images: Tensor, key: Key) -> Tensor:
        """PREDICT on fresh noise, shape (B,), int64, ``ABSTAIN`` where it abstains."""
        decisions: dict[int, int] = {}
        for image, sample_id in zip(images, key.ids, strict=True):
            if sample_id not in decisions:  # a tile is filled up with copies of its last image
                decisions[sample_id] = self._predict(image, (key.seed, sample_id, "smoothed-decide"))
        return torch.tensor([decisions[i] for i in key.ids], dtype=torch.int64, device=images.device)

    def _predict(self, image: Tensor, key: Stream) -> int:
        top = noisy_votes(self.base, image, self.noise, self.votes, key, TILE).topk(2)
        first, second = (int(c) for c in top.values)
        return int(top.indices[0]) if two_sided_binomial_p(first, second) <= self.alpha else ABSTAIN


def smoothed(
    base: nn.Module, noise: Noise, bank: Rows = 16, votes: Rows = 1000, alpha: float = 0.001
) -> SmoothedClassifier:
    """Build a smoothed classifier.

    Args:
        base: a built model, or in a spec its description.
        noise: its distribution; ``sigma: 0.25`` is short for Gaussian noise.
        bank: fixed draws that an attack differentiates through.
        votes: fresh draws of one decision.
        alpha: error probability of one decision.

    Raises:
        HauberkError: if the base holds a denoiser for another sigma.
    """
    check_sigma(base, noise.sigma)
    model = SmoothedClassifier(base, noise, bank, votes, alpha)
    model.spec = {
        "name": "smoothed", "base": registry.spec(base), "noise": registry.spec(noise), "bank": bank, "votes": votes,
        "alpha": alpha,
    }  # fmt: skip
    return model
