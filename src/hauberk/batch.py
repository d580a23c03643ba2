"""A batch of labelled images whose ids name the samples wherever they travel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor


class Samples(Protocol):
    """Labelled images of which a few at a time become floats: a :class:`Batch`, a split, or a selection of its rows.

    An evaluation selects the rows of one unit of work and calls ``batch()`` on them alone, so its memory does not grow
    with the number of images.
    """

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Channels, height and width."""

    @property
    def labels(self) -> Tensor:
        """Classes, int64, shape (N,)."""

    @property
    def ids(self) -> Tensor:
        """What names the samples, int64, shape (N,)."""

    def __len__(self) -> int: ...

    def select(self, index: Tensor | slice) -> Self:
        """Rows, by slice, integer index or boolean mask of shape (N,)."""

    def batch(self) -> Batch:
        """All rows as floats in [0, 1]."""

    def order(self) -> Tensor:
        """The order in which units of work are cut, as places among the rows."""


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensor: it does so up to the size of the largest block freed before.

    Otherwise the pages of every tensor are given back and cleared anew, which costs a search or a vote on a small net
    as much as its arithmetic.  The block is not touched, so that it takes up no memory.
    """
    torch.empty(7_900_000)  # on the CPU: its memory is meant


@dataclass(frozen=True)
class Batch:
    """Images with labels and sample ids.

    Args:
        images: float tensor in [0, 1], shape (B, C, H, W).
        labels: int64 tensor in 0..K-1, shape (B,).
        ids: int64 tensor, shape (B,); unique within a data split.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Channels, height and width."""
        return tuple(self.images.shape[1:])

    def batch(self) -> Batch:
        """The batch itself: its images are floats already."""
        return self

    def order(self) -> Tensor:
        """The order of ids, so that the order in which rows come never shows in records."""
        return self.ids.argsort()

    def select(self, index: Tensor | slice) -> Batch:
        """Rows of the batch, by slice, integer index or boolean mask of shape (B,)."""
        return Batch(self.images[index], self.labels[index], self.ids[index])

    def tiles(self, size: int) -> Iterator[tuple[Batch, int]]:
        """Yield ``(tile, used)``: tiles of exactly ``size`` rows, the last one padded by repeating its last row.

        Models are called on a fixed tile size because a kernel's result for one image may depend on
        the shape of the batch it is in; with padded tiles the results do not depend on the batch size.
        """
        for start in range(0, len(self), size):
            index = torch.arange(start, start + size, device=self.images.device).clamp_(max=len(self) - 1)
            yield self.select(index), min(size, len(self) - start)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(self.images.to(device), self.labels.to(device), self.ids.to(device))
