r"""Circular convolutions whose channel matrices are made orthogonal at every frequency.

The circular convolution with a kernel W is block diagonal in the Fourier basis, with blocks
:math:`K(\omega) = \sum_b W_b\,e^{i\langle\omega, b\rangle}`.  If each block is replaced by one with orthonormal rows
or columns, the layer has orthonormal rows or columns; its kernel then fills the whole feature map, whose size is
therefore part of the layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.errors import HauberkError
from hauberk.layers.bound import Bound, only_l2
from hauberk.layers.norms import linear_norm
from hauberk.threats import Norm

_AT_ONCE = 64  # frequencies whose singular values are computed together


def half_spectrum(kernel: Tensor, size: Sequence[int]) -> Tensor:
    """The Fourier transform of a kernel (m, n, kh, kw) at half the frequencies of a feature map, (frequencies, m, n).

    The other half are their conjugates.
    """
    spectrum: Tensor = torch.fft.rfft2(kernel, s=list(size))
    return spectrum.flatten(2).permute(2, 0, 1)


def to_frequencies(features: Tensor) -> Tensor:
    """Feature maps (B, C, H, W) as (frequencies, C, B)."""
    spectrum: Tensor = torch.fft.rfft2(features)
    return spectrum.permute(2, 3, 1, 0).flatten(0, 1)


def to_pixels(spectrum: Tensor, size: Sequence[int]) -> Tensor:
    """The inverse of ``to_frequencies``, for a feature map of that height and width."""
    grid = spectrum.reshape(size[0], -1, *spectrum.shape[1:]).permute(3, 2, 0, 1)
    features: Tensor = torch.fft.irfft2(grid, s=list(size))
    return features


def check_circle(shape: Sequence[int], channels: int, kernel_size: Sequence[int], stride: int) -> None:
    """Raise unless a shape (C, H, W) has these channels, and sizes that are multiples and as large as the kernel."""
    sizes = zip(shape[1:], kernel_size, strict=True) if len(shape) == 3 else []
    fits = [n % stride == 0 and n // stride >= k for n, k in sizes]
    if not fits or not all(fits) or shape[0] != channels:
        raise HauberkError(
            f"expected {channels} channels, and sizes that are multiples of {stride} and as large as the kernel "
            f"{tuple(kernel_size)}, got {tuple(shape)}",
            "pad with PadToMultiple, or use a smaller kernel",
        )


class Spectrum(nn.Module):
    r"""The channel matrices of a kernel on the half grid of real images, each made orthogonal.

    Args:
        grid: height and width of the feature map.
        orthogonal: carries matrices (..., out, in) to matrices of the same shape.
    """

    def __init__(self, grid: tuple[int, int], orthogonal: nn.Module) -> None:
        super().__init__()
        self.grid = grid
        self.orthogonal = orthogonal

    def forward(self, kernel: Tensor) -> Tensor:
        """Shape (out, in, kh, kw), real, to (H, W // 2 + 1, out, in), complex."""
        (height, width), (kh, kw) = self.grid, kernel.shape[2:]
        around = nn.functional.pad(kernel, (0, width - kw, 0, height - kh))
        around = around.roll((-((kh - 1) // 2), -((kw - 1) // 2)), (2, 3))  # as torch pads "same"
        matrices: Tensor = self.orthogonal(torch.fft.rfft2(around).conj().permute(2, 3, 0, 1))
        return matrices.resolve_conj()


class FrequencyConv2d(nn.Module):
    r"""A circular convolution with a matrix for every frequency; ``weight`` are these matrices.

    With a stride s, blocks of s x s pixels first become channels, which is a permutation.

    Args:
        in_channels: channels that enter.
        out_channels: channels that leave.
        kernel_size: of the free kernel, one number, or height and width; at most ``size / stride``.
        size: height and width of the images that enter, or one number for both.
        orthogonal: see ``Spectrum``.
        stride: divides ``size``.
        bias: whether to add a bias.

    Raises:
        HauberkError: if the stride does not divide the size, or the kernel exceeds it.
    """

    weight: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        size: int | tuple[int, int],
        orthogonal: nn.Module,
        *,
        stride: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        self.size = (size, size) if isinstance(size, int) else size
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride
        grid = (self.size[0] // stride, self.size[1] // stride)
        if any(s % stride for s in self.size) or any(k > g for k, g in zip(self.kernel_size, grid, strict=True)):
            raise HauberkError(
                f"a kernel of {self.kernel_size} with stride {stride} does not fit images of {self.size}",
                "use a size that the stride divides, and a kernel of at most size / stride",
            )
        self.weight = nn.Parameter(self._start(torch.zeros(out_channels, in_channels * stride**2, *self.kernel_size)))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        parametrize.register_parametrization(self, "weight", Spectrum(grid, orthogonal), unsafe=True)

    def extra_repr(self) -> str:
        """Channels, kernel, size and stride."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, size={self.size}, "
            f"stride={self.stride}, bias={self.bias is not None}"
        )

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, in, H, W) to (B, out, H / stride, W / stride).

        Raises:
            HauberkError: if H, W is not ``size``.
        """
        self._check(features.shape[1:])
        if self.stride > 1:
            features = nn.functional.pixel_unshuffle(features, self.stride)
        spectrum = torch.fft.rfft2(features).permute(2, 3, 1, 0)
        outputs: Tensor = torch.fft.irfft2((self.weight @ spectrum).permute(3, 2, 0, 1), s=features.shape[2:])
        return outputs if self.bias is None else outputs + self.bias[:, None, None]

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        r"""The largest singular value of all matrices as they are; ``input_shape`` is (C, H, W).

        The inverse transform drops what rounding adds to the parts that real images lack, which is a projection.
        """
        only_l2(norm)
        self._check(input_shape)
        weight = self.weight.detach().cpu().to(torch.complex128).flatten(0, 1)
        real, imaginary = weight.real, weight.imag
        # a complex matrix has the norm of this real one
        whole = torch.cat([torch.cat([real, -imaginary], -1), torch.cat([imaginary, real], -1)], -2)
        bounds = [linear_norm(part) for part in torch.split(whole, _AT_ONCE)]
        return replace(max(bounds, key=lambda b: b.value), method="singular values per frequency")

    def export(self) -> nn.Module:
        """A plain circular ``nn.Conv2d`` whose kernel is as large as the image, after ``nn.PixelUnshuffle``."""
        grid = (self.size[0] // self.stride, self.size[1] // self.stride)
        weight = self.weight.detach()
        out, into = weight.shape[2:]
        kernel = torch.fft.irfft2(weight.permute(2, 3, 0, 1).conj(), s=grid)
        plain = nn.Conv2d(into, out, grid, padding="same", bias=self.bias is not None, padding_mode="circular")
        plain.to(kernel)
        with torch.no_grad():
            plain.weight.copy_(kernel.roll(((grid[0] - 1) // 2, (grid[1] - 1) // 2), (2, 3)))
            if plain.bias is not None and self.bias is not None:
                plain.bias.copy_(self.bias)
        whole = nn.Sequential(nn.PixelUnshuffle(self.stride), plain) if self.stride > 1 else plain
        return whole.train(self.training)

    def _start(self, free: Tensor) -> Tensor:
        """The free kernel to start from, of zeros here; filled in place."""
        return free

    def _check(self, shape: Sequence[int]) -> None:
        expected = (self.in_channels, *self.size)
        if tuple(shape) != expected:
            raise HauberkError(
                f"expected images of shape {expected}, got {tuple(shape)}",
                "build the layer for the size of its feature map",
            )
