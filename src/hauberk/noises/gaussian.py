"""Gaussian noise, which certifies in L2."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic.dataclasses import dataclass
from scipy.special import ndtr, ndtri
from torch import Tensor

from hauberk.noises.base import Noise
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG, Norm


@dataclass(frozen=True, config=CONFIG)
class Gaussian(Noise):
    r"""Isotropic Gaussian noise, :math:`z \sim N(0, \sigma^2 I)`; F is the normal distribution function.

    Reference: Cohen et al. 2019, Theorem 1.

    Example:
        >>> from hauberk.noises import Gaussian
        >>> noise = Gaussian(0.25)
        >>> [round(noise.radius(p), 4) for p in (0.5, 0.9, 0.99)]
        [0.0, 0.3204, 0.5816]
    """

    norm: ClassVar[Norm] = "l2"

    def sample(self, randomness: Randomness, *shape: int) -> Tensor:
        """One draw for each row, float32, shape ``(B, *shape)``."""
        return randomness.normal(*shape).mul_(self.sigma)

    def cdf(self, value: float) -> float:
        r""":math:`\Phi(t)`."""
        return float(ndtr(value))

    def quantile(self, probability: float) -> float:
        r""":math:`\Phi^{-1}(p)`."""
        return float(ndtri(probability))

    @property
    def steepest(self) -> float:
        r""":math:`1 / (\sigma\sqrt{2\pi})`."""
        return 1.0 / (self.sigma * math.sqrt(2.0 * math.pi))
