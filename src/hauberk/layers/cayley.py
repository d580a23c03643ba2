"""Orthogonal matrices by the Cayley transform, and the layers made of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.layers.bound import Bound
from hauberk.layers.export import plain_linear
from hauberk.layers.frequency import FrequencyConv2d
from hauberk.layers.norms import linear_norm
from hauberk.threats import Norm


class Cayley(nn.Module):
    r"""Carry a matrix to one with orthonormal columns, or rows if they are fewer, in closed form.

    .. math:: Q = \begin{pmatrix} (I - A)(I + A)^{-1} \\ -2 V (I + A)^{-1} \end{pmatrix}, \qquad
              A = U - U^* + V^* V

    with U the first n rows of the m x n matrix (m >= n) and V the others.  The Hermitian part of I + A is at least
    I, so that the inverse exists whatever the weights; :math:`Q^* Q = I` follows by
    :math:`(I - A)^*(I - A) + 4 V^* V = (I + A)^*(I + A)`.  Zeros become the identity.

    Source: Trockman & Kolter 2021, with their extension to rectangular matrices.
    """

    def forward(self, free: Tensor) -> Tensor:
        """Real or complex matrices, shape (..., m, n), to the same shape."""
        rows, columns = free.shape[-2:]
        if rows < columns:
            transposed: Tensor = self.forward(free.mH)
            return transposed.mH
        upper, lower = free[..., :columns, :], free[..., columns:, :]
        eye = torch.eye(columns, dtype=free.dtype, device=free.device)
        inverse = torch.linalg.inv(eye + upper - upper.mH + lower.mH @ lower)
        top = 2.0 * inverse - eye  # (I - A)(I + A)^-1
        return torch.cat([top, -2.0 * (lower @ inverse)], -2) if rows > columns else top


class CayleyLinear(nn.Linear):
    """A linear layer with orthonormal rows or columns, whichever are fewer; see ``Cayley``.

    Args:
        in_features: values that enter.
        out_features: values that leave.
        bias: whether to add a bias.

    Source: Trockman & Kolter 2021.

    Example:
        >>> from hauberk.layers import CayleyLinear
        >>> layer = CayleyLinear(8, 4).eval()
        >>> layer.lipschitz_bound((8,)).value <= 1.001
        True
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        with torch.no_grad():
            nn.init.normal_(self.weight, std=min(in_features, out_features) ** -0.5)
            if self.bias is not None:
                self.bias.zero_()
        parametrize.register_parametrization(self, "weight", Cayley())

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:  # noqa: ARG002
        """The norm of the effective weight as it is."""
        return linear_norm(self.weight, norm)

    def export(self) -> nn.Linear:
        """A plain ``nn.Linear`` with the effective weight."""
        return plain_linear(self)


class CayleyConv2d(FrequencyConv2d):
    """A circular convolution with orthonormal rows or columns: the Cayley transform at every frequency.

    The inverse costs the cube of the channels at each frequency: it is a layer for small feature maps.

    Args:
        in_channels: channels that enter.
        out_channels: channels that leave.
        kernel_size: of the free kernel, one number, or height and width; at most ``size / stride``.
        size: height and width of the images that enter, or one number for both.
        stride: divides ``size``; blocks of so many pixels become channels first.
        bias: whether to add a bias.

    Raises:
        HauberkError: if the stride does not divide the size, or the kernel exceeds it.

    Source: Trockman & Kolter 2021.

    Example:
        >>> from hauberk.layers import CayleyConv2d
        >>> layer = CayleyConv2d(4, 4, 3, size=8).eval()
        >>> layer.lipschitz_bound((4, 8, 8)).value <= 1.001
        True
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        size: int | tuple[int, int],
        *,
        stride: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, size, Cayley(), stride=stride, bias=bias)

    def _start(self, free: Tensor) -> Tensor:
        return nn.init.normal_(free, std=(min(free.shape[:2]) * free[0, 0].numel()) ** -0.5)
