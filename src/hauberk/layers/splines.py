r"""Learnable linear splines with slopes in [-1, 1], one for each channel.

The coefficients are torch's parametrised weight: ``layer.coefficients`` are the values at the knots after the
projection, and the free parameter is ``layer.parametrizations.coefficients.original``.  Both have one dimension, which
keeps weight decay off them; what keeps splines simple is ``tv2``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.errors import HauberkError
from hauberk.layers.activations import check_channels, lookup, per_channel
from hauberk.layers.bound import SLACK, Bound, check_norm, constant_size
from hauberk.layers.derived import Derived
from hauberk.threats import Norm

Start = Literal["identity", "relu", "abs", "maxmin"]


class ReLUForm(NamedTuple):
    r"""A spline of each channel written with ReLUs, :math:`b_1 + b_2 x + \sum_k a_k\,\mathrm{ReLU}(x - \tau_k)`.

    Args:
        b1: shape (C,).
        b2: slope left of all knots, shape (C,).
        a: change of slope at each inner knot, shape (C, S - 2).
        tau: the inner knots, shape (C, S - 2).

    Source: Ducotterd et al. 2024, learnable linear splines; b, a and tau as there.
    """

    b1: Tensor
    b2: Tensor
    a: Tensor
    tau: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Shape (B, C, ...) to the same shape; takes S times the memory, for checks and export."""
        hinges = (features.unsqueeze(2) - per_channel(self.tau, features)).relu()
        line = per_channel(self.b1, features) + per_channel(self.b2, features) * features
        return line + (per_channel(self.a, features) * hinges).sum(2)


class ClippedSlopes(nn.Module):
    r"""Coefficients of equal mean whose differences are clipped to the knots' distance.

    .. math:: P(c) = q + \overline{c - q}, \qquad q_k = \sum_{i<k} \mathrm{clip}(c_{i+1} - c_i, -T, T)

    Args:
        knots: coefficients a channel S.
        spacing: distance of two knots T.

    Source: Ducotterd et al. 2024, clipping of slopes.
    """

    def __init__(self, knots: int, spacing: float) -> None:
        super().__init__()
        self.knots = knots
        self.spacing = spacing

    def forward(self, coefficients: Tensor) -> Tensor:
        """Shape (C S,) to the same shape."""
        free = coefficients.reshape(-1, self.knots)
        steps = free.diff(dim=1).clamp(-self.spacing, self.spacing)
        clipped = nn.functional.pad(steps.cumsum(1), (1, 0))
        return (clipped + (free - clipped).mean(1, keepdim=True)).flatten()


