"""A forecast of the results of a certificate by votes from a few votes of some images: estimates, not certificates."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from hauberk.batch import Batch
from hauberk.certificates.evidence import VoteCounts
from hauberk.certificates.voted import VoteCertificate
from hauberk.certificates.votes import Poll
from hauberk.defences.smoothed import noisy_votes
from hauberk.statistics import Interval

VOTES = 200  # of each image in a pilot
SHARES = 33  # quantiles by which a posterior is integrated
SHAPES = np.exp(np.linspace(math.log(0.02), math.log(50.0), 48))  # that a law of shares may have
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Forecast:
    """Estimates of what a certificate will show.

    Args:
        images: of the pilot.
        votes: of each of them.
        n: votes that the certificate plans.
        levels: radii, and the share of images that will be certified at each and right.
        mean_radius: the average certified radius.
    """

    images: int
    votes: int
    n: int
    levels: tuple[tuple[float, Interval], ...]
    mean_radius: Interval


def pilot(poll: Poll, batch: Batch, seed: int, tile: int, votes: int = VOTES) -> list[int]:
    """How many of a few votes are for the label of each image.

    They come from streams of their own, so that they reveal none of a certificate's votes.

    Args:
        poll: of the certificate.
        batch: images and labels.
        seed: of the evaluation.
        tile: rows of every model call.
        votes: of each image.
    """
    with poll.gate(batch, tile):
        found = [
            noisy_votes(poll.base, image, poll.plan.noise, votes, (seed, i, "smoothing-pilot"), tile)
            for image, i in zip(batch.images, batch.ids.tolist(), strict=True)
        ]
    return [int(counts[label]) for counts, label in zip(found, batch.labels.tolist(), strict=True)]


def forecast(
    certificate: VoteCertificate, own: Sequence[int], votes: int = VOTES, radii: Sequence[float] = ()
) -> Forecast:
    r"""Certified accuracy and mean radius that a certificate is expected to show at its planned n.

    The probabilities :math:`p_i` of the label are taken for draws of a Beta law, which is fitted to the pilot by its
    likelihood.  Image i then has the posterior :math:`\text{Beta}(a + k_i, b + m - k_i)`, and is certified at r with
    probability :math:`E\,P(\text{Bin}(n, p_i) \ge k_r)`, where :math:`k_r` is the smallest count of n votes whose bound
    proves r, all other votes being for one class.

    The intervals are of 95 % confidence, approximate, and about the choice of the images and their unknown
    probabilities.  They are not valid if the distribution near 0 and 1 is not a Beta distribution, which a pilot cannot
    see: for images with all m votes it does not show how far their probability is above 1 - 1/m.

    Args:
        certificate: with its planned n.
        own: votes :math:`k_i` for the label, of each image.
        votes: m, of each image.
        radii: at which the accuracy is wanted; without any a few round ones.
    """
    top = _radius(certificate, certificate.n)
    grid = np.linspace(0.0, top, 41)
    wanted = list(radii) or _round(top)
    counts, images = np.unique(np.asarray(own), return_counts=True)
    shares = _posterior(counts, images, votes)
    weights = images / images.sum()
    curve = np.array([_certified(certificate, r, shares) @ weights for r in grid])
    mean, square = np.trapezoid(curve, grid), np.trapezoid(2.0 * grid * curve, grid)
    error = 1.96 * math.sqrt(max(0.0, float(square - mean**2)) / len(own))
    levels = [(r, _share(float(_certified(certificate, r, shares) @ weights), len(own))) for r in wanted]
    radius = Interval(float(mean), max(0.0, float(mean) - error), float(mean) + error, len(own))
    return Forecast(len(own), votes, certificate.n, tuple(levels), radius)


def _posterior(counts: NDArray[np.int64], images: NDArray[np.int64], votes: int) -> Floats:
    """Quantiles of the posterior of each count, (counts, SHARES), under the Beta law that fits all images best."""
    a, b = np.meshgrid(SHAPES, SHAPES, indexing="ij")
    k = counts[:, None, None]
    likelihood = (images[:, None, None] * (special.betaln(a + k, b + votes - k) - special.betaln(a, b))).sum(0)
    first, second = np.unravel_index(int(likelihood.argmax()), likelihood.shape)
    middles = (np.arange(SHARES) + 0.5) / SHARES
    found: Floats = special.betaincinv(
        SHAPES[first] + counts[:, None], SHAPES[second] + votes - counts[:, None], middles[None]
    )
    return found


def _certified(certificate: VoteCertificate, radius: float, shares: Floats) -> Floats:
    """The probability that an image of each posterior is certified at a radius, (counts,)."""
    least = _least(certificate, radius)
    found: Floats = stats.binom.sf(least - 1, certificate.n, shares).mean(1)
    return found


@functools.lru_cache(maxsize=1024)
def _least(certificate: VoteCertificate, radius: float) -> int:
    """The smallest count of n votes that is certified at a radius; n + 1 if none is."""
    low, high = -1, certificate.n + 1
    while high - low > 1:
        middle = (low + high) // 2
        proved = _radius(certificate, middle)
        low, high = (low, middle) if proved > 0.0 and proved >= radius else (middle, high)
    return high


def _radius(certificate: VoteCertificate, own: int) -> float:
    seen = VoteCounts((certificate.n0, 0), (own, certificate.n - own), certificate.plan)
    return certificate.radius(seen)


def _share(value: float, n: int) -> Interval:
    """Wilson's interval of a share that is an average of probabilities."""
    z2 = 1.96**2
    half = 1.96 * math.sqrt(max(0.0, value * (1.0 - value)) / n + z2 / (4.0 * n * n))
    low, high = ((value + z2 / (2 * n) + sign * half) / (1.0 + z2 / n) for sign in (-1.0, 1.0))
    return Interval(value, max(0.0, low), min(1.0, high), n)


def _round(top: float) -> list[float]:
    """Zero and a few round radii up to the largest."""
    if top <= 0.0:
        return [0.0]
    power = 10.0 ** math.floor(math.log10(top / 6.0))
    step = next(s * power for s in STEPS if s * power >= top / 6.0)
    return [round(i * step, 12) for i in range(7) if i * step <= top]
