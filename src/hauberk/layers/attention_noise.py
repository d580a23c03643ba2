"""Randomised attention noise: features are multiplied by random masks (Dhar et al. 2026, RANI)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from hauberk.capabilities import Random
from hauberk.errors import HauberkError
from hauberk.layers.activations import check_channels, per_channel
from hauberk.layers.bound import Bound, check_norm
from hauberk.randomness import Draw
from hauberk.threats import Norm

Mode = Literal["mask", "halved", "full"]
Granularity = Literal["element", "channel", "position"]
Source = Literal["static", "attention"]


class AttentionNoise(Random):
    r"""Multiply each feature by a random factor between 0 and 1 (``full``: between 1 and 2), anew for every draw.

    .. math:: M = \mathrm{clip}\big(a + \tau n,\ 0,\ 1\big), \quad n \sim N(0, 1), \qquad
              y = \begin{cases} M \odot h & \text{(mask)} \\
                                \big(1 - g\,(1 - M)\big) \odot h & \text{(halved)} \\
                                (1 + M) \odot h & \text{(full)}\end{cases}

    With ``source="static"`` the attention :math:`a_c = \mathrm{sigmoid}(\lambda_c)` is learned and does not depend on
    the features, so that a draw is a diagonal matrix: its constant is 1 in every norm, and 2 if ``full``, as the paper
    prints it.  k layers of the printed form reach :math:`2^k`, not 2.  With ``source="attention"`` a is computed from
    the features as in the published code (positions by a 1x1 convolution, channels by their means); such a layer has
    no global constant, and offers none.

    Args:
        channels: channels C that enter.
        mode: how the mask is applied.
        tau: deviation of the noise, not negative.
        strength: g of ``halved``, in [0, 1].
        granularity: the mask has one value for each ``element``, ``channel`` or ``position``.
        source: where the attention comes from.
        start: :math:`\lambda` before training.

    Raises:
        HauberkError: on settings outside these ranges.

    Source: Dhar et al. 2026, the randomised attention noise injection and its Lemma 1.
    """

    def __init__(
        self,
        channels: int,
        mode: Mode = "halved",
        *,
        tau: float = 0.5,
        strength: float = 0.5,
        granularity: Granularity = "channel",
        source: Source = "static",
        start: float = 0.0,
    ) -> None:
        super().__init__()
        for name, value, known in (("mode", mode, Mode), ("granularity", granularity, Granularity),
                                   ("source", source, Source)):  # fmt: skip
            if value not in get_args(known):
                raise HauberkError(f"there is no {name} {value!r}", f"one of: {', '.join(get_args(known))}")
        if not (tau >= 0.0 and 0.0 <= strength <= 1.0):
            raise HauberkError(
                f"expected tau of 0 or more and a strength in [0, 1], got {tau} and {strength}", "use 0.5 for both"
            )
        self.channels, self.mode, self.tau, self.strength = channels, mode, tau, strength
        self.granularity, self.source = granularity, source
        self.logits = nn.Parameter(torch.full((channels,), float(start)))  # on the CPU: a weight before training
        self.attention = _Attention(channels) if source == "attention" else None

    def extra_repr(self) -> str:
        """All settings."""
        return (
            f"{self.channels}, {self.mode!r}, tau={self.tau}, strength={self.strength}, "
            f"granularity={self.granularity!r}, source={self.source!r}"
        )

    def draw(self, key: Draw) -> nn.Module:
        """The layer with one mask for each row."""
        return Masked(self, key)

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """The largest factor, for every draw.

        Raises:
            HauberkError: if the mask depends on the features, or on another number of channels.
        """
        return _bound(self.attention, _range(self.mode, self.strength), self.channels, input_shape, norm)


class Masked(nn.Module):
    """The mask of one draw, which is computed again from its key at every call, always in float32.

    Args:
        layer: whose settings and weights are used.
        key: of the draw.
    """

    def __init__(self, layer: AttentionNoise, key: Draw) -> None:
        super().__init__()
        self.mode, self.tau, self.strength, self.granularity = layer.mode, layer.tau, layer.strength, layer.granularity
        self.logits, self.attention, self.key = layer.logits, layer.attention, key

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, ...) to the same shape."""
        return features * self.factor(features).to(features)

    def factor(self, features: Tensor) -> Tensor:
        """The factors of the features, float32, of a shape that broadcasts to theirs."""
        check_channels(features.shape[1:], len(self.logits))
        # the same numbers for features of either precision, so that the frozen predictor has the deployed one's masks
        level = per_channel(self.logits.float().sigmoid(), features)
        if self.attention is not None:
            level = level * self.attention(features).float()
        channels, *positions = features.shape[1:]
        shape = {
            "element": (channels, *positions),
            "channel": (channels, *(1 for _ in positions)),
            "position": (1, *positions),
        }[self.granularity]
        noise = self.key.rows(features).normal(*shape)
        # clipped last, so that no rounding leaves the range: clip(a + t n) times s, plus what is kept
        lowest, largest = _range(self.mode, self.strength)
        size = largest - lowest
        return torch.add(lowest + size * level, noise, alpha=size * self.tau).clamp(lowest, largest)

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """The largest factor that a mask may have."""
        return _bound(self.attention, _range(self.mode, self.strength), len(self.logits), input_shape, norm)


class _Attention(nn.Module):
    """Shares in [0, 1] of positions and channels, computed from the features: a 1x1 convolution, and channel means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.positions = nn.Conv2d(channels, 1, 1)
        self.channels = nn.Linear(channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, H, W) to the same shape."""
        shares: Tensor = self.channels(features.mean((2, 3))).sigmoid()[:, :, None, None]
        level: Tensor = self.positions(features).sigmoid() * shares
        return level


def _bound(
    attention: nn.Module | None, ends: tuple[float, float], channels: int, input_shape: Sequence[int], norm: Norm
) -> Bound:
    check_norm(norm)
    check_channels(input_shape, channels)
    if attention is not None:
        raise HauberkError(
            "its mask depends on the features, so that it has no global constant",
            "use source='static', or certify by smoothing only",
        )
    return Bound(max(map(abs, ends)), "a diagonal matrix", False)  # of the settings as they are now


def _range(mode: Mode, strength: float) -> tuple[float, float]:
    """The smallest and the largest factor by which a value is multiplied."""
    return {"mask": (0.0, 1.0), "halved": (1.0 - strength, 1.0), "full": (1.0, 2.0)}[mode]
