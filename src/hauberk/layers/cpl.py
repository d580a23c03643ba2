r"""Convex potential layers: residual blocks that are a gradient step on a convex potential.

.. math:: y = x - 2\,U^\top \mathrm{relu}(U x + b), \qquad \|U\| \le 1

Both convex potential layers and SDP-based layers (``sll``) are of this form, and differ in how U is kept small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.layers.bound import SLACK, Bound, constant_size, times
from hauberk.layers.derived import without_parametrisation
from hauberk.layers.norms import Padding, conv_layer_norm, linear_norm
from hauberk.layers.same_size import SameSizeConv2d
from hauberk.layers.spectral import SpectralScaling
from hauberk.threats import Norm

_SUMS: tuple[Norm, Norm] = ("l1", "linf")


def step_bound(norm: float) -> float:
    r"""Lipschitz bound of :math:`x - 2 U^\top \mathrm{relu}(Ux + b)` in L2, :math:`\max(1, 2 u^2 - 1)` with u = ||U||.

    Proof.  Between two points the relu acts as a diagonal matrix D with entries in [0, 1], so that the block acts as
    :math:`J = I - 2 U^\top D U`.  From :math:`0 \preceq D \preceq I` follows :math:`0 \preceq U^\top D U \preceq
    U^\top U \preceq u^2 I`: J is symmetric with eigenvalues in :math:`[1 - 2u^2, 1]`.
    """
    excess = math.nextafter(2.0 * times(norm, norm) - 1.0, math.inf)
    return max(1.0, excess) * (1.0 + SLACK)


def crude_step_bound(norm: float, adjoint: float) -> float:
    r"""The same in any norm, by the triangle inequality: :math:`1 + 2\,\|U^\top\|\,\|U\|`."""
    return (1.0 + 2.0 * norm * adjoint) * (1.0 + SLACK)


def hidden_size(bias: Tensor | None, features: Tensor, constant: float) -> Tensor:
    r"""An upper bound on :math:`2 \|U\|\,\|\mathrm{relu}(Ux + b)\|`, the size of the sums in the step, shape (B,)."""
    square = 0.5 * (max(constant, 1.0) + 1.0)
    entered: Tensor = torch.linalg.vector_norm(features.flatten(1), dim=1)
    shift = entered.new_zeros(len(features)) if bias is None else constant_size(bias, features)
    return 2.0 * (square * entered + math.sqrt(square) * shift)


class PotentialConv2d(SameSizeConv2d):
    """The block on feature maps, with U the convolution by its ``weight``, from which its bound is computed.

    Args:
        channels: that enter and leave.
        hidden: channels in between, as many as enter if not given.
        kernel_size: odd numbers.
        groups: of U.
        bias: whether to add b.
        padding_mode: ``zeros`` or ``circular``; the padding keeps the size.

    Raises:
        HauberkError: on an even kernel or another padding mode.
    """

    def __init__(
        self,
        channels: int,
        hidden: int | None = None,
        kernel_size: int | tuple[int, int] = 3,
        *,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Padding = "zeros",
    ) -> None:
        super().__init__(
            channels, hidden or channels, kernel_size, groups=groups, bias=bias, padding_mode=padding_mode
        )  # fmt: skip
        with torch.no_grad():
            nn.init.xavier_normal_(self.weight)
            if self.bias is not None:
                self.bias.zero_()

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, H, W) to the same shape."""
        weight = self.weight
        hidden = nn.functional.relu(self._conv_forward(features, weight, self.bias))
        # with an odd kernel and padding that keeps the size, the transpose is the convolution with the flipped kernel
        grouped = weight.reshape(self.groups, -1, *weight.shape[1:])
        flipped = grouped.transpose(1, 2).flatten(0, 1).flip(2, 3)
        step: Tensor = self._conv_forward(hidden, flipped, None)
        return features - 2.0 * step

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """From the norm of U as it is: in L2 by ``step_bound``, else by ``crude_step_bound``."""
        if norm == "l2":
            return Bound(step_bound(conv_layer_norm(self, input_shape).value), "gradient step", False)
        # the columns of U are the rows of its transpose, so its norms in L1 and Linf change places
        sums, adjoint = (conv_layer_norm(self, input_shape, side).value for side in _SUMS)
        return Bound(crude_step_bound(sums, adjoint), "triangle inequality", False)

    def inner_size(self, features: Tensor, constant: float) -> Tensor:
        """See ``hidden_size``; U has norm at most the root of (L + 1) / 2."""
        return hidden_size(self.bias, features, constant)

    def export(self) -> nn.Module:
        """The block with an ordinary weight; it is no single layer of torch."""
        return without_parametrisation(self)


