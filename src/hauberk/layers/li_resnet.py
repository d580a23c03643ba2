"""The linear residual convolution of LiResNet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.layers.bound import Bound
from hauberk.layers.export import plain_conv
from hauberk.layers.norms import Padding, conv_layer_norm
from hauberk.layers.same_size import SameSizeConv2d
from hauberk.threats import Norm


class IdentityTap(nn.Module):
    r"""Add the identity to a kernel, :math:`W = I + s\,P`.

    Args:
        scale: s.
        groups: of the convolution.
        shape: of the kernel.
    """

    identity: Tensor

    def __init__(self, scale: float, groups: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.scale = scale
        identity = nn.init.dirac_(torch.empty(*shape), groups)
        self.register_buffer("identity", identity, persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """The effective weight, of the same shape as the free one."""
        return self.identity + self.scale * weight


class LiResConv2d(SameSizeConv2d):
    r"""A residual connection around a convolution, which is one convolution, :math:`y = x + s\,(P * x + b)`.

    Its norm is that of one kernel, so that it is known, and not bounded by 1 + ||P||.  It is **not** 1-Lipschitz: such
    networks are trained against their bound (GloRo, EMMA).  The activation, MaxMin, follows outside.

    Args:
        channels: that enter and leave.
        kernel_size: odd numbers.
        scale: s; :math:`1/\sqrt{\mathrm{depth}}` keeps the start of a deep network level.
        groups: as in ``nn.Conv2d``.
        bias: whether to add a bias.
        padding_mode: ``zeros`` or ``circular``; the padding keeps the size.

    Raises:
        HauberkError: on an even kernel or another padding mode.

    Source: Hu et al. 2023, the linear residual block.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int | tuple[int, int] = 3,
        *,
        scale: float = 1.0,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Padding = "zeros",
    ) -> None:
        super().__init__(
            channels, channels, kernel_size, groups=groups, bias=bias, padding_mode=padding_mode
        )  # fmt: skip
        parametrize.register_parametrization(self, "weight", IdentityTap(scale, groups, self.weight.shape))

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """The norm of the kernel with the identity in it; exact where that of a plain convolution is."""
        return conv_layer_norm(self, input_shape, norm)

    def export(self) -> nn.Conv2d:
        """A plain ``nn.Conv2d`` with the identity in its kernel."""
        return plain_conv(self)
