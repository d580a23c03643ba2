"""Ablation: of each modality of an image a random sub-sample is kept, and the rest is hidden from the base."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from hauberk.errors import HauberkError
from hauberk.noises.base import RandomStep
from hauberk.randomness import BITS, Randomness
from hauberk.threats import CONFIG, Measure

Axis = Literal["channels", "rows", "columns"]
AXES: tuple[Axis, ...] = ("channels", "rows", "columns")
Count = Annotated[int, Field(ge=1, le=65_536)]


@dataclass(frozen=True, config=CONFIG)
class Ablation(RandomStep):
    r"""Keep :math:`k_i` of the :math:`n_i` elements of modality i, drawn without replacement, and set all others to 0.

    The image is cut along one axis into parts, its modalities: groups of channels (colour and depth), or crops.  An
    element is one position of a part with its values in all channels of the part, so that a part of channels has H W
    elements, and one of w columns H w.

    An element is drawn by the order of random integers of 63 bits.  Two of n are equal with a probability of at most
    :math:`\binom n2 2^{-63}`, and else all sub-samples are equally likely: that is :attr:`slack`.

    Args:
        axis: ``channels``, ``rows`` or ``columns``.
        size: height and width of the image.
        parts: channels, rows or columns of each modality.
        kept: elements that are kept of each.

    Reference: Levine & Feizi 2020 (one modality); Wang et al. 2024.
    """

    axis: Axis
    size: tuple[Count, Count]
    parts: tuple[Count, ...]
    kept: tuple[Count, ...]

    norm: ClassVar[Measure] = "elements"

    def __post_init__(self) -> None:
        if not self.parts or len(self.parts) != len(self.kept):
            raise ValueError(f"{len(self.parts)} parts need as many numbers of kept elements, got {len(self.kept)}")
        if self.axis != "channels" and sum(self.parts) != self.size[self._place - 1]:
            raise ValueError(f"{self.axis} {self.parts} do not add up to the size of an image of {self.size}")
        if any(k > n for k, n in zip(self.kept, self.elements, strict=True)):
            raise ValueError(f"expected to keep at most {self.elements} elements, got {self.kept}")

    @property
    def elements(self) -> tuple[int, ...]:
        """Elements of each modality."""
        height, width = self.size
        if self.axis == "channels":
            return (height * width,) * len(self.parts)
        return tuple(part * (width if self.axis == "rows" else height) for part in self.parts)

    @property
    def slack(self) -> float:
        r""":math:`\sum_i \binom{n_i}{2}\, 2^{-63}`."""
        return math.ldexp(float(sum(math.comb(n, 2) for n in self.elements)), -BITS)

    def noisy(self, image: Tensor, randomness: Randomness) -> Tensor:
        """Copies of one image (C, H, W) with other elements at 0, (B, C, H, W); of images (B, C, H, W), one of each.

        Raises:
            HauberkError: on an image that has other parts.
        """
        channels = sum(self.parts) if self.axis == "channels" else image.shape[-3]
        if tuple(image.shape[-3:]) != (channels, *self.size):
            raise HauberkError(
                f"the modalities are cut from images of {channels}x{self.size[0]}x{self.size[1]}, this one has "
                f"{'x'.join(map(str, image.shape[-3:]))}",
                "set axis, size and parts to those of the images",
            )
        bits = torch.split(randomness.bits(sum(self.elements)), list(self.elements), dim=1)
        masks = [self._mask(*one, image) for one in zip(bits, self.parts, self.kept, strict=True)]
        return torch.cat(masks, dim=self._place + 1) * image

    def _mask(self, bits: Tensor, part: int, kept: int, image: Tensor) -> Tensor:
        """1 at the kept elements of one modality, for each row."""
        chosen = bits.topk(kept, dim=1, largest=False).indices.to(image.device)
        flat = image.new_zeros(bits.shape).scatter_(1, chosen, 1.0)
        shape = [1, *self.size]
        if self.axis == "channels":
            return flat.view(-1, *shape).expand(-1, part, -1, -1)
        shape[self._place] = part
        return flat.view(-1, *shape).expand(-1, image.shape[-3], -1, -1)

    @property
    def _place(self) -> int:
        return AXES.index(self.axis)
