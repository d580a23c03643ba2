"""Layer-wise orthogonal training: circular convolutions made orthogonal frequency by frequency."""

from __future__ import annotations

from torch import Tensor, nn

from hauberk.layers.bjorck import Bjorck
from hauberk.layers.frequency import FrequencyConv2d


class LOTConv2d(FrequencyConv2d):
    r"""A circular convolution with orthonormal rows or columns, the nearest one to a free kernel.

    .. math:: Q(\omega) = \big(K(\omega)\,K(\omega)^*\big)^{-1/2}\,K(\omega)

    The paper finds the root by two coupled Newton iterations of :math:`K K^*`; here the iteration runs on K itself
    (``Bjorck``), which in exact arithmetic gives the same matrices, costs less, and squares no condition number.  It
    starts as an orthogonal matrix in the centre of the kernel.

    Args:
        in_channels: channels that enter.
        out_channels: channels that leave.
        kernel_size: of the free kernel, one number, or height and width; at most ``size / stride``.
        size: height and width of the images that enter, or one number for both.
        stride: divides ``size``; blocks of so many pixels become channels first.
        bias: whether to add a bias.
        steps: iterations; too few leave a contraction.

    Raises:
        HauberkError: if the stride does not divide the size, or the kernel exceeds it.

    Source: Xu, Li & Li 2022 (LOT).

    Example:
        >>> from hauberk.layers import LOTConv2d
        >>> layer = LOTConv2d(4, 4, 3, size=8).eval()
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
        steps: int = 10,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, size, Bjorck(steps), stride=stride, bias=bias)

    def _start(self, free: Tensor) -> Tensor:
        row, column = ((k - 1) // 2 for k in self.kernel_size)
        free[:, :, row, column] = nn.init.orthogonal_(free.new_empty(free.shape[:2]))
        return free