class PotentialLinear(nn.Linear):
    """The block on vectors, with U the matrix ``weight``; its bound is computed from that.

    Args:
        features: that enter and leave.
        hidden: rows of U, as many as enter if not given.
        bias: whether to add b.
    """

    def __init__(self, features: int, hidden: int | None = None, bias: bool = True) -> None:
        super().__init__(features, hidden or features, bias)
        with torch.no_grad():
            nn.init.xavier_normal_(self.weight)
            if self.bias is not None:
                self.bias.zero_()

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, ..., C) to the same shape."""
        weight = self.weight
        hidden = nn.functional.relu(nn.functional.linear(features, weight, self.bias))
        return features - 2.0 * nn.functional.linear(hidden, weight.T)

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:  # noqa: ARG002
        """From the norm of U as it is: in L2 by ``step_bound``, else by ``crude_step_bound``."""
        if norm == "l2":
            return Bound(step_bound(linear_norm(self.weight).value), "gradient step", False)
        sides = linear_norm(self.weight, norm).value, linear_norm(self.weight.T, norm).value
        return Bound(crude_step_bound(*sides), "triangle inequality", False)

    def inner_size(self, features: Tensor, constant: float) -> Tensor:
        """See ``hidden_size``; U has norm at most the root of (L + 1) / 2."""
        return hidden_size(self.bias, features, constant)

    def export(self) -> nn.Module:
        """The block with an ordinary weight; it is no single layer of torch."""
        return without_parametrisation(self)


class CPLConv2d(PotentialConv2d):
    r"""A convex potential layer, :math:`y = x - \frac{2}{\|W\|^2} W^\top \mathrm{relu}(Wx + b)`, 1-Lipschitz.

    Here :math:`U = W / \overline{\|W\|}` with an upper bound in the place of the norm (``SpectralScaling``).  The
    published layer takes power iteration, which is a lower bound, so that it may stretch.  The bias is that of U.

    Args:
        channels: as in ``PotentialConv2d``, like all that follow.
        hidden: see there.
        kernel_size: see there.
        groups: see there.
        bias: see there.
        padding_mode: see there.
        oversampling: as in ``SpectralScaling``.  The cheap bound is the default: a norm of U below 1 makes the step of
            the block smaller, and kills no signal.

    Source: Meunier et al. 2022, the convex potential layer.

    Example:
        >>> from hauberk.layers import CPLConv2d
        >>> layer = CPLConv2d(4).eval()
        >>> layer.lipschitz_bound((4, 8, 8)).value <= 1.001
        True
    """

    def __init__(
        self,
        channels: int,
        hidden: int | None = None,
        kernel_size: int | tuple[int, int] = 3,
        *,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Padding = "zeros",
        oversampling: int = 0,
    ) -> None:
        super().__init__(channels, hidden, kernel_size, groups=groups, bias=bias, padding_mode=padding_mode)
        parametrize.register_parametrization(self, "weight", SpectralScaling(groups=groups, oversampling=oversampling))


class CPLLinear(PotentialLinear):
    """A convex potential layer on vectors; see ``CPLConv2d``.

    Args:
        features: that enter and leave.
        hidden: rows of W, as many as enter if not given.
        bias: whether to add b.

    Source: Meunier et al. 2022, the convex potential layer.

    Example:
        >>> from hauberk.layers import CPLLinear
        >>> layer = CPLLinear(8).eval()
        >>> layer.lipschitz_bound((8,)).value <= 1.001
        True
    """

    def __init__(self, features: int, hidden: int | None = None, bias: bool = True) -> None:
        super().__init__(features, hidden, bias)
        parametrize.register_parametrization(self, "weight", SpectralScaling())
