r"""Operator norms that are read off the entries of a matrix: exact, and cheap also for convolutions.

With rows i and columns j,

.. math::
    \|A\|_{1\to1} = \max_j \sum_i |A_{ij}|, \quad \|A\|_{\infty\to\infty} = \max_i \sum_j |A_{ij}|, \quad
    \|A\|_{2\to\infty} = \max_i \Big(\sum_j A_{ij}^2\Big)^{1/2}, \quad
    \|A\|_{1\to2} = \max_j \Big(\sum_i A_{ij}^2\Big)^{1/2}, \quad \|A\|_{1\to\infty} = \max_{ij} |A_{ij}|

(Golub & Van Loan 2013, section 2.3).  The matrix of a convolution is never formed: its row sums are a convolution of
ones, its column sums the gradient of their total.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hauberk.errors import HauberkError
from hauberk.layers.bound import Bound, raised, scaled
from hauberk.threats import Norm

Pair = tuple[Norm, Norm]


def linear_entry_norms(weight: Tensor) -> dict[Pair, Bound]:
    """The norms above of a matrix of shape (out, in), from the first norm to the second, in float64.

    Raises:
        HauberkError: if the weights hold NaN or infinity.
    """
    scale, matrix = scaled(weight)
    absolute, squares = matrix.abs(), matrix.square()
    return _bounds(scale, absolute, [t.sum(1) for t in (absolute, squares)], [t.sum(0) for t in (absolute, squares)])


def conv_entry_norms(layer: nn.Conv2d, input_shape: Sequence[int]) -> dict[Pair, Bound]:
    """The norms above of a convolution's matrix, for inputs of shape (C, H, W).

    Exact unless two taps of the kernel meet on one pixel of a circle; then all taps count in full.

    Raises:
        HauberkError: on reflect or replicate padding, or NaN weights.
    """
    if layer.padding_mode not in ("zeros", "circular"):
        raise HauberkError(
            f"no sound bound is known for {layer.padding_mode} padding", "use padding_mode='zeros' or 'circular'"
        )
    scale, weight = scaled(layer.weight)
    rows, columns = [], []
    meet = layer.padding_mode == "circular" and any(
        d * (k - 1) >= n for d, k, n in zip(layer.dilation, layer.kernel_size, input_shape[1:], strict=True)
    )
    for kernel in (weight.abs(), weight.square()):
        ones = torch.ones(1, *input_shape, dtype=torch.float64)
        with torch.enable_grad():
            ones.requires_grad_(True)
            sums: Tensor = layer._conv_forward(ones, kernel, None)
            columns.append(torch.autograd.grad(sums.sum(), ones)[0].flatten())
        rows.append(sums.detach().flatten())
    if meet:  # (a + b)^2 may exceed a^2 + b^2, but never (|a| + |b|)^2; and so may |a + b| exceed the largest entry
        rows[1], columns[1] = rows[0].square(), columns[0].square()
    return _bounds(scale, rows[0] if meet else weight.abs(), rows, columns, not meet)


def _bounds(
    scale: float, entries: Tensor, rows: Sequence[Tensor], columns: Sequence[Tensor], exact: bool = True
) -> dict[Pair, Bound]:
    def bound(value: Tensor, what: str, root: bool = False) -> Bound:
        largest = float(value.max()) if value.numel() else 0.0
        return Bound(raised(scale, math.sqrt(largest) if root else largest), what, exact)

    return {
        ("l1", "l1"): bound(columns[0], "column sums"),
        ("linf", "linf"): bound(rows[0], "row sums"),
        ("l2", "linf"): bound(rows[1], "row lengths", root=True),
        ("l1", "l2"): bound(columns[1], "column lengths", root=True),
        ("l1", "linf"): bound(entries, "entries"),
    }
