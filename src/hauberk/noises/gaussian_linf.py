"""Gaussian noise that certifies in Linf."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from hauberk.errors import HauberkError
from hauberk.noises.gaussian import Gaussian
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG, Norm


@dataclass(frozen=True, config=CONFIG)
class GaussianLinf(Gaussian):
    r"""Isotropic Gaussian noise on images of d values, for changes of at most r in every one of them.

    Since :math:`\|\delta\|_2 \le \sqrt d\,\|\delta\|_\infty`, no probability falls faster than
    :math:`F(t) = \Phi(\sqrt d\,t)` says, and the radius is :math:`\sigma\,\Phi^{-1}(p)/\sqrt d`.  A half-space across
    the diagonal attains this bound.

    Args:
        pixels: d, at least the number of values of an image; more of them cost radius.

    Reference: Cohen et al. 2019, Theorem 1; Yang et al. 2020.
    """

    norm: ClassVar[Norm] = "linf"

    pixels: Annotated[int, Field(ge=1)]

    def noisy(self, image: Tensor, randomness: Randomness) -> Tensor:
        """Copies of one image, (B, C, H, W).

        Raises:
            HauberkError: on an image of more values.
        """
        if image.numel() > self.pixels:
            raise HauberkError(
                f"an image of {image.numel()} values, but the noise is for {self.pixels}",
                f"set pixels: {image.numel()}",
            )
        return super().noisy(image, randomness)

    def cdf(self, value: float) -> float:
        r""":math:`\Phi(\sqrt d\,t)`."""
        return super().cdf(math.sqrt(self.pixels) * value)

    def quantile(self, probability: float) -> float:
        r""":math:`\Phi^{-1}(p)/\sqrt d`."""
        return super().quantile(probability) / math.sqrt(self.pixels)

    @property
    def steepest(self) -> float:
        r""":math:`\sqrt d / (\sigma\sqrt{2\pi})`."""
        return super().steepest * math.sqrt(self.pixels)
