"""Convolutions that keep the size of the feature map."""

from __future__ import annotations

from torch import nn

from hauberk.errors import HauberkError
from hauberk.layers.norms import Padding


class SameSizeConv2d(nn.Conv2d):
    """A convolution with an odd kernel and the padding that keeps the size, so that its transpose is one as well.

    Args:
        in_channels: channels that enter.
        out_channels: channels that leave.
        kernel_size: odd, one number, or height and width.
        groups: as in ``nn.Conv2d``.
        bias: whether to add a bias.
        padding_mode: ``zeros`` or ``circular``.

    Raises:
        HauberkError: on an even kernel or another padding mode.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        groups: int,
        bias: bool,
        padding_mode: Padding,
    ) -> None:
        sides = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        if sides[0] % 2 == 0 or sides[1] % 2 == 0 or padding_mode not in ("zeros", "circular"):
            raise HauberkError(
                f"expected odd kernels padded with zeros or circularly, got {sides} and {padding_mode!r}",
                "use for example kernel_size=3, padding_mode='zeros'",
            )
        super().__init__(
            in_channels, out_channels, sides, padding=(sides[0] // 2, sides[1] // 2), groups=groups, bias=bias,
            padding_mode=padding_mode,
        )  # fmt: skip
