"""The smoothed classifier: the majority vote of a base classifier under noise (Cohen et al. 2019, Eq. 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hauberk import registry
from hauberk.batch import keep_freed_memory
from hauberk.boundary import called
from hauberk.capabilities import Decides, FixesDraws, NamesItself
from hauberk.classifier import ABSTAIN, TILE, Traits, predictor_name
from hauberk.defences.denoised import check_sigma
from hauberk.draws import drawn, draws_by_key
from hauberk.errors import HauberkError
from hauberk.noises import Noise, RandomStep
from hauberk.pulse import beat
from hauberk.randomness import Consecutive, Key, PerSample, PublicDraw, Randomness, stream, stream_on
from hauberk.specs import Rows
from hauberk.statistics import two_sided_binomial_p

Stream = tuple[int, int, str]


def smoothed_name(base: str, noise: RandomStep) -> str:
    """How records call the smoothed classifier of a base predictor."""
    spec = registry.spec(noise)
    family = "" if spec["name"] == "gaussian" else f"{spec['name']} "  # records had no other noise before there was one
    settings = ", ".join(f"{key}={value!r}" for key, value in spec.items() if key != "name")
    return f"smoothed({family}{settings}, {base})"


def voter(base: nn.Module) -> str:
    """The base's part in the name of a vote; of a random base each vote takes a fresh draw."""
    return f"draws of {predictor_name(base)}" if draws_by_key(base) else predictor_name(base)


class SharedNoiseError(HauberkError):
    """A random part asked for noise that all rows of a batch share, which votes do not."""


@dataclass(frozen=True)
class Votes(Key):
    """The draws inside a base for some votes on one image: the ids are the numbers of the votes, the number its id.

    Every vote has noise of its own, which depends neither on the image nor on the noise that is added to it.
    """

    def shared(self, like: Tensor) -> Randomness:
        """Noise that all rows share, where there is one row; see ``SharedNoiseError``."""
        if len(self.ids) != 1:
            raise SharedNoiseError(
                "several votes on one image in one call would share their noise", "take one vote in each call"
            )
        return PerSample(self.seed, self.ids, f"{self.purpose}#{self.number}", like.device)


def _answers(base: nn.Module, copies: Tensor, key: Stream, first: int) -> Tensor:
    """Logits of noisy copies of one image; a random base takes a fresh draw for each of them."""
    if not draws_by_key(base):
        logits: Tensor = base(copies)
        return logits
    seed, sample, purpose = key
    votes = [Votes(seed, sample, (first + row,), f"{purpose}-inside") for row in range(len(copies))]
    try:
        together: Tensor = drawn(base, replace(votes[0], ids=tuple(vote.ids[0] for vote in votes)))(copies)
        return together
    except SharedNoiseError:
        return torch.cat([called(drawn(base, vote), copy[None]) for vote, copy in zip(votes, copies, strict=True)])


def noisy_votes(base: nn.Module, image: Tensor, noise: RandomStep, count: int, key: Stream, tile: int) -> Tensor:
    """Hard votes of the base for one image under noise; of a random base each vote has a draw of its own.

    Args:
        base: a classifier in eval mode.
        image: shape (C, H, W).
        noise: its distribution, or another random step.
        count: how many votes.
        key: (seed, sample id, purpose) of the random stream, which is drawn where the image is.
        tile: rows of every model call, as many as the votes where they are fewer; the last call is padded.

    Returns:
        counts, int64, shape (K,); their sum is ``count`` minus the copies with NaN or a tie at the top, which are not
        counted.
    """
    return shared_votes(base, image[None], noise, count, key, tile)[0]


@torch.no_grad()
def shared_votes(base: nn.Module, images: Tensor, noise: RandomStep, count: int, key: Stream, tile: int) -> Tensor:
    """Hard votes of the base for several images under the same draws of noise, made once.

    Each row is what ``noisy_votes`` gives for that image and key.  Over the draws the counts of one image are those of
    independent votes; counts of different images depend on each other, more so the more similar the images are.

    Args:
        base: a classifier in eval mode.
        images: shape (B, C, H, W).
        noise: its distribution, or another random step.
        count: how many votes of each image.
        key: (seed, sample id, purpose) of the random stream, which is drawn where the images are.
        tile: as in ``noisy_votes``.

    Returns:
        counts, int64, shape (B, K).
    """
    keep_freed_memory()
    rows = min(tile, count)
    randomness = Consecutive(stream_on(images.device, *key), rows)
    draws = Replayed(randomness) if len(images) > 1 else None
    counts: Tensor | None = None
    for start in range(0, count, rows):
        used = min(rows, count - start)
        tiles = (_answers(base, copies, key, start)[:used] for copies in _copies(images, noise, draws, randomness))
        votes = torch.stack([_counted(logits) for logits in tiles])
        counts = votes if counts is None else counts + votes
    assert counts is not None  # noqa: S101 - count >= 1
    return counts


