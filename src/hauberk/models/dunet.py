"""DUNET: a U-Net that predicts what an attack has added to an image (Liao et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from hauberk.capabilities import Traits
from hauberk.errors import HauberkError
from hauberk.models.building import with_spec
from hauberk.specs import Depth, Width


class DUNet(nn.Module):
    r"""Images plus the correction that a U-Net predicts, :math:`D(x) = x + R(x)`.

    Each level of R is some blocks of a 3x3 convolution, batch norm and ReLU.  The first convolution of every level but
    the first halves height and width; on the way back features are resized bilinearly, joined with those of the level
    above, and go through as many blocks.  A last 1x1 convolution without bias begins at zero, so that training starts
    from the identity.  The result is not clipped to [0, 1].

    Args:
        channels: of the images.
        widths: channels of each level, from the image's size down.
        blocks: convolutions in a level.

    Source: Liao et al. 2018, Section 4.1 (widths 64, 128, 256, 256, 256).
    """

    traits = Traits()

    def __init__(self, channels: int, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            _level(wide, width, blocks, 1 if level == 0 else 2)
            for level, (wide, width) in enumerate(pairwise([channels, *widths]))
        )
        self.up = nn.ModuleList(_level(wide + width, width, blocks, 1) for width, wide in pairwise(widths))
        self.last = nn.Conv2d(widths[0], channels, 1, bias=False)
        nn.init.zeros_(self.last.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to denoised ones of the same shape."""
        seen = [images]
        for level in self.down:
            seen.append(level(seen[-1]))
        features = seen.pop()
        for level in reversed(self.up):
            above = seen.pop()
            larger = functional.interpolate(features, size=above.shape[2:], mode="bilinear", align_corners=False)
            features = level(torch.cat([above, larger], 1))
        change: Tensor = self.last(features)
        return images + change


def _level(wide: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for block in range(blocks):
        step = stride if block == 0 else 1
        conv = nn.Conv2d(width if block else wide, width, 3, stride=step, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def dunet(channels: Width = 3, widths: Sequence[Width] = (32, 64, 128, 128), blocks: Depth = 2) -> nn.Module:
    """Build an untrained DUNET, which is the denoiser of ``guided_denoiser`` and not a classifier by itself.

    Args:
        channels: of the images.
        widths: channels of each level, from the image's size down; each further level halves height and width.
        blocks: 3x3 convolutions in a level, at least 1.

    Returns:
        a network from (B, C, H, W) to the same shape; ``spec`` holds this call.

    Raises:
        HauberkError: if there are no channels, levels or blocks.
    """
    if not widths or min(channels, blocks, *widths) < 1:
        raise HauberkError(
            f"expected at least one channel, level and block, got {channels}, widths {tuple(widths)} and {blocks}",
            "for example widths (32, 64, 128, 128), 2 blocks",
        )
    return with_spec(DUNet(channels, widths, blocks), "dunet", channels=channels, widths=widths, blocks=blocks)
