r"""A mean of several streams, with one weight for each, or one for each channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from hauberk.errors import HauberkError
from hauberk.layers.activations import per_channel
from hauberk.layers.aol import SHRINK
from hauberk.layers.bound import SLACK, Bound, times
from hauberk.layers.derived import Derived
from hauberk.layers.lipschitz import model_bound
from hauberk.layers.residual import plus
from hauberk.threats import Norm

Weights = Literal["scalar", "channel"]


class ConvexGate(Derived):
    r"""A mean of the outputs of streams, :math:`z_c = \sum_b a_{bc}\,G_b(x)_c`, with :math:`a_{\cdot c}` a softmax.

    With one weight for each stream the constant is at most :math:`\sum_b a_b L_b`.  With weights for each channel the
    mean may stretch although no stream does: two streams that write x to the first and to the second channel, and
    weights that take each where it is, make :math:`(x, x)` of x.  Sound in L2 is then

    .. math:: \min\Big(\sum_b m_b L_b,\ \sqrt{\max_c \textstyle\sum_b a_{bc}^2}\,\sqrt{\textstyle\sum_b L_b^2},\
              \sqrt{\max_c \textstyle\sum_b a_{bc}}\,\sqrt{\textstyle\sum_b m_b L_b^2}\Big), \qquad m_b = \max_c a_{bc},

    by the triangle inequality, by Cauchy and Schwarz, and by Jensen in each channel; in L1 and Linf
    :math:`\sum_b m_b L_b`.  The paper's Proposition 4 takes :math:`\max_b L_b`, which is wrong for channels.

    Args:
        streams: modules whose outputs have the same shape, with ``channels`` channels.
        channels: channels C that leave.
        weights: one for each stream (``scalar``) or for each channel too (``channel``).
        rescaled: divide the weights by the bound that they have for streams of constant 1, so that the gate of such
            streams has a constant of at most 1 in L2.

    Raises:
        HauberkError: without streams, or on another kind of weights.

    Source: Dhar et al. 2026, the convex gate (its Proposition 4 holds for scalar weights).
    """

    def __init__(
        self, streams: Sequence[nn.Module], channels: int, weights: Weights = "scalar", rescaled: bool = False
    ) -> None:
        super().__init__()
        if not streams:
            raise HauberkError("a gate needs at least one stream", "for example ConvexGate([first, second], channels)")
        if weights not in get_args(Weights):
            raise HauberkError(f"there are no {weights!r} weights", f"one of: {', '.join(get_args(Weights))}")
        self.streams = nn.ModuleList(streams)
        self.channels, self.weights, self.rescaled = channels, weights, rescaled
        self.logits = nn.Parameter(torch.zeros(len(streams), channels if weights == "channel" else 1))

    def extra_repr(self) -> str:
        """The kind of weights."""
        return f"{self.channels}, {self.weights!r}, rescaled={self.rescaled}"

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, ...) to what the streams return.

        Raises:
            HauberkError: if the streams return different shapes.
        """
        shares = self.numbers(())["shares"]
        total: Tensor | None = None
        for share, stream in zip(shares, self.streams, strict=True):
            made = stream(features)
            if made.shape[1] != self.channels or (total is not None and total.shape != made.shape):
                raise HauberkError("the streams of a gate return different shapes", "let all return the same shape")
            part = made * per_channel(share, made)
            total = part if total is None else total + part
        assert total is not None  # noqa: S101 - there is a stream
        return total

    def derive(self, input_shape: Sequence[int]) -> dict[str, Tensor]:  # noqa: ARG002
        """The weights of the streams, shape (streams, C) or (streams, 1)."""
        shares = self.logits.softmax(0)
        if self.rescaled and self.weights == "channel":
            shares = shares / torch.stack(_ways(shares, shares.new_ones(len(shares)))).min()
        return {"shares": shares * SHRINK}  # which exceeds the rounding of the sum

    def weighted_branches(self) -> list[tuple[float, nn.Module]]:
        """The streams, with their largest weight."""
        largest = self.numbers(())["shares"].detach().double().amax(1)
        return list(zip(largest.tolist(), self.streams, strict=True))

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """The least of the bounds above, from the streams' bounds in the same norm.

        Raises:
            HauberkError: if a layer of a stream works in place, which would change the input of the other streams.
        """
        if any(getattr(layer, "inplace", False) for layer in self.modules()):
            raise HauberkError(
                "a stream works in place and so changes the input of the other streams", "use inplace=False"
            )
        shares = self.numbers(())["shares"].detach().cpu().double()
        bounds = [model_bound(stream, input_shape, norm).value for stream in self.streams]
        total = 0.0
        for share, value in zip(shares.amax(1).tolist(), bounds, strict=True):
            total = plus(total, times(share, value))
        if norm == "l2" and self.weights == "channel":
            _, *others = _ways(shares, torch.tensor(bounds, dtype=torch.float64))  # on the CPU, as proofs are
            total = min(total, *(float(way) * (1.0 + SLACK) for way in others))
        return Bound(total, f"{self.weights} weights of {len(bounds)} streams", False)


def _ways(shares: Tensor, bounds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Three bounds on the constant in L2, from weights (streams, C) and the constants of the streams."""
    most = shares.amax(1)
    return (
        (most * bounds).sum(),
        (shares.square().sum(0).amax() * bounds.square().sum()).sqrt(),
        (shares.sum(0).amax() * (most * bounds.square()).sum()).sqrt(),
    )