class Replayed:
    """Randomness that records its draws and can repeat them, from the first draw since ``forget``.

    Args:
        source: where they come from.
    """

    def __init__(self, source: Randomness) -> None:
        self._source = source
        self._drawn: list[tuple[str, tuple[int, ...], Tensor]] = []
        self._given = 0

    def bits(self, *shape: int) -> Tensor:
        """Uniform integers of 63 bits, int64, shape (B, *shape)."""
        return self._give("bits", shape)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform on [0, 1), float32, shape (B, *shape)."""
        return self._give("uniform", shape)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, float32, shape (B, *shape)."""
        return self._give("normal", shape)

    def again(self) -> None:
        """Repeat the recorded draws, from the first one on."""
        self._given = 0

    def forget(self) -> None:
        """Forget the recorded draws; the next draw is new."""
        self._drawn, self._given = [], 0

    def _give(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        if self._given == len(self._drawn):
            self._drawn.append((kind, shape, getattr(self._source, kind)(*shape)))
        known, size, draws = self._drawn[self._given]
        if (known, size) != (kind, shape):
            raise HauberkError(
                f"{known} {size} was drawn the first time, but {kind} {shape} the second time",
                "make all draws in a fixed order",
            )
        self._given += 1
        return draws.clone()  # a noise may work in place


def _copies(images: Tensor, noise: RandomStep, draws: Replayed | None, randomness: Consecutive) -> Iterator[Tensor]:
    """Noisy copies of each image under the next draws."""
    if draws is None:  # nothing need be kept
        yield noise.noisy(images[0], randomness)
        return
    draws.forget()
    for image in images:
        draws.again()
        yield noise.noisy(image, draws)


def _counted(logits: Tensor) -> Tensor:
    """Votes for each class, (K,)."""
    beat(len(logits))
    top = logits.topk(2, dim=1)
    clear = top.values[:, 0] > top.values[:, 1]
    return torch.bincount(top.indices[clear, 0], minlength=logits.shape[1])


class SmoothedClassifier(nn.Module, Decides, NamesItself, FixesDraws):
    r"""Majority vote of ``base`` under noise, :math:`g(x) = \arg\max_c P[f(x+z)=c]`.

    Two views of one classifier.  ``forward`` is what an attacker differentiates: the log of the mean softmax over a
    fixed bank of noise draws, deterministic and with exact gradients.  ``decide`` is the classifier itself: PREDICT of
    Cohen et al. 2019 on fresh noise of each sample's own stream, which abstains (-1) when the two-sided binomial test
    between the two top classes is not significant.  Of a random base the vote is over its draws too,
    :math:`\arg\max_c P[f(x+z;\omega)=c]`: each vote has a fresh one, each draw of the bank a public one.

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
        return smoothed_name(voter(self.base), self.noise)

    def forward(self, images: Tensor) -> Tensor:
        """Log of the mean softmax over the bank, shape (B, C, H, W) to (B, K)."""
        randomness = Consecutive(stream(0, 0, "smoothed-bank"), 1)
        total: Tensor | None = None
        for number in range(self.bank):
            draw = self.noise.sample(randomness, *images.shape[1:])
            term = drawn(self.base, PublicDraw(0, number))(self.noise.added(images, draw)).log_softmax(1)
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

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from hauberk.batch import Batch
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).eval()
        >>> _ = net[1].weight.data.copy_(torch.tensor([[1.0, -1, 0, 0], [-1, 1, 0, 0]]))  # is pixel 0 brighter?
        >>> batch = Batch(torch.tensor([0.6, 0.5, 0, 0]).reshape(1, 1, 2, 2), torch.tensor([0]), torch.tensor([0]))
        >>> net.spec = {"name": "a linear net"}
        >>> from hauberk.defences import smoothed
        >>> from hauberk.noises import Gaussian
        >>> model = smoothed(net, Gaussian(0.1)).eval()
        >>> model(batch.images).argmax(1)
        tensor([0])
    """
    check_sigma(base, noise.sigma)
    model = SmoothedClassifier(base, noise, bank, votes, alpha)
    model.spec = {
        "name": "smoothed", "base": registry.spec(base), "noise": registry.spec(noise), "bank": bank, "votes": votes,
        "alpha": alpha,
    }  # fmt: skip
    return model
