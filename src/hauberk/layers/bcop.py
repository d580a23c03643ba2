"""Orthogonal convolutions with an explicit kernel, from blocks of one and two taps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.errors import HauberkError
from hauberk.layers.bjorck import Bjorck
from hauberk.layers.bound import Bound
from hauberk.layers.export import plain_conv
from hauberk.layers.norms import Padding, conv_layer_norm
from hauberk.threats import Norm


class BlockOrthogonal(nn.Module):
    r"""The kernel of a composition of orthogonal convolutions.

    .. math:: W = R * \begin{pmatrix} P_1 & I - P_1 \end{pmatrix} *
              \begin{pmatrix} P_2 \\ I - P_2 \end{pmatrix} * \dots * E

    R makes outputs of s x s blocks of pixels, a matrix with orthonormal rows or columns (as many taps as the stride);
    the blocks of two taps, alternately down and across, hold projectors :math:`P = U U^\top` and their complements;
    E widens the channels where more leave than enter.  At every frequency :math:`P + e^{i\omega}(I - P)` is unitary.
    All matrices come from ``Bjorck``; if it has not converged, P has eigenvalues within [0, 1], and every factor is
    a contraction still.

    The free weight is that of R; the others are ``bases`` and ``widening``.

    Args:
        groups: number of groups.
        inner: channels between E and R, of one group.
        in_channels: channels that enter, of one group.
        taps: height and width of the kernel.
        stride: height and width of the blocks.
        steps: iterations of ``Bjorck``.

    Source: Li et al. 2019 (BCOP); Boissin et al. 2025 (AOC), for the stride.
    """

    widening: Tensor | None

    def __init__(
        self, groups: int, inner: int, in_channels: int, taps: Sequence[int], stride: Sequence[int], steps: int
    ) -> None:
        super().__init__()
        levels = [k - s for k, s in zip(taps, stride, strict=True)]
        self.stride = tuple(stride)
        # (level, axis) of each block; axes of a kernel (groups, kh, kw, out, in)
        self.order = [(level, axis) for level in range(max(levels)) for axis in (1, 2) if level < levels[axis - 1]]
        self.orthogonal = Bjorck(steps)
        # one subspace for all: the blocks of a level and of the next undo each other, and all weight is in the centre
        frame = torch.stack([nn.init.orthogonal_(torch.empty(inner, (inner + 1) // 2)) for _ in range(groups)])
        self.bases = nn.Parameter(frame[:, None].repeat(1, len(self.order), 1, 1))
        wide = torch.stack([nn.init.orthogonal_(torch.empty(inner, in_channels)) for _ in range(groups)])
        self.register_parameter("widening", nn.Parameter(wide) if inner > in_channels else None)

    def forward(self, free: Tensor) -> Tensor:
        """Shape (groups, out, inner * sh * sw) to (groups * out, in, kh, kw), of which out and in are one group's."""
        groups, out, _ = free.shape
        kernel: Tensor = self.orthogonal(free).reshape(groups, out, -1, *self.stride).permute(0, 3, 4, 1, 2)
        bases = self.orthogonal(self.bases) if self.order else self.bases
        for block, (level, axis) in enumerate(self.order):
            basis = bases[:, block, None, None]
            onto = kernel @ basis @ basis.mT
            near, far = (onto, kernel - onto) if level % 2 == 0 else (kernel - onto, onto)
            rows, columns = (1, 0) if axis == 1 else (0, 1)
            kernel = nn.functional.pad(near, (0, 0, 0, 0, 0, columns, 0, rows))
            kernel = kernel + nn.functional.pad(far, (0, 0, 0, 0, columns, 0, rows, 0))
        if self.widening is not None:
            kernel = kernel @ self.orthogonal(self.widening)[:, None, None]
        return kernel.permute(0, 3, 4, 1, 2).flatten(0, 1).contiguous()


class BCOPConv2d(nn.Conv2d):
    r"""A convolution that is orthogonal under circular padding, and a contraction under zero padding.

    Its rows are orthonormal, or its columns if fewer values enter than leave, wherever the stride divides the image and
    the padding is ``(kernel_size - 1) // 2``.  The kernel is an ordinary one: no cost after training.  It starts as an
    orthogonal matrix in the centre of the kernel if the stride is 1.

    Args:
        in_channels: channels that enter.
        out_channels: channels that leave.
        kernel_size: one number, or height and width; at least the stride.
        stride: one number, or one for each axis.
        padding: as in ``nn.Conv2d``.
        groups: as in ``nn.Conv2d``.
        bias: whether to add a bias.
        padding_mode: ``zeros`` or ``circular``.
        steps: iterations that make the matrices orthogonal; too few leave a contraction.

    Raises:
        HauberkError: on another padding mode, a kernel smaller than the stride, or a circular padding that would
            repeat outputs.

    Source: see ``BlockOrthogonal``.

    Example:
        >>> from hauberk.layers import BCOPConv2d
        >>> layer = BCOPConv2d(4, 4, 3, padding=1, padding_mode="circular").eval()
        >>> layer.lipschitz_bound((4, 8, 8)).value <= 1.001
        True
    """

    def __init__(  # noqa: PLR0913 - the arguments of nn.Conv2d
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        *,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Padding = "zeros",
        steps: int = 12,
    ) -> None:
        if padding_mode not in ("zeros", "circular"):
            raise HauberkError(
                f"an orthogonal convolution pads with zeros or circularly, got {padding_mode!r}",
                "use padding_mode='zeros' or 'circular'",
            )
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise HauberkError(
                f"{groups} groups do not divide {in_channels} and {out_channels} channels", "use groups=1"
            )
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, 1, groups, bias, padding_mode
        )  # fmt: skip
        if any(k < s for k, s in zip(self.kernel_size, self.stride, strict=True)):
            raise HauberkError(
                f"a kernel of {self.kernel_size} skips pixels at stride {self.stride}",
                "use a kernel that is at least as large as the stride",
            )
        wide = not isinstance(self.padding, str) and any(
            2 * p > k - 1 for p, k in zip(self.padding, self.kernel_size, strict=True)
        )
        if padding_mode == "circular" and wide:
            raise HauberkError(
                f"circular padding {self.padding} of a kernel of {self.kernel_size} repeats outputs, which increases "
                "the norm",
                "use a padding of (kernel_size - 1) // 2",
            )
        area = self.stride[0] * self.stride[1]
        into, out = in_channels // groups, out_channels // groups
        inner = max(into, out // area)
        free = torch.stack([nn.init.orthogonal_(torch.empty(out, inner * area)) for _ in range(groups)])
        blocks = BlockOrthogonal(groups, inner, into, self.kernel_size, self.stride, steps)
        self.weight = nn.Parameter(free)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        parametrize.register_parametrization(self, "weight", blocks, unsafe=True)

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """The norm of the kernel as it is; ``input_shape`` is (C, H, W)."""
        return conv_layer_norm(self, input_shape, norm)

    def export(self) -> nn.Conv2d:
        """A plain ``nn.Conv2d`` with the effective kernel."""
        return plain_conv(self)
