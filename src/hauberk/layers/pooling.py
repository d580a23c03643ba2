r"""Pooling with known Lipschitz constants, and the constants of torch's own pooling layers.

Average pooling is linear, and acts on rows and columns separately: its matrix is a Kronecker product
:math:`A_\text{rows} \otimes A_\text{columns}`, and so its norm is the product of theirs, in L1, L2 and Linf alike.

Max pooling moves an output by at most the largest move in its window.  With m the largest number of windows that share
a position, moves :math:`d` of the inputs and :math:`i(w)` the position of the largest in window w,

.. math:: \sum_w |d_{i(w)}|^p \le m \sum_i |d_i|^p

which is attained by moving a single high peak: the constant is :math:`m` in L1, :math:`\sqrt m` in L2 and 1 in Linf.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hauberk.errors import HauberkError, reason
from hauberk.layers.bound import SLACK, Bound, check_norm, times
from hauberk.layers.norms import linear_norm
from hauberk.threats import Norm

Size = int | tuple[int, int]
_MEAN = {"l1": -1.0, "l2": -0.5, "linf": 0.0}  # powers of the area that the mean of a window has as its norm


# --- layers ----------------------------------------------------------------------------------------------------


class L2NormPool2d(nn.Module):
    r"""The Euclidean length of each window, :math:`\sqrt{\sum_{i \in w} x_i^2}`, of windows that tile the image.

    1-Lipschitz, and with gradients of length 1 wherever a window is not zero, where it has the subgradient zero.  Rows
    and columns that fill no window are left out, as torch does.

    Args:
        kernel_size: one number, or height and width; also the stride.

    Source: Boureau et al. 2010; for Lipschitz networks LipNeXt 2026.
    """

    def __init__(self, kernel_size: Size) -> None:
        super().__init__()
        self.kernel_size = _pair(kernel_size)

    def extra_repr(self) -> str:
        """The window."""
        return str(self.kernel_size)

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, H, W) to (B, C, H // kh, W // kw).

        Raises:
            HauberkError: if the image is smaller than a window.
        """
        _image(features.shape[1:], self.kernel_size)
        squared = nn.functional.avg_pool2d(features.square(), self.kernel_size, divisor_override=1)
        seen = squared > 0
        return torch.where(seen, torch.where(seen, squared, 1.0).sqrt(), 0.0)

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        r"""One in L2 and in L1; :math:`\sqrt{kh\,kw}` in Linf, where a whole window moves together."""
        check_norm(norm)
        _image(input_shape, self.kernel_size)
        return _power(math.prod(self.kernel_size), 0.5 if norm == "linf" else 0.0, "lengths of disjoint windows")


