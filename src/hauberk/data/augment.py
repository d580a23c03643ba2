"""Augmentation of training images, on tensors and from an explicit generator."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from hauberk.errors import HauberkError
from hauberk.threats import CONFIG


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    r"""Shift each image by up to ``padding`` pixels each way; what comes in from outside is black.

    Row b of the result is :math:`y_{c,i,j} = x_{c,\,i+u-p,\,j+v-p}`, zero outside, with u and v drawn uniformly from
    :math:`0..2p`, independently for each image.

    Args:
        images: float tensor, shape (B, C, H, W).
        padding: p, in pixels.
        generator: where the numbers come from; it may live on another device than the images.

    Returns:
        a new tensor of the same shape, type and memory format.
    """
    _check_batch(images)
    rows, height, width = len(images), images.shape[2], images.shape[3]
    corner = torch.randint(2 * padding + 1, (2, rows), generator=generator, device=generator.device).to(images.device)
    # a view of every possible crop, (B, C, 2p+1, 2p+1, H, W), of which one an image is copied
    crops = functional.pad(images, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)
    return torch.empty_like(images).copy_(crops[torch.arange(rows, device=images.device), :, corner[0], corner[1]])


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability one half.

    Args:
        images: float tensor, shape (B, C, H, W).
        generator: where the numbers come from; it may live on another device than the images.

    Returns:
        a new tensor of the same shape, type and memory format.
    """
    _check_batch(images)
    coins = torch.rand(len(images), generator=generator, device=generator.device).to(images.device) < 0.5
    return torch.where(coins[:, None, None, None], images.flip(3), images)


def cutout(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Blacken a square of each image, around a pixel drawn uniformly; what lies outside of the image is cut off.

    DeVries & Taylor 2017; they take 16 of the 32 pixels of CIFAR-10, and 0 after normalisation, the mean colour.

    Args:
        images: float tensor, shape (B, C, H, W).
        side: of the square, in pixels.
        generator: where the numbers come from; it may live on another device than the images.

    Returns:
        a new tensor of the same shape, type and memory format.
    """
    _check_batch(images)
    inside = []
    for pixels in images.shape[2:]:
        centre = torch.randint(pixels, (len(images), 1), generator=generator, device=generator.device).to(images.device)
        first = centre - side // 2
        place = torch.arange(pixels, device=images.device)
        inside.append((place >= first) & (place < first + side))
    rows, columns = inside
    return images.masked_fill((rows[:, :, None] & columns[:, None])[:, None], 0.0)


@dataclass(frozen=True, config=CONFIG)
class Augmentation:
    """What is done to a training batch, in this order.

    Args:
        crop: random crop with that much padding, in pixels; 0 for none.
        flip: random mirroring; not for digits or text, whose mirror image means something else.
        cutout: side of a black square at a random place, in pixels; 0 for none.
        cutout_from: the fraction of training after which squares are cut; Tack et al. 2022 augment more from 0.5 on.
    """

    crop: Annotated[int, Field(ge=0)] = 0
    flip: bool = False
    cutout: Annotated[int, Field(ge=0)] = 0
    cutout_from: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def __str__(self) -> str:
        """What a checkpoint compares: older ones know no squares, and fit where none are cut."""
        squares = f", cutout={self.cutout}, cutout_from={self.cutout_from}" if self.cutout else ""
        return f"Augmentation(crop={self.crop}, flip={self.flip}{squares})"

    def __call__(self, images: Tensor, generator: torch.Generator, progress: float = 0.0) -> Tensor:
        """Augmented images, shape (B, C, H, W); the images themselves where nothing is asked for.

        Args:
            images: shape (B, C, H, W).
            generator: where the numbers come from.
            progress: the fraction of training that is done.
        """
        if self.crop:
            images = random_crop(images, self.crop, generator)
        if self.flip:
            images = random_flip(images, generator)
        return cutout(images, self.cutout, generator) if self.cutout and progress >= self.cutout_from else images


def _check_batch(images: Tensor) -> None:
    if images.dim() != 4 or not images.is_floating_point():
        raise HauberkError(
            f"expected float images of shape (B, C, H, W), got {images.dtype} of shape {tuple(images.shape)}",
            "take them from split.batch(index).images",
        )
