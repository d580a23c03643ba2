"""An upper bound of the time of an evaluation, from a short measurement of the model, given before it starts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hauberk.attacks import Attack
from hauberk.attacks.gradients import draws
from hauberk.batch import Samples
from hauberk.certificates import Certificate, DerandomisedSplitting, MixedCertificate
from hauberk.certificates.draw_bounds import DrawCertificate
from hauberk.certificates.voted import VoteCertificate
from hauberk.devices import device_of
from hauberk.evaluation.preflight import TRIALS, Speed, measure, passes
from hauberk.evaluation.work import Report, Step

SHORT = 0.2  # seconds of a tile that is timed several times
AT_ONCE = 0.02  # seconds of one image where a whole tile is timed as well


def foretell(
    model: nn.Module, samples: Samples, methods: Sequence[Attack | Certificate], tile: int, classes: int,
    shard: tuple[int, int], report: Report | None, most: float | None = None,
) -> None:  # fmt: skip
    """Report how long an evaluation takes at most, if there is a function to report to.

    Args:
        model: in eval mode, on its device.
        samples: all images of the evaluation.
        methods: attacks or certificates.
        tile: rows of a model call.
        classes: K.
        shard: (i, n) where every n-th unit is done.
        report: called with the time.
        most: seconds after which it is stopped.
    """
    if report is None or not len(samples):
        return
    count = math.ceil(len(samples) / shard[1])
    images = samples.select(slice(0, min(tile, len(samples)))).batch().to(device_of(model)).images
    random = draws(model, images[:1]) > 1
    each = per_image(model, images, methods, classes, random)
    names = ", ".join(dict.fromkeys(type(m).__name__ for m in methods))
    whole = each * count if most is None else min(most, each * count)
    report(Step(0, count, whole, f"{names} on {count} images", ahead=True))


def per_image(
    model: nn.Module, images: Tensor, methods: Sequence[Attack | Certificate], classes: int, random: bool,
    speed: Speed | None = None,
) -> float:  # fmt: skip
    """Seconds of one image that withstands every method to its end.

    A vote is a pass of the base that votes, and not of the smoothed classifier around it, which makes many.

    Args:
        model: in eval mode, on its device.
        images: a tile, (B, C, H, W).
        methods: attacks or certificates.
        classes: K.
        random: whether the model draws at random.
        speed: the model's, where it is known.
    """
    known = {} if speed is None else {id(model): speed}
    total = 0.0
    for method in methods:
        poll = method.poll(model) if isinstance(method, Certificate) else None
        asked = model if poll is None else poll.base
        if id(asked) not in known:
            known[id(asked)] = glance(asked, images)
        total += seconds(method, known[id(asked)], classes, random)
    return total


def glance(model: nn.Module, images: Tensor) -> Speed:
    """Seconds an image: on the whole tile, or on one image where a tile would take long."""
    with torch.random.fork_rng(devices=[]):
        one = measure(model, images[:1], 1)
        if one.gradient > AT_ONCE:
            return one
        return measure(model, images, TRIALS if one.gradient * len(images) < SHORT else 1)


def seconds(method: Attack | Certificate, speed: Speed, classes: int, random: bool = False) -> float:
    """Of one image that withstands to the end; NaN for a certificate whose cost is not a number of passes."""
    if isinstance(method, Attack):
        return speed.seconds(*passes(method, classes, random))
    votes = vote_count(method)
    return votes * speed.forward if votes else math.nan


def vote_count(certificate: Certificate) -> int:
    """The votes or draws that a certificate takes on each image; 0 for one that takes none."""
    inner = certificate.base if isinstance(certificate, MixedCertificate) else certificate
    if isinstance(inner, DerandomisedSplitting):
        return inner.splits
    if isinstance(inner, DrawCertificate):
        return 2 * inner.n0 + inner.n  # the model itself in those that choose, and its copy in all
    return inner.n0 + inner.n if isinstance(inner, VoteCertificate) else 0