class LinearSpline(Derived):
    r"""A learnable piecewise linear function of each channel, with slopes in [-1, 1].

    .. math:: \sigma(x) = s(\alpha x) / \alpha, \qquad s(t_k + \lambda T) = (1 - \lambda) c_k + \lambda c_{k+1}

    on S knots :math:`t_k` spaced uniformly by T from -R to R; the first and the last slope go on outside.  The scale
    :math:`\alpha = e^{a} > 0` moves the knots and leaves slopes as they are.  Unlike sorting it does not preserve the
    norm of gradients.

    Args:
        channels: channels C.
        knots: knots a channel S, an odd number, so that zero is one of them.
        reach: the last knot R, in the units of the features.
        start: ``identity``, ``relu``, ``abs``, or ``maxmin`` (:math:`|x|` and x in turn).

    Raises:
        HauberkError: on an even number of knots, a reach that is not positive, or an unknown start.

    Source: Ducotterd et al. 2024, learnable linear splines.
    """

    def __init__(self, channels: int, knots: int = 51, reach: float = 1.0, start: Start = "maxmin") -> None:
        super().__init__()
        if channels < 1 or knots < 3 or knots % 2 == 0 or not 0.0 < reach < float("inf"):
            raise HauberkError(
                f"expected an odd number of knots >= 3 and a reach > 0, got {knots} knots, reach {reach}, "
                f"{channels} channels", "use for example knots=51, reach=1.0",
            )  # fmt: skip
        self.channels, self.knots, self.reach = channels, knots, float(reach)
        self.spacing = 2.0 * self.reach / (knots - 1)
        grid = torch.linspace(-self.reach, self.reach, knots).repeat(channels, 1)
        self.coefficients = nn.Parameter(_started(grid, start).flatten())
        self.log_scale = nn.Parameter(torch.zeros(channels))
        parametrize.register_parametrization(self, "coefficients", ClippedSlopes(knots, self.spacing))

    def extra_repr(self) -> str:
        """Channels, knots and reach."""
        return f"{self.channels}, knots={self.knots}, reach={self.reach}"

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, ...) to the same shape.

        Raises:
            HauberkError: on another number of channels.
        """
        check_channels(features.shape[1:], self.channels)
        coefficients, scale = self.coefficients, per_channel(self.numbers(features.shape[1:])["scale"], features)
        place = (features * scale + self.reach) / self.spacing
        # truncation is the floor here; NaN has no index, and any will do because the product below stays NaN
        left = place.detach().clamp(0, self.knots - 2).nan_to_num().long()
        index = left + per_channel(torch.arange(self.channels, device=features.device) * self.knots, features)
        below, above = lookup(coefficients, index), lookup(coefficients, index + 1)
        return (below + (place - left) * (above - below)) / scale

    def inner_size(self, features: Tensor, constant: float) -> Tensor:  # noqa: ARG002
        """The reach and the coefficients, which are added and subtracted, in units of the output."""
        scale = self.numbers(features.shape[1:])["scale"]
        return constant_size((self.reach + self._values().abs().amax(1)) / scale, features)

    def derive(self, input_shape: Sequence[int]) -> dict[str, Tensor]:  # noqa: ARG002
        """The scale of each channel."""
        return {"scale": self.log_scale.exp()}

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        r"""The steepest slope, :math:`\max_k |c_{k+1} - c_k| / T`, the same in every norm."""
        check_norm(norm)
        check_channels(input_shape, self.channels)
        values, scale = self._values().detach().cpu().double(), self.numbers(input_shape)["scale"].detach()
        if not (bool(values.isfinite().all()) and bool(((scale > 0) & scale.isfinite()).all())):
            raise HauberkError("the spline holds NaN or infinity", "training diverged: load an earlier checkpoint")
        return Bound(float(values.diff(dim=1).abs().max()) / self.spacing * (1.0 + SLACK), "steepest slope", True)

    def tv2(self) -> Tensor:
        r"""Second-order total variation, :math:`\sum |c_{k+1} - 2 c_k + c_{k-1}| / T`: the sum of all bends.

        Added to the objective with a weight of 1e-7 to 1e-6 it removes knots that do little.  It does not depend on
        the scale.

        Returns:
            a differentiable scalar, summed over channels.

        Source: Ducotterd et al. 2024, TV2 regularisation.
        """
        return self._bends().abs().sum()

    def as_relu(self) -> ReLUForm:
        """The same function as a sum of ReLUs; coefficients are near zero where the function is straight."""
        values, scale = self._values(), self.numbers(())["scale"]
        slope = (values[:, 1] - values[:, 0]) / self.spacing
        knots = torch.arange(1, self.knots - 1, device=scale.device).to(scale) * self.spacing - self.reach
        # s(t) = (c_0 + slope R) + slope t left of the inner knots
        return ReLUForm((values[:, 0] + slope * self.reach) / scale, slope, self._bends(), knots / scale[:, None])

    def _values(self) -> Tensor:
        """Projected values at the knots, shape (C, S)."""
        return self.coefficients.reshape(self.channels, self.knots)

    def _bends(self) -> Tensor:
        """Change of slope at each inner knot, shape (C, S - 2)."""
        return self._values().diff(n=2, dim=1) / self.spacing


def spline_variation(model: nn.Module) -> Tensor:
    """The sum of ``tv2`` over all splines of a model, a differentiable scalar; zero if it has none."""
    terms = [module.tv2() for module in model.modules() if isinstance(module, LinearSpline)]
    return torch.stack(terms).sum() if terms else torch.zeros(())  # on the CPU: a number


def _started(grid: Tensor, start: Start) -> Tensor:
    """The function to start from, at the knots, shape (C, S)."""
    if start == "maxmin":
        bent = torch.arange(len(grid), device=grid.device)[:, None] % 2 == 0
        return torch.where(bent, grid.abs(), grid)
    known = {"identity": grid, "relu": grid.relu(), "abs": grid.abs()}
    if start not in known:
        raise HauberkError(f"unknown start {start!r}", f"use one of {[*known, 'maxmin']}")
    return known[start]