class ScaledAvgPool2d(nn.Module):
    r"""Means of windows that tile the image, times :math:`\sqrt{kh\,kw}` (k for k x k), so that the L2 norm is 1.

    Args:
        kernel_size: one number, or height and width; also the stride.

    Example:
        >>> from hauberk.layers import ScaledAvgPool2d
        >>> round((ScaledAvgPool2d(2)).lipschitz_bound((1, 8, 8)).value, 4)
        1.0
    """

    def __init__(self, kernel_size: Size) -> None:
        super().__init__()
        self.kernel_size = _pair(kernel_size)

    def extra_repr(self) -> str:
        """The window."""
        return str(self.kernel_size)

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, H, W) to (B, C, H // kh, W // kw)."""
        return nn.functional.avg_pool2d(features, self.kernel_size) * math.sqrt(math.prod(self.kernel_size))

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        r"""With n the area of a window: one in L2, :math:`1/\sqrt n` in L1, :math:`\sqrt n` in Linf."""
        check_norm(norm)
        _image(input_shape, self.kernel_size)
        return _power(math.prod(self.kernel_size), _MEAN[norm] + 0.5, "scaled disjoint means")


class GlobalAveragePool(nn.Module):
    r"""The mean of each channel over its n positions, of L2 norm :math:`1/\sqrt n`.

    Args:
        scaled: multiply by :math:`\sqrt n`, so that the L2 norm is 1 whatever the size of the image.
    """

    def __init__(self, scaled: bool = False) -> None:
        super().__init__()
        self.scaled = scaled

    def extra_repr(self) -> str:
        """Whether it is scaled."""
        return f"scaled={self.scaled}"

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, H, W) to (B, C)."""
        mean = features.mean((2, 3))
        return mean * math.sqrt(features.shape[2] * features.shape[3]) if self.scaled else mean

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        r""":math:`1/n, 1/\sqrt n, 1` in L1, L2, Linf, times :math:`\sqrt n` if scaled."""
        check_norm(norm)
        _image(input_shape)
        return _power(input_shape[1] * input_shape[2], _MEAN[norm] + 0.5 * self.scaled, "mean of all positions")


# --- torch's own layers ----------------------------------------------------------------------------------------


def max_pool_bound(layer: nn.MaxPool2d, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
    r"""The constant of max pooling: :math:`m, \sqrt m, 1` in L1, L2, Linf, with m windows at the busiest position.

    Windows are enumerated, so padding, dilation, ``ceil_mode`` and any stride are covered.  With a kernel no larger
    than the stride m is 1.

    Args:
        layer: its settings.
        input_shape: shape of one input, (C, H, W).
        norm: norm of input and output.

    Raises:
        HauberkError: if it also returns indices, a window holds only padding, or the image is too small.
    """
    check_norm(norm)
    if layer.return_indices:
        raise HauberkError("the indices that it returns are not continuous", "use return_indices=False")
    outputs = _output_size(layer, input_shape)
    kernel, stride, padding, dilation = map(_pair, (layer.kernel_size, layer.stride, layer.padding, layer.dilation))
    busiest = 1
    for i in range(2):
        starts = torch.arange(outputs[i]) * stride[i] - padding[i]
        taps = starts[:, None] + torch.arange(kernel[i]) * dilation[i]
        inside = (taps >= 0) & (taps < input_shape[1 + i])
        if not bool(inside.any(1).all()):
            raise HauberkError("a window holds only padding, whose maximum is -inf", "use less padding")
        busiest *= int(taps[inside].bincount().max())
    return _power(busiest, {"l1": 1.0, "l2": 0.5, "linf": 0.0}[norm], "maxima, windows at the busiest position")


def average_pool_bound(layer: nn.AvgPool2d, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
    """The norm of average pooling, from its matrices along rows and columns; covers all of its settings.

    Args:
        layer: its settings.
        input_shape: shape of one input, (C, H, W).
        norm: norm of input and output.

    Raises:
        HauberkError: if the image is too small.
    """
    check_norm(norm)
    outputs = _output_size(layer, input_shape)
    kernel, stride, padding = map(_pair, (layer.kernel_size, layer.stride, layer.padding))
    axes = []
    for i in range(2):
        size = input_shape[1 + i]
        starts = torch.arange(outputs[i]) * stride[i] - padding[i]
        ends = (starts + kernel[i]).clamp_max(size + padding[i])
        divisor = ends - starts  # torch counts padding on both sides, but nothing beyond it
        starts, ends = starts.clamp_min(0), ends.clamp_max(size)
        if layer.divisor_override is not None:
            divisor = torch.ones_like(divisor)
        elif not layer.count_include_pad:
            divisor = (ends - starts).clamp_min(1)
        axes.append(_window_matrix(starts, ends, size) / divisor[:, None])
    return _kronecker_bound(axes, norm, abs(1.0 / (layer.divisor_override or 1)))


def adaptive_average_pool_bound(layer: nn.AdaptiveAvgPool2d, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
    r"""The norm of adaptive average pooling, from its matrices along rows and columns.

    Output o of n averages the positions :math:`\lfloor oN/n\rfloor` to :math:`\lceil (o+1)N/n\rceil - 1` of N.

    Args:
        layer: its output size.
        input_shape: shape of one input, (C, H, W).
        norm: norm of input and output.
    """
    check_norm(norm)
    axes = []
    for size, count in zip(input_shape[1:], _output_size(layer, input_shape), strict=True):
        place = torch.arange(count)
        starts, ends = place * size // count, -(-(place + 1) * size // count)
        axes.append(_window_matrix(starts, ends, size) / (ends - starts)[:, None])
    return _kronecker_bound(axes, norm)


def _window_matrix(starts: Tensor, ends: Tensor, size: int) -> Tensor:
    """Ones from start to end, shape (outputs, size), float64."""
    place = torch.arange(size)
    return ((place >= starts[:, None]) & (place < ends[:, None])).double()


def _kronecker_bound(axes: Sequence[Tensor], norm: Norm, scale: float = 1.0) -> Bound:
    """The product of the norms of non-negative matrices and a factor, rounded up."""
    value = scale
    for matrix in axes:
        if norm == "l2":
            value = times(value, linear_norm(matrix).value)
        else:
            value = times(value, float(matrix.sum(0 if norm == "l1" else 1).max()) * (1.0 + SLACK))
    return Bound(value, "means along rows and columns", True)


def _power(base: int, exponent: float, method: str) -> Bound:
    """A power of a count, rounded up where it is no whole number."""
    return Bound(1.0 if exponent == 0.0 or base == 1 else base**exponent * (1.0 + SLACK), method, True)


def _pair(value: Size) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _image(shape: Sequence[int], smallest: tuple[int, int] = (1, 1)) -> None:
    """Raise unless the shape is (C, H, W) and the image holds a window of that size."""
    if len(shape) != 3 or shape[1] < smallest[0] or shape[2] < smallest[1]:
        raise HauberkError(
            f"expected a shape (C, H, W) of at least {smallest[0]} x {smallest[1]} positions, got {tuple(shape)}",
            "use larger images",
        )


def _output_size(layer: nn.Module, input_shape: Sequence[int]) -> tuple[int, int]:
    """Height and width of what torch's layer makes of such inputs, without computing it."""
    _image(input_shape)
    try:
        output: Tensor = layer(torch.empty(1, *input_shape, device="meta"))
    except RuntimeError as error:
        shape = tuple(input_shape)
        raise HauberkError(f"inputs of shape {shape} do not fit: {reason(error)}", "use larger images") from error
    return output.shape[2], output.shape[3]
