"""Convolutions with random filters: frozen, or drawn anew, and always divided by an upper bound on their norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from hauberk.capabilities import Random
from hauberk.errors import HauberkError
from hauberk.layers.aol import SHRINK
from hauberk.layers.blocks import to_blocks
from hauberk.layers.bound import Bound, only_l2
from hauberk.layers.gram import gram_bound
from hauberk.layers.norms import conv_layer_norm
from hauberk.layers.spectral import upper_norm
from hauberk.randomness import Draw
from hauberk.threats import Norm

Resample = Literal["draw", "sample"]
OVERSAMPLING = 6  # of the bound on the norm of one drawn kernel, see ``upper_norm``


class FixedConv2d(nn.Conv2d):
    """A convolution whose kernel is a buffer: saved with the model, and not trained.

    Args:
        weight: the kernel, shape (out, in, kh, kw).
        stride: one number.
        padding: one number; zeros.
    """

    def __init__(self, weight: Tensor, stride: int = 1, padding: int = 0) -> None:
        outputs, inputs, *kernel = weight.shape
        super().__init__(inputs, outputs, (kernel[0], kernel[1]), stride, padding, bias=False)
        del self.weight
        self.register_buffer("weight", weight.detach().clone())

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """The norm of the kernel as it is; ``input_shape`` is (C, H, W)."""
        return conv_layer_norm(self, input_shape, norm)


def orthogonal_mix(channels: int) -> FixedConv2d:
    """A fixed random rotation of the channels, which is the same at every position: an isometry.

    Args:
        channels: channels C that enter and leave.

    Source: Dhar et al. 2026, the orthogonal 1x1 mix U.
    """
    free = torch.empty(channels, channels, dtype=torch.float64)  # on the CPU: a weight before training
    rotation = nn.init.orthogonal_(free) * SHRINK
    return FixedConv2d(rotation.float()[:, :, None, None])


def frozen_filters(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> FixedConv2d:
    """Random filters that are drawn once, padded so that a stride of 1 keeps the size; see ``RandomFilters2d``.

    Args:
        in_channels: channels that enter.
        out_channels: channels that leave.
        kernel_size: of a side.
        stride: of the convolution.

    Source: Dhar et al. 2026, the random projection filters of the published code, which are not drawn again.
    """
    shape = (out_channels, in_channels, kernel_size, kernel_size)
    kernel = torch.randn(shape)  # on the CPU: a weight before training
    return FixedConv2d(unit_kernel(kernel, stride), stride, kernel_size // 2)


class RandomFilters2d(Random):
    r"""A convolution whose filters are drawn anew: :math:`W = P / \overline{\|P\|}`, :math:`P_{oikl} \sim N(0, 1)`.

    Every kernel is divided by an upper bound on its own norm, in float64, so that the constant in L2 is at most 1 for
    every draw.  Published code of random projection filters divides by nothing (Dong & Xu 2023), or by an estimate of
    the norm from below (Dhar et al. 2026), which leaves norms of 1.2 after two steps.

    Args:
        in_channels: channels that enter.
        out_channels: channels that leave.
        kernel_size: of a side; the padding is half of it, so that a stride of 1 keeps the size if it is odd.
        stride: of the convolution.
        resample: ``draw`` shares one kernel among all images of a draw, ``sample`` gives one to each.

    Raises:
        HauberkError: on another way of drawing.

    Source: Dong & Xu 2023 (random projection filters); Dhar et al. 2026.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, resample: Resample = "draw"
    ) -> None:
        super().__init__()
        if resample not in get_args(Resample):
            raise HauberkError(f"there is no resampling {resample!r}", f"one of: {', '.join(get_args(Resample))}")
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.resample = stride, resample

    def extra_repr(self) -> str:
        """All settings."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"resample={self.resample!r}"
        )

    def draw(self, key: Draw) -> nn.Module:
        """The layer with the kernels of one draw."""
        return Filtered(self, key)

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """One in L2, for every draw."""
        return _bound(self.in_channels, input_shape, norm)


class Filtered(nn.Module):
    """The kernels of one draw, which are computed again from its key at every call.

    Args:
        layer: whose settings are used.
        key: of the draw.
    """

    def __init__(self, layer: RandomFilters2d, key: Draw) -> None:
        super().__init__()
        self.shape = (layer.out_channels, layer.in_channels, layer.kernel_size, layer.kernel_size)
        self.stride, self.resample, self.key = layer.stride, layer.resample, key

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, H, W) to (B, C', H', W')."""
        padding = self.shape[-1] // 2
        if self.resample == "draw":
            kernel = unit_kernel(self.key.shared(features).normal(*self.shape)[0], self.stride).to(features)
            return nn.functional.conv2d(features, kernel, stride=self.stride, padding=padding)
        rows = len(features)
        kernels = unit_kernels(self.key.rows(features).normal(*self.shape), self.stride).to(features)
        made = nn.functional.conv2d(
            features.reshape(1, -1, *features.shape[2:]), kernels.flatten(0, 1), stride=self.stride, padding=padding,
            groups=rows,
        )  # fmt: skip
        return made.reshape(rows, -1, *made.shape[2:])

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """One in L2."""
        return _bound(self.shape[1], input_shape, norm)


def unit_kernel(kernel: Tensor, stride: int) -> Tensor:
    """A kernel (out, in, kh, kw) divided by ``upper_norm``, float32."""
    exact = kernel.double()
    return (exact * (SHRINK / upper_norm(exact, (stride, stride), 1, OVERSAMPLING))).float()


def unit_kernels(kernels: Tensor, stride: int) -> Tensor:
    r"""Each of many kernels divided by a cheaper upper bound on the norm of its convolution, float32.

    The bound is :math:`\sqrt{k_h k_w}` times the smaller norm of two unfoldings (as ``unfolding_upper_norm``), about
    twice the norm for 3x3.

    Args:
        kernels: shape (N, out, in, kh, kw).
        stride: of the convolution.
    """
    exact = kernels.double()
    on_blocks = torch.stack([to_blocks(kernel, (stride, stride)) for kernel in exact])
    outward = gram_bound(on_blocks.flatten(2))
    inward = gram_bound(on_blocks.transpose(1, 2).flatten(2))
    largest = math.sqrt(on_blocks[0, 0, 0].numel()) * torch.minimum(outward, inward)
    return (exact * (SHRINK / largest)[:, None, None, None, None]).float()


def _bound(channels: int, input_shape: Sequence[int], norm: Norm) -> Bound:
    only_l2(norm)
    if len(input_shape) != 3 or input_shape[0] != channels:
        raise HauberkError(f"expected inputs of {channels} channels, got {tuple(input_shape)}", "build it again")
    return Bound(1.0, "divided by an upper bound on its norm", False)
