"""Uniform noise, which certifies in L1."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import Tensor

from hauberk.noises.base import Noise
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG, Norm

_ROOT = math.sqrt(3.0)
WIDTH = 2.0 * _ROOT  # of the law of variance 1


@dataclass(frozen=True, config=CONFIG)
class Uniform(Noise):
    r"""Independent noise on :math:`[-\lambda, \lambda]`, :math:`\lambda = \sqrt3\,\sigma`, on each pixel.

    A shift by :math:`\delta` leaves at least the share :math:`\prod_i (1 - |\delta_i| / 2\lambda) \ge 1 -
    \|\delta\|_1 / 2\lambda` of the noise's cube in common, so that no probability falls by more than
    :math:`\|\delta\|_1 / 2\lambda`, and F is the uniform distribution function of variance 1.  Without a margin the
    radius is :math:`2\lambda(p - \tfrac12)`.

    Reference: Yang et al. 2020, Table 1 (uniform, L1); Lee et al. 2019.

    Example:
        >>> from hauberk.noises import Uniform
        >>> noise = Uniform(0.25)
        >>> [round(noise.radius(p), 4) for p in (0.5, 0.9, 0.99)]
        [0.0, 0.3464, 0.4244]
    """

    norm: ClassVar[Norm] = "l1"

    def sample(self, randomness: Randomness, *shape: int) -> Tensor:
        r"""One draw for each row, float32, shape ``(B, *shape)``: :math:`\lambda(2u - 1)`."""
        return randomness.uniform(*shape).mul_(2.0).sub_(1.0).mul_(self.sigma * _ROOT)

    def cdf(self, value: float) -> float:
        r""":math:`\tfrac12 + t / 2\sqrt3`, between 0 and 1."""
        return min(1.0, max(0.0, 0.5 + 0.5 * value / _ROOT))

    def quantile(self, probability: float) -> float:
        r""":math:`\sqrt3\,(2p - 1)`."""
        return _ROOT * (2.0 * probability - 1.0)

    @property
    def steepest(self) -> float:
        r""":math:`1 / 2\lambda`."""
        return 0.5 / (_ROOT * self.sigma)
