r"""Splitting noise without randomness: every split of a fixed set votes, on images of 8 bits (Levine & Feizi 2021).

Pixels are whole numbers of levels, 0 to 255.  Every m levels the line of a pixel is split, and the base receives
between which two splits the pixel lies.  There are m places to begin; vote number v begins at :math:`(v + t_i) \bmod m`
for pixel i, with a fixed template t.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from hauberk import registry
from hauberk.batch import keep_freed_memory
from hauberk.capabilities import Decides, NamesItself
from hauberk.classifier import ABSTAIN, TILE, Traits, predictor_name
from hauberk.pulse import beat
from hauberk.randomness import Key, stream
from hauberk.specs import Rows

LEVELS = 255
Splits = Annotated[int, Field(ge=2, le=65_536)]


def levels(images: Tensor) -> Tensor:
    """The nearest whole levels, int64; the product with 255 is exact for images in float32."""
    return images.double().mul(LEVELS).round_().long()


def splits_of(seed: int, splits: int, shape: tuple[int, ...]) -> Tensor:
    """The template t, int64, of the shape of one image: independent and uniform on 0, ..., m - 1."""
    return torch.from_numpy(stream(seed, 0, "splitting-template").integers(0, splits, shape))  # on the CPU: a table


def views(pixels: Tensor, starts: Tensor, splits: int) -> Tensor:
    r"""The middle of the part of 0, ..., 255 between the two splits around each pixel, divided by 255; float64.

    With a split behind each of the levels s, s + m, s + 2m, ..., the interval of level q begins with
    :math:`a = q - ((q - s - 1) \bmod m)` and ends with :math:`a + m - 1`.

    Args:
        pixels: whole levels.
        starts: s, of a shape that fits.
        splits: m.
    """
    first = pixels - torch.remainder(pixels - starts - 1, splits)
    return (first.clamp_min(0) + (first + splits - 1).clamp_max(LEVELS)).double() / (2 * LEVELS)


@torch.no_grad()
def split_votes(base: nn.Module, image: Tensor, splits: int, seed: int) -> Tensor:
    """Hard votes of the base for one image, one for each place where the splits may begin.

    A vote is of the same row of a batch of the same size for every image, so that equal views get equal answers.

    Args:
        base: a classifier in eval mode.
        image: shape (C, H, W).
        splits: m.
        seed: of the template.

    Returns:
        counts, int64, shape (K,); their sum is m minus the views with NaN or a tie at the top, which are not counted.
    """
    keep_freed_memory()
    pixels, template = levels(image), splits_of(seed, splits, tuple(image.shape)).to(image.device)
    counts: Tensor | None = None
    for start in range(0, splits, TILE):
        number = torch.arange(start, start + TILE, device=image.device)[:, None, None, None]  # the last call is filled
        seen = views(pixels, torch.remainder(number + template, splits), splits)
        logits = base(seen.to(image))[: min(TILE, splits - start)]
        beat(len(logits))
        top = logits.topk(2, dim=1)
        clear = top.values[:, 0] > top.values[:, 1]
        votes = torch.bincount(top.indices[clear, 0], minlength=logits.shape[1])
        counts = votes if counts is None else counts + votes
    assert counts is not None  # noqa: S101 - splits >= 1
    return counts


class DerandomisedClassifier(nn.Module, Decides, NamesItself):
    """The class with most votes of ``base`` over all splits of the image, which is rounded to whole levels first.

    ``decide`` is the classifier itself, a function without randomness; it abstains (-1) where two classes have equally
    many votes.  ``forward`` is what an attacker differentiates: the log of the mean softmax over some of the views,
    whose gradient is that of the image itself, since a view is constant almost everywhere.

    Args:
        base: the classifier that sees the views.
        splits: m, the places where the splits may begin, and the distance between them in levels.
        seed: of the template.
        bank: number of views in ``forward``.
    """

    traits = Traits(gradient="bpda")

    def __init__(self, base: nn.Module, splits: int, seed: int, bank: int) -> None:
        super().__init__()
        self.base, self.splits, self.seed, self.bank = base, splits, seed, bank
        self.spec: dict[str, Any] = {}

    @property
    def predictor(self) -> str:
        """How records call it."""
        return derandomised_name(predictor_name(self.base), self.splits, self.seed)

    def forward(self, images: Tensor) -> Tensor:
        """Log of the mean softmax over the bank, shape (B, C, H, W) to (B, K)."""
        template = splits_of(self.seed, self.splits, tuple(images.shape[1:])).to(images.device)
        pixels = levels(images.detach())
        terms = []
        for number in range(self.bank):
            starts = torch.remainder(number * self.splits // self.bank + template, self.splits)
            view = views(pixels, starts, self.splits).to(images)
            terms.append(self.base(images + (view - images).detach()).log_softmax(1))
        return torch.stack(terms).logsumexp(0) - math.log(self.bank)

    @torch.no_grad()
    def decide(self, images: Tensor, key: Key) -> Tensor:  # noqa: ARG002 - nothing is drawn
        """The class with most votes, shape (B,), int64, ``ABSTAIN`` where two have equally many."""
        found = [split_votes(self.base, image, self.splits, self.seed).topk(2) for image in images]
        chosen = [int(t.indices[0]) if t.values[0] > t.values[1] else ABSTAIN for t in found]
        return torch.tensor(chosen, dtype=torch.int64, device=images.device)


def derandomised_name(base: str, splits: int, seed: int) -> str:
    """How records call the vote over the splits of a base predictor."""
    return f"derandomised(splits={splits!r}, seed={seed!r}, {base})"


def derandomised(base: nn.Module, splits: Splits, seed: int = 0, bank: Rows = 16) -> DerandomisedClassifier:
    """Build a vote over all splits.

    Args:
        base: a built model, or in a spec its description.
        splits: m, the places where the splits may begin, and the distance between them in levels of 8 bits.
        seed: of the template.
        bank: views that an attack differentiates through.
    """
    model = DerandomisedClassifier(base, splits, seed, bank)
    model.spec = {
        "name": "derandomised", "base": registry.spec(base), "splits": splits, "seed": seed, "bank": bank,
    }  # fmt: skip
    return model
