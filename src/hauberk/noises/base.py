r"""The noise contract: how to sample, and how fast a probability can fall when the image moves.

Write :math:`p(x) = P[x + z \in A]` for noise z and any set A.  A family knows a distribution function F of mean 0 and
variance 1 for which no set falls faster than a half-line does,

.. math:: p(x + \delta) \ge F\big(F^{-1}(p(x)) - \|\delta\| / \sigma\big),

in its norm.  Radius and margin follow from F.
"""

from __future__ import annotations

import abc
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from hauberk.randomness import Randomness
from hauberk.threats import CONFIG, Norm


@dataclass(frozen=True, config=CONFIG)
class Noise(abc.ABC):
    """Independent noise on every pixel, of mean 0; it is added to [0, 1] pixels and not clipped.

    Args:
        sigma: standard deviation of one pixel, in pixel units, whatever the family.
    """

    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)]

    norm: ClassVar[Norm]
    revision: ClassVar[int] = 1  # raised when its draws or radii change: records of the older code are then not its own

    @abc.abstractmethod
    def sample(self, randomness: Randomness, *shape: int) -> Tensor:
        """One draw for each row, float32, shape (B, *shape)."""

    @abc.abstractmethod
    def cdf(self, value: float) -> float:
        """F, increasing from 0 to 1, with F(-t) = 1 - F(t)."""

    @abc.abstractmethod
    def quantile(self, probability: float) -> float:
        """The inverse of F on (0, 1)."""

    @property
    @abc.abstractmethod
    def steepest(self) -> float:
        r"""The Lipschitz constant of :math:`x \mapsto E[g(x + z)]` over all g with values in [0, 1], in its norm.

        It is :math:`\max F' / \sigma`.
        """

    def radius(self, probability: float, margin: float = 0.0) -> float:
        r"""Largest radius in which the top class keeps a margin, given a lower bound p of its probability.

        .. math:: R = \sigma\,\big(F^{-1}(p) - F^{-1}(\tfrac{1+m}{2})\big)

        The rival has at most :math:`1 - p`, so that both meet where each has moved by the same amount.  With Gaussian
        noise and m = 0 this is Cohen et al. 2019, Theorem 1 with :math:`p_B = 1 - p_A`.  With
        :math:`m = (1-\alpha)/\alpha` it is the exact radius for the mixed classifier, where Bai et al. 2024, Theorem
        A.1 is loose.
        """
        return float(self.sigma * (self.quantile(probability) - self.quantile(0.5 * (1.0 + margin))))

    def margin(self, probability: float, radius: float) -> float:
        r"""Lower bound of :math:`p_y - p_j` at distance r: :math:`2F(F^{-1}(p) - r/\sigma) - 1`."""
        return float(2.0 * self.cdf(self.quantile(probability) - radius / self.sigma) - 1.0)
