"""The images of one split, kept as 8-bit or 16-bit integers or in their files, and selections of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hauberk.batch import Batch
from hauberk.data.streamed import ImageFiles, in_memory
from hauberk.errors import HauberkError

SplitName = Literal["train", "val", "test"]


@dataclass(frozen=True, eq=False)
class Split:
    """The images of one split.

    Args:
        name: ``train``, ``val`` or ``test``.
        images: uint8 or uint16 tensor, shape (N, C, H, W), or files of such; 0 is black, 255 or 65,535 is white.
        labels: int64 tensor in 0..K-1, shape (N,).
        ids: int64 tensor, shape (N,), unique within the split: places in the publisher's order.

    Raises:
        HauberkError: on another dtype, another shape, or an id that appears twice.
    """

    name: SplitName
    images: Tensor | ImageFiles
    labels: Tensor
    ids: Tensor

    def __post_init__(self) -> None:
        check_pixels(self.name, self.images)
        for what, values in (("labels", self.labels), ("ids", self.ids)):
            if values.dtype != torch.int64 or values.shape != (len(self.images),):
                raise HauberkError(
                    f"{self.name}: expected int64 {what} of shape ({len(self.images)},), "
                    f"got {values.dtype} of shape {tuple(values.shape)}",
                    f"convert: {what}.long().flatten()",
                )
        check_unique(self.name, self.ids)

    def __len__(self) -> int:
        return len(self.images)

    def select(self, index: Tensor | slice) -> Split:
        """Rows of the split, by slice, integer index or boolean mask of shape (N,); ids travel with their images."""
        return Split(self.name, self.images[index], self.labels[index], self.ids[index])

    def batch(self, index: Tensor | slice | None = None) -> Batch:
        """Rows of the split (all of them without an index) as float32 images in [0, 1]: value / 255, or / 65,535.

        Images in files are read now, and go to the device of the labels.
        """
        chosen = slice(None) if index is None else index
        labels = self.labels[chosen]
        images = in_memory(self.images[chosen]).to(labels.device)
        return Batch(images.to(torch.float32).div_(full_scale(self.images)), labels, self.ids[chosen])

    def to(self, device: torch.device | str) -> Split:
        """The same split, its integer images on another device, unless they are in files."""
        images = self.images if isinstance(self.images, ImageFiles) else self.images.to(device)
        return Split(self.name, images, self.labels.to(device), self.ids.to(device))

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Channels, height and width."""
        return tuple(self.images.shape[1:])

    def order(self) -> Tensor:
        """The order of ids."""
        return self.ids.argsort()


@dataclass(frozen=True, eq=False)
class Selection:
    """Rows of a split in an order of their own, without a copy of their images.

    Args:
        split: the split.
        index: places in it, int64 tensor, shape (N,).
    """

    split: Split
    index: Tensor

    @property
    def labels(self) -> Tensor:
        """Classes, shape (N,)."""
        return self.split.labels[self.index]

    @property
    def ids(self) -> Tensor:
        """Sample ids, shape (N,)."""
        return self.split.ids[self.index]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Channels, height and width."""
        return self.split.image_shape

    def __len__(self) -> int:
        return len(self.index)

    def select(self, index: Tensor | slice) -> Selection:
        """Rows of the selection, by slice, integer index or boolean mask of shape (N,)."""
        return Selection(self.split, self.index[index])

    def batch(self) -> Batch:
        """The rows as float32 images in [0, 1]."""
        return self.split.batch(self.index)

    def order(self) -> Tensor:
        """The order of the selection: a larger one adds units of work, and changes no full one."""
        return torch.arange(len(self.index))


def full_scale(images: Tensor | ImageFiles) -> int:
    """The integer that stands for white: 255 or 65,535."""
    return 65535 if images.dtype == torch.uint16 else 255


def check_pixels(name: str, images: Tensor | ImageFiles) -> None:
    """Raise unless the images are uint8 or uint16 of shape (N, C, H, W)."""
    if images.dim() != 4 or 0 in images.shape[1:]:
        raise HauberkError(
            f"{name}: expected images of shape (N, C, H, W), got {tuple(images.shape)}",
            "grey images have one channel: images[:, None]",
        )
    if images.dtype not in (torch.uint8, torch.uint16):
        raise HauberkError(
            f"{name}: expected uint8 images in 0..255 or uint16 images in 0..65535, got {images.dtype}",
            "floats in [0, 1] are converted by (255 * images).round().to(torch.uint8)",
        )


def check_unique(name: str, ids: Tensor) -> None:
    """Raise if an id appears twice."""
    if len(torch.unique(ids)) != len(ids):
        raise HauberkError(
            f"{name}: expected every id once, but some appear twice", "give each image of a split an id of its own"
        )
