"""A classifier whose robust radius is known: the truth that attacks and certificates are held against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from hauberk.batch import Batch
from hauberk.errors import HauberkError
from hauberk.threats import Norm, norms

DUAL: dict[Norm, Norm] = {"l1": "linf", "l2": "l2", "linf": "l1"}


class LinearOracle(nn.Module):
    r"""A linear classifier :math:`z = W(x - c) + b` with a known robust radius.

    .. math:: R_p(x) = \min_{j \ne y} \frac{z_y - z_j}{\|w_y - w_j\|_q}, \qquad \tfrac1p + \tfrac1q = 1

    It holds where the pixel box is out of reach, which the images of ``batch`` and ``at_distance`` see to.

    Args:
        weight: W, shape (K, d), with d = C * H * W.
        bias: b, shape (K,).
        input_shape: (C, H, W).
        centre: c, the same for all pixels; 0.5 keeps the boundaries away from the box.
    """

    def __init__(self, weight: Tensor, bias: Tensor, input_shape: Sequence[int], centre: float = 0.5) -> None:
        super().__init__()
        classes, size = weight.shape
        if size != math.prod(input_shape):
            raise HauberkError(f"expected weights of shape (K, {math.prod(input_shape)}), got {tuple(weight.shape)}",
                               "give one row for each class and one column for each pixel value")  # fmt: skip
        linear = nn.Linear(size, classes)
        with torch.no_grad():
            linear.weight.copy_(weight)
            linear.bias.copy_(bias - centre * weight.sum(1))
        self.layers = nn.Sequential(nn.Flatten(), linear)
        self.input_shape = tuple(input_shape)
        self.centre = centre
        self.eval()

    @classmethod
    def random(cls, input_shape: Sequence[int], num_classes: int = 2, seed: int = 0) -> Self:
        """An oracle with normal weights and small normal biases."""
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(num_classes, math.prod(input_shape), generator=generator)
        return cls(weight, 0.05 * torch.randn(num_classes, generator=generator), input_shape)

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, C, H, W) to logits (B, K)."""
        weight, bias = self.layers.parameters()
        # not a matrix product: its rounding of a row depends on where in the batch the row stands
        return (images.flatten(1)[:, None] * weight).sum(2) + bias

    @property
    def _affine(self) -> tuple[Tensor, Tensor]:
        weight, bias = self.layers.parameters()
        return weight.detach().double(), bias.detach().double()

    def true_radius(self, images: Tensor, norm: Norm) -> Tensor:
        """Distance to the nearest point of another class, or of a tie: shape (B,), float64, 0 at a tie."""
        weight, bias = self._affine
        logits = images.double().flatten(1) @ weight.T + bias
        top = logits.argmax(1)
        gaps = logits.gather(1, top[:, None]) - logits
        apart = norms((weight[top][:, None] - weight).flatten(0, 1), DUAL[norm]).reshape(gaps.shape)
        radius = torch.where(apart > 0, gaps / apart, torch.where(gaps > 0, torch.inf, 0.0))
        return radius.scatter(1, top[:, None], torch.inf).amin(1)

    def batch(self, rows: int, seed: int = 0) -> Batch:
        """Images within 0.1 of the centre, labelled by the oracle itself."""
        generator = torch.Generator().manual_seed(seed)
        noise = 0.2 * torch.rand(rows, *self.input_shape, generator=generator) - 0.1
        images = self.centre + noise
        return Batch(images, self(images).argmax(1), torch.arange(rows) + 7 * seed)

    def at_distance(self, radius: float, norm: Norm, rows: int = 8, seed: int = 0) -> Batch:
        """Images of a binary oracle whose true radius is exactly ``radius``, on both sides in turn."""
        weight, bias = self._affine
        direction = weight[1] - weight[0]
        start = self.batch(rows, seed).images.double().flatten(1)
        labels = torch.arange(rows) % 2
        sides = 2.0 * labels.double() - 1.0
        wanted = sides * radius * norms(direction[None], DUAL[norm])
        now = start @ direction + (bias[1] - bias[0])
        moved = start + ((wanted - now) / direction.square().sum())[:, None] * direction
        return Batch(moved.float().reshape(rows, *self.input_shape), labels, torch.arange(rows))
