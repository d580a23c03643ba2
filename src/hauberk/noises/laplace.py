"""Laplace noise, which certifies in L1."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from hauberk.noises.base import Noise
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG, Norm

_ROOT = math.sqrt(2.0)


@dataclass(frozen=True, config=CONFIG)
class Laplace(Noise):
    r"""Independent Laplace noise of scale :math:`b = \sigma/\sqrt2`, density :math:`e^{-|z|/b} / (2b)` on each pixel.

    A shift of L1 length r changes the density by a factor between :math:`e^{-r/b}` and :math:`e^{r/b}`, and a shift
    along one pixel reaches both for half-lines, so that F is the Laplace distribution function of variance 1.  Without
    a margin the radius is :math:`-b\,\log(2(1 - p))`.

    Reference: Teng et al. 2020, Theorem 1; Yang et al. 2020, Table 1.

    Example:
        >>> from hauberk.noises import Laplace
        >>> noise = Laplace(0.25)
        >>> [round(noise.radius(p), 4) for p in (0.5, 0.9, 0.99)]
        [0.0, 0.2845, 0.6916]
    """

    norm: ClassVar[Norm] = "l1"

    def sample(self, randomness: Randomness, *shape: int) -> Tensor:
        r"""One draw for each row, float32, ``(B, *shape)``: :math:`b\,n_3\sqrt{n_1^2 + n_2^2}` of three normal ones.

        :math:`(n_1^2 + n_2^2)/2` is exponential, and a normal variable whose variance is twice that is Laplace.
        """
        first, second, third = (randomness.normal(*shape) for _ in range(3))
        return torch.hypot(first, second).mul_(third).mul_(self.sigma / _ROOT)

    def cdf(self, value: float) -> float:
        r""":math:`\tfrac12 e^{\sqrt2 t}` for t < 0, else :math:`1 - \tfrac12 e^{-\sqrt2 t}`."""
        tail = 0.5 * math.exp(-_ROOT * abs(value))
        return tail if value < 0.0 else 1.0 - tail

    def quantile(self, probability: float) -> float:
        r""":math:`\log(2p)/\sqrt2` for p < 1/2, else :math:`-\log(2(1-p))/\sqrt2`."""
        if not 0.0 < probability < 1.0:
            return math.copysign(math.inf, probability - 0.5)
        return (math.log(2.0 * probability) if probability < 0.5 else -math.log(2.0 * (1.0 - probability))) / _ROOT

    @property
    def steepest(self) -> float:
        r""":math:`1 / (\sqrt2\,\sigma)`."""
        return 1.0 / (_ROOT * self.sigma)
