r"""Upper bounds on spectral norms of linear and convolutional maps, in float64.

A circular convolution is block diagonal in the Fourier basis: its singular values are those of the channel matrices
:math:`K(\omega) = \sum_b W_b\,e^{i\langle\omega, b\rangle}` at the frequencies of the grid, which has the size of the
feature map (Sedghi et al. 2019) and not that of the kernel.  Everything else is a compression of one:

- zero padding: a convolution of n positions is a window of the circular convolution on any grid m that is long enough
  for no tap to wrap around onto data (``m >= n + k - 1`` always is; ``m >= n + padding`` is as well);
- stride s: positions are grouped in blocks of s, which become channels, and the convolution has stride 1 on blocks;
  where blocks do not tile a circle, the stride-1 convolution followed by a subsampling, which is a contraction;
- groups act on separate channels, so the norm is the largest of the groups' norms.

Power iteration approaches the norm from below and is used nowhere.  Gram products in float32, with an allowance for
their rounding, discard the frequencies that cannot hold the largest singular value (Delattre et al. 2023 take the
products themselves for the bound).  Those left are decomposed in float64 by LAPACK, with a relative error of a small
multiple of 1e-16; bounds are raised by ``SLACK``, which exceeds it by orders of magnitude.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hauberk.errors import HauberkError
from hauberk.layers.bound import SLACK, Bound, raised, scaled
from hauberk.layers.entry_norms import conv_entry_norms, linear_entry_norms
from hauberk.threats import Norm

__all__ = ["SLACK", "conv_layer_norm", "conv_norm", "linear_norm"]


Padding = Literal["zeros", "circular"]
_SIDE = 256  # from here on eigenvalues are the faster way to singular values
_ENTRIES = 1 << 22  # entries of the channel matrices held at a time
_FEW = 8  # so many matrices are decomposed without looking for those that matter
_SQUARINGS = 4  # after which the products have told apart what they can


def linear_norm(weight: Tensor, norm: Norm = "l2") -> Bound:
    r"""Operator norm of a matrix: in L2 :math:`\sigma_1(W)` from its singular values, else sums of rows or columns.

    Args:
        weight: shape (out, in).
        norm: on both sides.

    Raises:
        HauberkError: if the weights hold NaN or infinity.

    Example:
        >>> import torch
        >>> from hauberk.layers import linear_norm
        >>> weight = torch.tensor([[3.0, 0.0], [4.0, 0.0]])
        >>> [round(linear_norm(weight, norm).value, 4) for norm in ("l2", "linf", "l1")]
        [5.0, 4.0, 7.0]
    """
    if norm != "l2":
        return linear_entry_norms(weight)[norm, norm]
    scale, matrix = scaled(weight)
    return Bound(raised(scale, _largest(matrix)), "singular values", True)


def conv_norm(
    weight: Tensor,
    size: Sequence[int],
    stride: Sequence[int] = (1, 1),
    padding: Sequence[tuple[int, int]] = ((0, 0), (0, 0)),
    padding_mode: Padding = "zeros",
    groups: int = 1,
    dilation: Sequence[int] = (1, 1),
) -> Bound:
    r"""Upper bound on the norm of a 2-D convolution (cross-correlation), :math:`\max_\omega \sigma_1(K(\omega))`.

    Exact for circular padding where the stride divides the size and every output position appears equally often, and
    for windows that do not overlap, without padding.

    Args:
        weight: shape (out, in / groups, kh, kw).
        size: height and width of the feature map that enters.
        stride: one value an axis.
        padding: (before, after) of each axis.
        padding_mode: ``zeros`` or ``circular``.
        groups: number of groups.
        dilation: one value an axis.

    Raises:
        HauberkError: if the weights hold NaN or infinity, or the feature map is smaller than the kernel.

    Example:
        >>> import torch
        >>> from hauberk.layers import conv_norm
        >>> weight = torch.ones(1, 1, 3, 3)  # its sum is 9, and the norm of the kernel as a vector is 3
        >>> bound = conv_norm(weight, (8, 8), padding=((1, 1), (1, 1)), padding_mode="circular")
        >>> round(bound.value, 4), bound.exact
        (9.0, True)
    """
    circular = padding_mode == "circular"
    if not circular:
        weight, padding = _reaching(weight, size, stride, padding, dilation)
    scale, kernel = scaled(weight)
    rows, columns = (
        _axis(size[i], kernel.shape[2 + i], stride[i], padding[i], dilation[i], circular) for i in range(2)
    )
    blocks = _by_phase(kernel.reshape(groups, -1, *kernel.shape[1:]), rows, columns)
    # what rounding of sums over taps may hide where they cancel
    largest = _largest_of_all(blocks, rows, columns) + _rounding(blocks, 2.0**-53)
    value = raised(scale, largest * math.sqrt(rows.repeats * columns.repeats))
    return Bound(value, f"singular values per frequency, {rows.grid}x{columns.grid}", rows.exact and columns.exact)


def conv_layer_norm(layer: nn.Conv2d, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
    """The norm of a layer's effective weight with its settings, for inputs of shape (C, H, W); in L2 ``conv_norm``.

    Raises:
        HauberkError: on reflect or replicate padding, a circular padding wider than the feature map, or NaN weights.
    """
    mode = layer.padding_mode
    if mode not in ("zeros", "circular"):
        raise HauberkError(f"no sound bound is known for {mode} padding", "use padding_mode='zeros' or 'circular'")
    if len(input_shape) != 3:
        raise HauberkError(f"expected a shape (C, H, W), got {tuple(input_shape)}", "leave the batch axis out")
    if norm != "l2":
        return conv_entry_norms(layer, input_shape)[norm, norm]
    if mode == "circular" and not isinstance(layer.padding, str) and _stale(layer):
        raise HauberkError("its padding was changed after it was built", "build the layer anew")
    # torch pads "same" unevenly for even kernels, the longer side after the data
    total = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    if layer.padding == "same":
        padding = [(t // 2, t - t // 2) for t in total]
    elif layer.padding == "valid":
        padding = [(0, 0), (0, 0)]
    else:
        padding = [(int(p), int(p)) for p in layer.padding]
    return conv_norm(layer.weight, input_shape[1:], layer.stride, padding, mode, layer.groups, layer.dilation)


def _reaching(
    weight: Tensor,
    size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
) -> tuple[Tensor, list[tuple[int, int]]]:
    """The kernel without outer taps that read zeros at every position, as most do on maps of a pixel or two."""
    kept = []
    for i, (before, after) in enumerate(padding):
        n, taps, d = size[i], weight.shape[2 + i], dilation[i]
        outputs = (n + before + after - d * (taps - 1) - 1) // stride[i] + 1
        if outputs < 1:  # refused below
            return weight, list(padding)
        read = [t for t in range(taps) if any(0 <= j * stride[i] + t * d - before < n for j in range(outputs))]
        if not read:
            return weight, list(padding)
        weight = weight.narrow(2 + i, read[0], read[-1] - read[0] + 1)
        kept.append((before - d * read[0], after - d * (taps - 1 - read[-1])))
    return weight, kept


def _stale(layer: nn.Conv2d) -> bool:
    """Whether torch pads a circular convolution by another number than the layer shows: it keeps one of its own."""
    shown = [side for side in reversed(layer.padding) for _ in range(2)]
    return list(layer._reversed_padding_repeated_twice) != shown


@dataclass(frozen=True)
class _Axis:
    """One axis of a convolution, as a stride-1 convolution of blocks.

    Args:
        block: how many positions a block holds; they become channels.
        phase: for each tap of the kernel, the position within its block that it reads.
        shift: for each tap, the block that it reads, counted from the first one read.
        grid: number of frequencies.
        repeats: how often an output position may appear (circular padding may repeat some).
        exact: whether the circular convolution has the same norm along this axis.
    """

    block: int
    phase: list[int]
    shift: list[int]
    grid: int
    repeats: int
    exact: bool


def _axis(size: int, kernel: int, stride: int, padding: tuple[int, int], dilation: int, circular: bool) -> _Axis:
    before, after = padding
    room = size + before + after - dilation * (kernel - 1)
    if room < 1 or (circular and max(before, after) > size):
        raise HauberkError(
            f"a kernel of {kernel} taps with padding {padding} does not fit {size} positions", "use larger images"
        )
    circular = circular and padding != (0, 0)  # without padding nothing wraps
    tiled = not circular or size % stride == 0
    block = stride if tiled else 1
    blocks = -(-size // block)
    outputs = (room - 1) // block + 1
    offsets = [tap * dilation - before for tap in range(kernel)]
    first, span = offsets[0] // block, offsets[-1] // block - offsets[0] // block
    shift = [offset // block - first for offset in offsets]
    phase = [offset % block for offset in offsets]
    if circular:
        exact = tiled and outputs % blocks == 0
        return _Axis(block, phase, shift, blocks if span else 1, -(-outputs // blocks), exact)
    # outputs 0..outputs-1 read blocks first..outputs-1+first+span; those beyond the data must not wrap onto it, and
    # a full linear convolution (blocks + span) never does
    outside = max(-first, outputs + first + span - blocks, 0)
    grid = blocks + min(span, outside) if span else 1  # one tap: the same singular values at every frequency
    return _Axis(block, phase, shift, grid, 1, span == 0 and padding == (0, 0))


def _by_phase(kernel: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
    """Kernel on blocks, (groups, out, in, kh, kw) to (groups, out, in * block area, block taps)."""
    groups, outputs, inputs = kernel.shape[:3]
    shape = (rows.block, columns.block, max(rows.shift) + 1, max(columns.shift) + 1)
    blocks = kernel.new_zeros(groups, outputs, inputs, *shape)
    down = [torch.tensor(v)[:, None] for v in (rows.phase, rows.shift)]
    across = [torch.tensor(v)[None, :] for v in (columns.phase, columns.shift)]
    blocks[:, :, :, down[0], across[0], down[1], across[1]] = kernel
    return blocks.flatten(5).flatten(2, 4)


def _largest_of_all(blocks: Tensor, rows: _Axis, columns: _Axis) -> float:
    """The largest singular value over half the grid (the others are conjugates), a few frequencies at a time."""
    if rows.grid == columns.grid == 1:  # a real matrix
        return _largest(blocks.sum(-1))
    frequencies = torch.cartesian_prod(torch.arange(rows.grid), torch.arange(columns.grid // 2 + 1))
    best = 0.0
    for chosen in torch.split(frequencies, max(1, _ENTRIES // blocks[..., 0].numel())):

        def exact(index: Tensor, chosen: Tensor = chosen) -> float:
            return _largest(_channel_matrices(blocks, rows, columns, chosen[index], torch.complex128))

        left = torch.arange(len(chosen))
        if len(chosen) > _FEW:
            rough = _channel_matrices(blocks, rows, columns, chosen, torch.complex64)
            left, best = _screened(rough, _rounding(blocks, 2.0**-24), exact, best)
        if len(left):
            best = max(best, exact(left))
    return best


def _channel_matrices(
    blocks: Tensor, rows: _Axis, columns: _Axis, frequencies: Tensor, precision: torch.dtype
) -> Tensor:
    """The matrices K(omega) at some frequencies (F, 2) of the grid, shape (F, groups, out, in)."""
    down, across = torch.arange(max(rows.shift) + 1), torch.arange(max(columns.shift) + 1)
    # whole turns are taken off in integers, so that the angles are accurate however large the products are
    vertical = (frequencies[:, :1] * down % rows.grid).double() / rows.grid
    horizontal = (frequencies[:, 1:] * across % columns.grid).double() / columns.grid
    angle = 2.0 * math.pi * (vertical[:, :, None] + horizontal[:, None, :]).flatten(1)
    waves = torch.polar(torch.ones_like(angle), angle).to(precision)
    return (waves @ blocks.flatten(0, 2).T.to(precision)).reshape(-1, *blocks.shape[:3])


def _rounding(blocks: Tensor, unit: float) -> float:
    r"""How much the channel matrices may be off at that unit of rounding, in the Frobenius norm.

    A sum over n taps is off by some :math:`(n + 3)\,u\sum_t |w_t| \le (n + 3)\sqrt n\,u\,\|w\|_2`, angles included.
    """
    taps = blocks.shape[-1]
    return 16.0 * taps * math.sqrt(taps) * unit * float(torch.linalg.vector_norm(blocks))


def _screened(
    matrices: Tensor, off: float, exact: Callable[[Tensor], float], best: float
) -> tuple[Tensor, float]:
    r"""The frequencies that may exceed the best singular value seen, by :math:`\|(M M^*)^p\|_F^{1/2p}`, p = 1, 2, ...

    A product of n x n matrices in single precision is off by a few n units of :math:`\|H\|_F^2 \le n\,\sigma_1(H)^2`,
    that is, its largest singular value by :math:`n^2` units; the roots of order 2p take back what squaring adds.

    Args:
        matrices: shape (F, groups, out, in), complex64; torch's settings for real products do not reach these.
        off: how much they may be off themselves.
        exact: the largest singular value at given frequencies.
        best: a singular value that is known already.

    Returns:
        indices of frequencies, and the best value seen.
    """
    short, long = sorted(matrices.shape[-2:])
    allowance = 1.0 + 4.0 * short * long * 2.0**-24
    gram = matrices @ matrices.mH if matrices.shape[-2] == short else matrices.mH @ matrices
    left, log = torch.arange(len(gram)), gram.real.new_zeros(gram.shape[:2], dtype=torch.float64)
    for step in range(_SQUARINGS + 1):
        parts = torch.view_as_real(gram).flatten(2)  # torch's norm of complex numbers takes ten times as long
        size = torch.linalg.vector_norm(parts, dim=2)
        log = log + size.double().log()
        bounds = (log / 2.0 ** (step + 1)).exp().amax(1)
        best = max(best, exact(left[bounds.argmax()][None]))
        kept = bounds * allowance + off > best
        left, log = left[kept], 2.0 * log[kept]
        if len(left) <= _FEW or step == _SQUARINGS:
            break
        gram = gram[kept]
        torch.view_as_real(gram).div_(torch.where(size > 0, size, 1.0)[kept][..., None, None, None])
        gram = gram @ gram
    return left, best


def _largest(matrices: Tensor) -> float:
    """The largest singular value of all, an upper bound up to rounding that ``SLACK`` exceeds."""
    least = min(matrices.shape[-2:])
    if least <= _SIDE:
        return float(torch.linalg.svdvals(matrices).max())
    # the eigenvalues of M M* cost half; its rounding is at most 8 n^2 units of its norm
    gram = matrices @ matrices.mH if matrices.shape[-2] == least else matrices.mH @ matrices
    rounding = 1.0 + 8.0 * least * max(matrices.shape[-2:]) * 2.0**-53
    return math.sqrt(max(0.0, float(torch.linalg.eigvalsh(gram).max())) * rounding)
