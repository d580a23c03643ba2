"""Gaussian noise on the grid of 8-bit images, whose proof holds in floating point too."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from pydantic.dataclasses import dataclass
from scipy.special import ndtr
from torch import Tensor

from hauberk.noises.gaussian import Gaussian
from hauberk.randomness import BITS, Randomness
from hauberk.threats import CONFIG

LEVELS = 255
VALUES = 2**24  # of an image at most; sums of two levels below it are exact in float32 too
SHORT = 16  # bits by which most draws are told
FAR = 9.0  # deviations to which levels are drawn; beyond them lies 2.3e-19


@dataclass(frozen=True, config=CONFIG)
class GridGaussian(Gaussian):
    r"""Gaussian noise that is rounded to multiples of 1/255, added to the image as integers, and converted once.

    Floating-point addition leaves traces of the image in the noisy one, by which a base classifier could tell images
    apart that are equally likely under exact noise; a smoothed classifier may then flip well inside its radius.  Here
    the input of the base is a function of the integer sum only.  Rounding commutes with shifts by whole levels,

    .. math:: \mathrm{round}(255(x + z)) = 255 x + \mathrm{round}(255 z),

    so that this is exact Gaussian smoothing of the base behind a rounding of its input.  An image off the grid is
    rounded first: that too is part of the predictor, and the certificate holds for all grid images within the radius of
    the rounded one.

    A level is drawn by inversion of a table of 63-bit integers.  Of one value the table is off by at most
    :math:`255\sigma\,2^{-51}` in total variation.  Forty digits of :math:`\Phi` show that to be at least four times
    what is lost to float64 and to the tails.  Of :math:`2^{24}` values it is off by at most :attr:`slack`, which comes
    off every bound.

    Reference: Voracek & Hein 2023, Section 4.
    """

    @property
    def slack(self) -> float:
        r""":math:`255\sigma\,2^{-27}`."""
        return LEVELS * self.sigma * 2.0**-27

    def sample(self, randomness: Randomness, *shape: int) -> Tensor:
        """One draw for each row, float32, shape ``(B, *shape)``: levels / 255."""
        return self._levels(randomness, *shape).div_(LEVELS)

    def noisy(self, image: Tensor, randomness: Randomness) -> Tensor:
        """Copies of one image, (B, C, H, W): sums of integers, divided once."""
        if image.numel() > VALUES:
            raise ValueError(
                f"an image of {image.numel()} values is larger than the {VALUES} values for which the slack is proved"
            )
        return self._levels(randomness, *image.shape).to(image).add_(image.mul(LEVELS).round_()).div_(LEVELS)

    def _levels(self, randomness: Randomness, *shape: int) -> Tensor:
        """Rounded noise in levels, float32."""
        bits = randomness.bits(*shape)
        table, short = thresholds(self.sigma).to(bits.device), buckets(self.sigma).to(bits.device)
        found = short[bits >> BITS - SHORT]
        divided = found < 0
        found[divided] = torch.searchsorted(table, bits[divided], right=True).to(found)
        return found.sub_(len(table) // 2).float()


@lru_cache(maxsize=8)
def thresholds(sigma: float) -> Tensor:
    r""":math:`\lfloor 2^{63}\,\Phi((k + \tfrac12) / 255\sigma)\rfloor` for the levels k of nine deviations, int64.

    Those above 0 are mirrored, so that the small tails are exact on both sides.
    """
    spread = LEVELS * sigma
    most = max(1, math.ceil(FAR * spread))
    # at least 1, so that the mirrored one is a 63-bit number too
    lower = [max(1, int(math.ldexp(float(ndtr(-(k - 0.5) / spread)), BITS))) for k in range(most, 0, -1)]
    table = [*lower, *(2**BITS - v for v in reversed(lower))]
    return torch.tensor(table, dtype=torch.int64)  # on the CPU: a table, moved to where the bits are


@lru_cache(maxsize=8)
def buckets(sigma: float) -> Tensor:
    """For each value of a draw's upper bits, how many thresholds are at most the draw; -1 where lower bits decide."""
    starts = torch.arange(2**SHORT, dtype=torch.int64) << BITS - SHORT  # on the CPU: a table, moved as the other
    ends = starts + 2 ** (BITS - SHORT) - 1
    first, last = (torch.searchsorted(thresholds(sigma), draws, right=True).int() for draws in (starts, ends))
    return torch.where(first == last, first, -1)
