"""Certify while serving: for one image, its class, its radius and the number of votes that were needed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hauberk.batch import Batch
from hauberk.boundary import check_batch
from hauberk.certificates.smoothing import SmoothingCertificate
from hauberk.classifier import ABSTAIN, TILE
from hauberk.errors import HauberkError


@dataclass(frozen=True)
class Answer:
    """The answer for one image.

    Args:
        prediction: the class, or -1 where it abstains.
        radius: in which the smoothed classifier keeps the class, in the norm of the noise; rounded down.
        votes: that it took, those that chose the class included.
        alpha: the probability that the class or the radius is wrong is at most this one.
    """

    prediction: int
    radius: float
    votes: int
    alpha: float


@contextmanager
def serving(
    model: nn.Module, certificate: SmoothingCertificate, images: Tensor, seed: int, tile: int = TILE
) -> Iterator[Callable[[Tensor], Answer]]:
    """A predictor that certifies each image that it is given, with as few votes as are needed.

    The model passes the gate once, on some images, when the block is entered, and is looked at again when it is left.
    Inside, each answer is ``certificate``'s for one image: with ``rule="anytime"`` and a ``goal`` votes end as soon as
    the goal is certified, or hardly can be, and a stop at any number of votes is valid.  Every request has noise of its
    own, by its number, so that each answer is wrong with probability at most alpha, whatever was asked before.

    Args:
        model: the base, or a smoothed classifier with the same noise, in eval mode.
        certificate: noise, votes, alpha, rule and goal.
        images: (B, C, H, W) in [0, 1], similar to the requests; the gate probes the model on them.
        seed: of all noise.  Draw it afresh for every start, and keep it secret: an attacker who can predict the noise
            can choose an image for it, and for such an image alpha is not a bound.
        tile: rows of a model call.

    Raises:
        HauberkError: as certifying does; on shared noise; on an image of another shape, or out of [0, 1].
    """
    if certificate.draws == "shared":
        raise HauberkError(
            "shared noise is the same for every request, so that an attacker can learn it", "set draws: own"
        )
    poll, shape, numbers = certificate.poll(model), tuple(images.shape[1:]), itertools.count()

    def answer(image: Tensor) -> Answer:
        if tuple(image.shape) != shape:
            raise HauberkError(
                f"expected one image of shape {shape}, got {tuple(image.shape)}", "send one image at a time"
            )
        batch = _batch(image[None], next(numbers))
        check_batch(batch)
        (seen,) = poll.all(batch, seed, tile)
        decided = certificate.decision(seen)
        radius = certificate.radius(seen) if decided != ABSTAIN else 0.0
        return Answer(decided, radius, certificate.n0 + seen.n, certificate.alpha)

    with certificate.gate(model, _batch(images, 0), tile):
        yield answer


def _batch(images: Tensor, first: int) -> Batch:
    """With ids from a number on; labels are not read."""
    ids = torch.arange(first, first + len(images), device=images.device)
    return Batch(images, torch.zeros_like(ids), ids)
