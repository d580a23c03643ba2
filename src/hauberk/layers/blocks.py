"""A strided convolution as one of stride 1: blocks of pixels that become channels."""

from __future__ import annotations

from torch import Tensor, nn

Pair = tuple[int, int]


def to_blocks(kernel: Tensor, stride: Pair) -> Tensor:
    """The kernel on blocks of pixels, (out, in, kh, kw) to (out, in * sh * sw, taps down, taps across)."""
    if stride == (1, 1):
        return kernel
    down, across = (-k % s for k, s in zip(kernel.shape[2:], stride, strict=True))
    padded = nn.functional.pad(kernel, (0, across, 0, down))
    split = padded.reshape(*kernel.shape[:2], -1, stride[0], padded.shape[3] // stride[1], stride[1])
    return split.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
