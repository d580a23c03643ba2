"""Noise that is added to features inside a network, at training and at test time (Liu et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from hauberk.capabilities import Random
from hauberk.layers.bound import Bound, unit_bound
from hauberk.noises import Noise
from hauberk.randomness import Draw
from hauberk.threats import Norm


class NoiseInjection(Random):
    r"""Add noise to each feature, :math:`y = x + z`, anew for every call; a random self-ensemble.

    A fixed z moves all points alike, so that the layer of one draw has the Lipschitz constant 1 in every norm.

    Args:
        noise: distribution of z.
        shared: one z for all images of a draw, in the place of one for each.

    Reference: Liu et al. 2018, Section 3.
    """

    def __init__(self, noise: Noise, shared: bool = False) -> None:
        super().__init__()
        self.noise, self.shared = noise, shared

    def draw(self, key: Draw) -> nn.Module:
        """The layer with one z."""
        return Added(self.noise, key, self.shared)

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:  # noqa: ARG002 - of any shape
        """One, for every draw."""
        return unit_bound(norm, "a fixed shift")


class Added(nn.Module):
    """The noise of one draw, which is computed again from its key at every call.

    Args:
        noise: its distribution.
        key: of the draw.
        shared: one draw for all rows.
    """

    def __init__(self, noise: Noise, key: Draw, shared: bool) -> None:
        super().__init__()
        self.noise, self.key, self.shared = noise, key, shared

    def forward(self, values: Tensor) -> Tensor:
        """Shape (B, ...) to the same shape."""
        randomness = self.key.shared(values) if self.shared else self.key.rows(values)
        return values + self.noise.sample(randomness, *values.shape[1:]).to(values)

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:  # noqa: ARG002 - of any shape
        """One."""
        return unit_bound(norm, "a fixed shift")
