r"""The noise contract: how to sample, and how fast a probability can fall when the image changes.

Write :math:`p(x) = P[x + z \in A]` for noise z and any set A.  A family knows a distribution function F,
symmetric around 0, for which the probability of no set falls faster than that of a half-line (as a rule that of one
pixel, of variance 1),

.. math:: p(x + \delta) \ge F\big(F^{-1}(p(x)) - \|\delta\| / \sigma\big),

in its norm.  Radius and margin follow from F.
"""

from __future__ import annotations

import abc
import math
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy import optimize
from torch import Tensor

from hauberk.randomness import Randomness
from hauberk.threats import CONFIG, Measure, Norm


@dataclass(frozen=True, config=CONFIG)
class RandomStep(abc.ABC):
    """The random step that is applied to an image before the base."""

    norm: ClassVar[Measure]
    revision: ClassVar[int] = 1  # raised when its draws or radii change: records of the older code are then not its own

    @abc.abstractmethod
    def noisy(self, image: Tensor, randomness: Randomness) -> Tensor:
        """Copies of one image (C, H, W) by the draws of each row, (B, C, H, W), in the image's precision."""

    @property
    def slack(self) -> float:
        """How far the probability of any event under the draws may be from the exact one; subtracted from every bound.

        It is 0 for a family that adds floats: its proof is about real numbers; see ``GridGaussian`` for a proof in
        floating point.
        """
        return 0.0

    @property
    def spread(self) -> float:
        """Standard deviation of what is added to a pixel, by which a base is probed; 0 where nothing is added."""
        return 0.0


@dataclass(frozen=True, config=CONFIG)
class Noise(RandomStep):
    """Independent noise on every pixel, of mean 0; it is added to [0, 1] pixels and not clipped.

    Args:
        sigma: standard deviation of one pixel, in pixel units, for every family.
    """

    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)]

    norm: ClassVar[Norm]

    @abc.abstractmethod
    def sample(self, randomness: Randomness, *shape: int) -> Tensor:
        """One draw for each row, float32, shape ``(B, *shape)``."""

    def noisy(self, image: Tensor, randomness: Randomness) -> Tensor:
        """Copies of one image (C, H, W) under the noise of each row, (B, C, H, W), in the image's precision."""
        return self.sample(randomness, *image.shape).to(image).add_(image)

    def added(self, images: Tensor, draws: Tensor) -> Tensor:
        """The base's input for images under draws that fit their shape; gradients flow to the images."""
        return images + draws.to(images)

    @property
    def spread(self) -> float:
        """Sigma."""
        return self.sigma

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

    def radius(self, probability: float, margin: float = 0.0, rival: float | None = None) -> float:
        r"""Largest radius in which the top class keeps a margin, given a lower bound p of its probability.

        .. math:: R = \max\{r : F(F^{-1}(p) - r/\sigma) - F(F^{-1}(q) + r/\sigma) \ge m\}

        q is an upper bound of every rival's probability.  Where it is :math:`1 - p`, both meet where each has moved by
        the same amount, and :math:`R = \sigma(F^{-1}(p) - F^{-1}(\tfrac{1+m}{2}))`; where m is 0,
        :math:`R = \tfrac\sigma2 (F^{-1}(p) - F^{-1}(q))`, which with Gaussian noise is Cohen et al. 2019, Theorem 1.
        With :math:`m = (1-\alpha)/\alpha` it is the exact radius for the mixed classifier, where Bai et al. 2024,
        Theorem A.1 is loose.

        Args:
            probability: p.
            margin: m.
            rival: q; None takes 1 - p.
        """
        if rival is None:
            return float(self.sigma * (self.quantile(probability) - self.quantile(0.5 * (1.0 + margin))))
        ends = float(0.5 * self.sigma * (self.quantile(probability) - self.quantile(rival)))
        if margin == 0.0 or not ends > 0.0:
            return ends

        def over(r: float) -> float:
            return self.margin(probability, r, rival) - margin

        if not over(0.0) > 0.0:
            return 0.0
        return float(optimize.brentq(over, 0.0, ends, xtol=1e-15)) if math.isfinite(ends) else ends

    def probability(self, radius: float) -> float:
        """The least p that gives a radius, where the rivals have 1 - p."""
        return self.cdf(radius / self.sigma)

    def margin(self, probability: float, radius: float, rival: float | None = None) -> float:
        r"""Lower bound of :math:`p_y - p_j` at distance r, with q as in ``radius``.

        Where q is 1 - p, it is :math:`2F(F^{-1}(p) - r/\sigma) - 1`.
        """
        kept = self.cdf(self.quantile(probability) - radius / self.sigma)
        reached = 1.0 - kept if rival is None else self.cdf(self.quantile(rival) + radius / self.sigma)
        return float(kept - reached)
