"""Almost-orthogonal Lipschitz layers.

All of them are torch's own layers with a parametrised weight: ``layer.weight`` is the effective weight, the forward
pass is torch's, and the free parameter is ``layer.parametrizations.weight.original``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.errors import HauberkError
from hauberk.layers.blocks import Pair, to_blocks
from hauberk.layers.bound import Bound
from hauberk.layers.export import plain_conv, plain_linear
from hauberk.layers.norms import Padding, conv_layer_norm, linear_norm
from hauberk.threats import Norm

# Float32 rounding may lift the norm of a rescaled weight above 1 by some 1e-6; this keeps it below.
SHRINK = 1.0 - 1e-5
Plain = TypeVar("Plain", nn.Linear, nn.Conv2d)


def correlation_sums(rows: Tensor) -> Tensor:
    r"""How strongly each two rows of a convolution overlap, :math:`A_{ij} = \sum_s |\langle P_i, \tau_s P_j\rangle|`.

    The sum runs over all shifts s of one kernel against the other, so that, on images of any size, padded with zeros
    or circularly, every row sum of :math:`|J J^\top|` is at most a row sum of A.

    Args:
        rows: shape (groups, R, C, kh, kw).

    Returns:
        shape (groups, R, R), symmetric.
    """
    # Only the first argument of the product carries gradients, which halves the work of the backward pass: what the
    # second one would get is the transpose of it, and is added by a term of value zero.
    groups, count, _, kh, kw = rows.shape
    others = rows.detach()
    if (kh, kw) == (1, 1):
        sums = (rows.flatten(2) @ others.flatten(2).mT).abs()
    else:
        across = rows.transpose(0, 1).flatten(1, 2)
        overlaps = nn.functional.conv2d(across, others.flatten(0, 1), padding=(kh - 1, kw - 1), groups=groups)
        sums = overlaps.abs().sum((2, 3)).reshape(count, groups, count).transpose(0, 1)
    return sums + (sums - sums.detach()).mT


def inverse_root(sums: Tensor) -> Tensor:
    """A little less than one over the square root; 0 for 0, so that rows without weights stay zero."""
    used = sums > 0
    return torch.where(used, torch.where(used, sums, 1.0).rsqrt() * SHRINK, 0.0)


class AlmostOrthogonal(nn.Module):
    r"""Rescale the channels of a weight P so that its norm is at most 1.

    .. math:: W = P D, \qquad D_{ii} = \Big(\sum_j \big|P^\top P\big|_{ij}\Big)^{-1/2}

    For a convolution the sum also runs over all shifts of the kernel's correlation with itself, which makes the bound
    hold for zero padding and for circular padding of any size.  With fewer outputs than inputs the output channels are
    rescaled instead, by the same sums of :math:`P P^\top`, because :math:`\|P\| = \|P^\top\|` and the smaller side is
    the one that can be orthogonal.  Rows without weights stay zero.

    A stride s is a stride of 1 on blocks of s x s pixels that have become channels; each input channel then has a
    factor for each of its places in the block.  Groups are separate maps.

    Source: Prach & Lampert 2022, Theorems 1 and 2 (stride 1, one group).

    Args:
        stride: of the convolution, one value an axis; 1 is right for every stride and dilation, but looser.
        groups: of the convolution.
    """

    def __init__(self, stride: Pair = (1, 1), groups: int = 1) -> None:
        super().__init__()
        self.stride, self.groups = stride, groups

    def forward(self, weight: Tensor) -> Tensor:
        """The effective weight, shape (out, in) or (out, in / groups, kh, kw) as the free one."""
        kernel = weight if weight.dim() == 4 else weight[:, :, None, None]
        blocks = to_blocks(kernel, self.stride)
        blocks = blocks.reshape(self.groups, -1, *blocks.shape[1:])
        if blocks.shape[1] < blocks.shape[2]:
            scale = inverse_root(correlation_sums(blocks).sum(2)).reshape(-1, 1, 1, 1)
        else:
            columns = inverse_root(correlation_sums(blocks.transpose(1, 2)).sum(2))
            scale = _on_taps(columns.reshape(self.groups, -1, *self.stride), kernel)
        return (kernel * scale).reshape(weight.shape)


def _on_taps(columns: Tensor, kernel: Tensor) -> Tensor:
    """Factors (groups, in, sh, sw) of places in a block, as factors (out, in, kh, kw) of the taps that read them."""
    sizes = zip(kernel.shape[2:], columns.shape[2:], strict=True)
    down, across = (torch.arange(k, device=columns.device) % s for k, s in sizes)
    taps = columns[:, :, down[:, None], across]
    return taps.repeat_interleave(kernel.shape[0] // len(columns), 0)


class AOLConv2d(nn.Conv2d):
    r"""A convolution with Lipschitz constant at most 1; see ``AlmostOrthogonal``.

    It starts as an orthogonal matrix in the centre of the kernel, so that a deep network keeps its signal.  Circular
    padding with a stride needs sizes that the stride divides (``PadToMultiple``): on others the constant may exceed 1,
    and ``lipschitz_bound`` says by how much.

    Args:
        in_channels: channels that enter.
        out_channels: channels that leave.
        kernel_size: one number, or height and width.
        stride: as in ``nn.Conv2d``.
        padding: as in ``nn.Conv2d``.
        dilation: as in ``nn.Conv2d``; together with a stride the rescaling is that of stride 1, which is looser.
        groups: as in ``nn.Conv2d``.
        bias: whether to add a bias.
        padding_mode: ``zeros`` or ``circular``.

    Raises:
        HauberkError: on another padding mode, or a circular padding that would repeat outputs.

    Source: Prach & Lampert 2022.

    Example:
        >>> from hauberk.layers import AOLConv2d
        >>> layer = AOLConv2d(3, 16, 3, padding=1).eval()
        >>> layer.lipschitz_bound((3, 8, 8)).value <= 1.001
        True
    """

    def __init__(  # noqa: PLR0913 - the settings of nn.Conv2d
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        *,
        stride: int | Pair = 1,
        padding: int | Pair | str = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Padding = "zeros",
    ) -> None:
        if padding_mode not in ("zeros", "circular"):
            raise HauberkError(
                f"an AOL convolution pads with zeros or circularly, got {padding_mode!r}",
                "use padding_mode='zeros' or 'circular'",
            )
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        )  # fmt: skip
        wide = not isinstance(self.padding, str) and any(
            2 * p > d * (k - 1) for p, d, k in zip(self.padding, self.dilation, self.kernel_size, strict=True)
        )
        if padding_mode == "circular" and wide:
            raise HauberkError(
                f"circular padding {self.padding} of a kernel of {self.kernel_size} repeats outputs, which increases "
                "the norm",
                "use padding='same'",
            )
        with torch.no_grad():
            start_orthogonal(self)
            if self.bias is not None:
                self.bias.zero_()
        blocks = self.stride if self.dilation == (1, 1) else (1, 1)
        parametrize.register_parametrization(self, "weight", AlmostOrthogonal((blocks[0], blocks[1]), groups))

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """The norm of the effective weight as it is, not the theoretical one; ``input_shape`` is (C, H, W)."""
        return conv_layer_norm(self, input_shape, norm)

    def export(self) -> nn.Conv2d:
        """A plain ``nn.Conv2d`` with the effective weight."""
        return plain_conv(self)


class AOLLinear(nn.Linear):
    """A linear layer with Lipschitz constant at most 1; see ``AlmostOrthogonal``.  It starts orthogonal.

    Args:
        in_features: values that enter.
        out_features: values that leave.
        bias: whether to add a bias.

    Source: Prach & Lampert 2022.

    Example:
        >>> from hauberk.layers import AOLLinear
        >>> layer = AOLLinear(8, 4).eval()
        >>> layer.lipschitz_bound((8,)).value <= 1.001
        True
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        with torch.no_grad():
            nn.init.orthogonal_(self.weight)
            if self.bias is not None:
                self.bias.zero_()
        parametrize.register_parametrization(self, "weight", AlmostOrthogonal())

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:  # noqa: ARG002
        """The norm of the effective weight as it is."""
        return linear_norm(self.weight, norm)

    def export(self) -> nn.Linear:
        """A plain ``nn.Linear`` with the effective weight."""
        return plain_linear(self)


def start_orthogonal(layer: nn.Conv2d) -> None:
    """An orthogonal matrix in each group, on as many central taps as the stride is long, so that no pixel is lost."""
    taps = [slice((k - min(k, s) + 1) // 2, (k + min(k, s) + 1) // 2) for k, s in zip(
        layer.kernel_size, layer.stride, strict=True
    )]  # fmt: skip
    layer.weight.zero_()
    for group in layer.weight.chunk(layer.groups):
        centre = group[:, :, taps[0], taps[1]]
        centre.copy_(nn.init.orthogonal_(centre.new_empty(len(centre), centre[0].numel())).reshape(centre.shape))
