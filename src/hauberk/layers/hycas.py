"""The hybrid convolution of HyCAS: three streams, a gate, and random attention (Dhar et al. 2026)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from hauberk.errors import HauberkError
from hauberk.layers.attention_noise import AttentionNoise, Granularity, Mode, Source
from hauberk.layers.bound import Bound
from hauberk.layers.gate import ConvexGate, Weights
from hauberk.layers.lipschitz import model_bound
from hauberk.layers.low_pass import LowPass
from hauberk.layers.random_filters import RandomFilters2d, frozen_filters
from hauberk.layers.spectral import spectral_conv
from hauberk.threats import Norm

Filters = Literal["frozen", "draw", "sample"]
OVERSAMPLING = 4  # of the bound by which kernels are divided; certificates take the norm itself


@dataclass(frozen=True)
class HyCASSettings:
    r"""What the hybrid convolutions of a network share.

    Args:
        streams: some of ``fdpan``, ``sncan`` and ``rpfan``; a stream that is left out takes no share of the gate.
        weights: of the gate, see ``ConvexGate``; those of channels are rescaled unless the masks are as printed.
        noise: how masks are applied inside, see ``AttentionNoise``; ``full`` is the printed form, None is none.
        tau: deviation of the masks' noise.
        strength: of the halved masks.
        granularity: of the masks.
        source: of the attention.
        filters: how the random filters are drawn: once (``frozen``), for each ``draw``, or for each ``sample``.
        keep: share of the frequencies that the low-pass filter keeps on each axis.
    """

    streams: tuple[str, ...] = ("fdpan", "sncan", "rpfan")
    weights: Weights = "scalar"
    noise: Mode | None = "halved"
    tau: float = 0.5
    strength: float = 0.5
    granularity: Granularity = "channel"
    source: Source = "static"
    filters: Filters = "frozen"
    keep: float = 0.5

    def __post_init__(self) -> None:
        unknown = set(self.streams) - STREAMS.keys()
        if unknown or not self.streams or len(set(self.streams)) < len(self.streams):
            raise HauberkError(
                f"expected some of the streams {', '.join(STREAMS)}, each once, got {list(self.streams)}",
                "for example streams: [fdpan, sncan, rpfan]",
            )
        if self.filters not in ("frozen", "draw", "sample"):
            raise HauberkError(f"there are no {self.filters!r} filters", "one of: frozen, draw, sample")

    def masks(self, channels: int, mode: Mode | None = None) -> list[nn.Module]:
        """The random attention after a step, in the mode of the network or another one; nothing without noise."""
        if self.noise is None:
            return []
        return [
            AttentionNoise(
                channels, mode or self.noise, tau=self.tau, strength=self.strength, granularity=self.granularity,
                source=self.source,
            )
        ]  # fmt: skip


class HyCASConv2d(nn.Module):
    r"""Three streams, their mean, and random attention, in the place of a convolution that pads by half its kernel.

    - ``fdpan``: low frequencies, attention, a convolution of norm at most 1, attention;
    - ``sncan``: a convolution of norm at most 1, attention;
    - ``rpfan``: random filters of norm at most 1, attention.

    The paper rotates the channels by a fixed orthogonal matrix before the convolutions of ``fdpan`` and ``rpfan``.  A
    free kernel after a rotation is a free kernel, and Gaussian filters after a rotation are Gaussian filters, so the
    rotation is folded into them; as a layer of its own it is ``orthogonal_mix``.

    .. math:: y = (I + D)\sum_b a_b\,G_b(x) \ \text{as printed}, \qquad
              y = \bar D \sum_b a_b\,G_b(x),\ \|\bar D\| \le 1 \ \text{(otherwise)}

    In the ``mask`` and ``halved`` modes the layer never stretches, in L2.  As printed, ``fdpan`` has the constant 4 and
    not 2, and the attention after the gate doubles it again.

    Args:
        in_channels: channels that enter.
        out_channels: channels that leave.
        kernel_size: of a side.
        stride: of the convolutions.
        settings: see ``HyCASSettings``.
        last: mode of the attention after the gate; None is that of the settings.

    Source: Dhar et al. 2026, the streams FDPAN, SNCAN and RPFAN.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        settings: HyCASSettings | None = None,
        last: Mode | None = None,
    ) -> None:
        super().__init__()
        chosen = settings or HyCASSettings()
        streams = [STREAMS[name](in_channels, out_channels, kernel_size, stride, chosen) for name in chosen.streams]
        gate = ConvexGate(streams, out_channels, chosen.weights, rescaled=chosen.noise != "full")
        self.layers = nn.Sequential(gate, *chosen.masks(out_channels, last))

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, H, W) to (B, C', H', W')."""
        made: Tensor = self.layers(features)
        return made

    def weighted_branches(self) -> list[tuple[float, nn.Module]]:
        """All layers, as a sequence."""
        return [(1.0, self.layers)]

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """Of the gate and the attention one after the other, for every draw."""
        return Bound(model_bound(self.layers, input_shape, norm).value, "gate, then attention", False)


Made = Callable[[int, int, int, int, HyCASSettings], nn.Module]


def _fdpan(inputs: int, outputs: int, kernel: int, stride: int, settings: HyCASSettings) -> nn.Module:
    conv = spectral_conv(inputs, outputs, kernel, stride, oversampling=OVERSAMPLING)
    return nn.Sequential(LowPass(settings.keep), *settings.masks(inputs), conv, *settings.masks(outputs))


def _sncan(inputs: int, outputs: int, kernel: int, stride: int, settings: HyCASSettings) -> nn.Module:
    conv = spectral_conv(inputs, outputs, kernel, stride, oversampling=OVERSAMPLING)
    return nn.Sequential(conv, *settings.masks(outputs))


def _rpfan(inputs: int, outputs: int, kernel: int, stride: int, settings: HyCASSettings) -> nn.Module:
    if settings.filters == "frozen":
        filters: nn.Module = frozen_filters(inputs, outputs, kernel, stride)
    else:
        filters = RandomFilters2d(inputs, outputs, kernel, stride, settings.filters)
    return nn.Sequential(filters, *settings.masks(outputs))


STREAMS: dict[str, Made] = {"fdpan": _fdpan, "sncan": _sncan, "rpfan": _rpfan}
