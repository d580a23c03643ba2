"""Noise distributions of randomised smoothing: how to sample, and the certified radius each gives."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.special import ndtr, ndtri

from hauberk.threats import CONFIG, Norm


@dataclass(frozen=True, config=CONFIG)
class Gaussian:
    r"""Isotropic Gaussian noise :math:`N(0, \sigma^2 I)`, added to [0, 1] pixels and not clipped.

    Args:
        sigma: standard deviation in pixel units.
    """

    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)]

    norm: ClassVar[Norm] = "l2"

    def sample(self, generator: np.random.Generator, count: int, shape: tuple[int, ...]) -> np.ndarray:
        """``count`` draws, float32, shape (count, *shape)."""
        draws = generator.standard_normal((count, *shape), dtype=np.float32)
        draws *= np.float32(self.sigma)
        return draws

    def radius(self, probability: float, margin: float = 0.0) -> float:
        r"""Largest L2 radius in which the top class keeps a margin, given a lower bound p of its probability.

        .. math:: R = \sigma\,(\Phi^{-1}(p) - \Phi^{-1}(\tfrac{1+m}{2}))

        With m = 0 this is Cohen et al. 2019, Theorem 1 with :math:`p_B = 1 - p_A`.  With
        :math:`m = (1-\alpha)/\alpha` the last term is :math:`\Phi^{-1}(1/(2\alpha))`: the exact radius for the mixed
        classifier, from the Neyman-Pearson bound on each class, where Bai et al. 2024, Theorem A.1 is loose.
        """
        return float(self.sigma * (ndtri(probability) - ndtri(0.5 * (1.0 + margin))))

    def margin(self, probability: float, radius: float) -> float:
        r"""Lower bound of :math:`p_y - p_j` at distance r: :math:`2\Phi(\Phi^{-1}(p) - r/\sigma) - 1`."""
        return float(2.0 * ndtr(ndtri(probability) - radius / self.sigma) - 1.0)
