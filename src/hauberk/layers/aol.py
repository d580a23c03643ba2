r"""Almost-orthogonal Lipschitz layers, and the last layer with rows of unit length.

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
from hauberk.layers.bound import Bound
from hauberk.layers.norms import Padding, conv_layer_norm, linear_norm

# Float32 rounding may lift the norm of a rescaled weight above 1 by some 1e-6; this keeps it below.
_SHRINK = 1.0 - 1e-5
Plain = TypeVar("Plain", nn.Linear, nn.Conv2d)


class AlmostOrthogonal(nn.Module):
    r"""Rescale the channels of a weight P so that its norm is at most 1.

    .. math:: W = P D, \qquad D_{ii} = \Big(\sum_j \big|P^\top P\big|_{ij}\Big)^{-1/2}

    For a convolution the sum also runs over all shifts of the kernel's correlation with itself, which makes the bound
    hold for zero padding and for circular padding of any size.  With fewer outputs than inputs the output channels are
    rescaled instead, by the same sums of :math:`P P^\top`, because :math:`\|P\| = \|P^\top\|` and the smaller side is
    the one that can be orthogonal.  Rows without weights stay zero.

    Source: Prach & Lampert 2022, Theorems 1 and 2.
    """

    def forward(self, weight: Tensor) -> Tensor:
        """The effective weight, shape (out, in) or (out, in, kh, kw) as the free one."""
        narrow = weight if weight.shape[0] < weight.shape[1] else weight.transpose(0, 1)
        if weight.dim() == 2:
            sums = (narrow @ narrow.T).abs().sum(1)
        else:
            kh, kw = weight.shape[2:]
            sums = nn.functional.conv2d(narrow, narrow, padding=(kh - 1, kw - 1)).abs().sum((1, 2, 3))
        used = sums > 0
        scale = torch.where(used, torch.where(used, sums, 1.0).rsqrt() * _SHRINK, 0.0)
        shape = (-1, 1) if weight.shape[0] < weight.shape[1] else (1, -1)
        return weight * scale.reshape(*shape, *[1] * (weight.dim() - 2))


class UnitRows(nn.Module):
    r"""Scale each row of a matrix to unit length, :math:`w_i / \|w_i\|_2`; a zero row stays zero."""

    def forward(self, weight: Tensor) -> Tensor:
        """Shape (out, in) to the same shape."""
        length = torch.linalg.vector_norm(weight, dim=1, keepdim=True)
        return weight / torch.where(length > 0, length, 1.0)


class AOLConv2d(nn.Conv2d):
    r"""A convolution of stride 1 with Lipschitz constant at most 1; see ``AlmostOrthogonal``.

    It starts as an orthogonal matrix in the centre of the kernel, so that a deep network keeps its signal.

    Args:
        in_channels: channels that enter.
        out_channels: channels that leave.
        kernel_size: one number, or height and width.
        padding: as in ``nn.Conv2d``.
        bias: whether to add a bias.
        padding_mode: ``zeros`` or ``circular``.

    Raises:
        HauberkError: on another padding mode, or a circular padding that would repeat outputs.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        padding: int | tuple[int, int] | str = 0,
        bias: bool = True,
        padding_mode: Padding = "zeros",
    ) -> None:
        if padding_mode not in ("zeros", "circular"):
            raise HauberkError(
                f"an AOL convolution pads with zeros or circularly, got {padding_mode!r}",
                "use padding_mode='zeros' or 'circular'",
            )
        super().__init__(in_channels, out_channels, kernel_size, padding=padding, bias=bias, padding_mode=padding_mode)
        wide = not isinstance(self.padding, str) and any(
            2 * p > k - 1 for p, k in zip(self.padding, self.kernel_size, strict=True)
        )
        if padding_mode == "circular" and wide:
            raise HauberkError(
                f"circular padding {self.padding} of a kernel of {self.kernel_size} repeats outputs, which adds length",
                "use padding='same'",
            )
        with torch.no_grad():
            kh, kw = self.kernel_size
            self.weight.zero_()
            self.weight[:, :, kh // 2, kw // 2] = nn.init.orthogonal_(self.weight.new_empty(self.weight.shape[:2]))
            if self.bias is not None:
                self.bias.zero_()
        parametrize.register_parametrization(self, "weight", AlmostOrthogonal())

    def lipschitz_bound(self, input_shape: Sequence[int]) -> Bound:
        """The norm of the effective weight as it is, not the one that theory intends; ``input_shape`` is (C, H, W)."""
        return conv_layer_norm(self, input_shape)

    def export(self) -> nn.Conv2d:
        """A plain ``nn.Conv2d`` with the effective weight."""
        plain = nn.Conv2d(
            self.in_channels,
            self.out_channels,
            self.kernel_size,  # type: ignore[arg-type]
            padding=self.padding,  # type: ignore[arg-type]
            bias=self.bias is not None,
            padding_mode=self.padding_mode,
        )
        return _filled(plain, self)


class AOLLinear(nn.Linear):
    """A linear layer with Lipschitz constant at most 1; see ``AlmostOrthogonal``.  It starts orthogonal.

    Args:
        in_features: values that enter.
        out_features: values that leave.
        bias: whether to add a bias.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        with torch.no_grad():
            nn.init.orthogonal_(self.weight)
            if self.bias is not None:
                self.bias.zero_()
        parametrize.register_parametrization(self, "weight", AlmostOrthogonal())

    def lipschitz_bound(self, input_shape: Sequence[int]) -> Bound:  # noqa: ARG002
        """The norm of the effective weight as it is."""
        return linear_norm(self.weight)

    def export(self) -> nn.Linear:
        """A plain ``nn.Linear`` with the effective weight."""
        return _filled(nn.Linear(self.in_features, self.out_features, self.bias is not None), self)


class UnitRowLinear(nn.Linear):
    r"""A last layer whose rows have unit length but need not be orthogonal (last-layer normalisation).

    Two logits then differ by a function of Lipschitz constant :math:`\|w_i - w_j\| \le 2` of the features.

    Source: Singla et al. 2022, last-layer normalisation.

    Args:
        in_features: values that enter.
        out_features: number of classes K.
        bias: whether to add a bias.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        parametrize.register_parametrization(self, "weight", UnitRows())

    def lipschitz_bound(self, input_shape: Sequence[int]) -> Bound:  # noqa: ARG002
        """The norm of the effective weight as it is."""
        return linear_norm(self.weight)

    def export(self) -> nn.Linear:
        """A plain ``nn.Linear`` with the effective weight."""
        return _filled(nn.Linear(self.in_features, self.out_features, self.bias is not None), self)


def _filled(plain: Plain, source: nn.Linear | nn.Conv2d) -> Plain:
    """The plain layer with the source's effective weight, bias and mode."""
    plain.to(source.weight)
    with torch.no_grad():
        plain.weight.copy_(source.weight)
        if plain.bias is not None and source.bias is not None:
            plain.bias.copy_(source.bias)
    return plain.train(source.training)
