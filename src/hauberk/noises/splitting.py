"""Splitting noise, which certifies in L1: of each pixel the base receives only an interval."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import Tensor

from hauberk.noises.uniform import WIDTH, Uniform
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG, Norm


@dataclass(frozen=True, config=CONFIG)
class Splitting(Uniform):
    r"""Points at distances of :math:`2\lambda`, :math:`\lambda = \sqrt3\,\sigma`, split the line of each pixel.

    Where the points start is uniform, and independent from pixel to pixel.  The base sees the middle of the part of
    [0, 1] between the two points around x.  That is a function of uniform noise: with
    :math:`z \sim U[-\lambda, \lambda]`, the two points are :math:`x + z \pm \lambda`, and

    .. math:: \tilde x = \tfrac12\big(\max(0, x + z - \lambda) + \min(1, x + z + \lambda)\big).

    So the base behind this map is smoothed by uniform noise, and radius and F are those of ``Uniform``.  The base
    differs in its input: numbers in [0, 1], without the part of the noise that carries no information about x.

    ``Uniform`` has the law of one pixel; sigma is that of z.

    Reference: Levine & Feizi 2021, Theorem 1 (its noise for independent splits).
    """

    norm: ClassVar[Norm] = "l1"

    def noisy(self, image: Tensor, randomness: Randomness) -> Tensor:
        """The middle for each pixel of one image (C, H, W) and each row's splits, (B, C, H, W)."""
        return self._middle(super().noisy(image, randomness))

    def added(self, images: Tensor, draws: Tensor) -> Tensor:
        """The middle for each pixel of images under draws of z; its slope is 0, 1/2 or 1."""
        return self._middle(super().added(images, draws))

    def _middle(self, noisy: Tensor) -> Tensor:
        half = 0.5 * WIDTH * self.sigma
        return 0.5 * ((noisy - half).clamp_min(0.0) + (noisy + half).clamp_max(1.0))
