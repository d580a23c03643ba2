"""The mixing network: the weight of the robust model for an image, from features of both models (Bai et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from hauberk.errors import HauberkError

CLIP = 0.6


class PreActivationBlock(nn.Module):
    r"""Two 3x3 convolutions, each after batch norm and ReLU, beside a shortcut, :math:`s(x) + g(x)`.

    The shortcut s is the identity, or a strided 1x1 convolution of the first activation where the shape changes.

    Source: He et al. 2016 (Identity Mappings), Section 4.

    Args:
        in_channels: channels that enter.
        out_channels: channels that leave.
        stride: stride of the first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU())
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        )
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, H, W) to (B, C', H / stride, W / stride), rounded up."""
        active = self.activation(features)
        change: Tensor = self.branch(active)
        return change + (features if self.shortcut is None else self.shortcut(active))


class MixingNetwork(nn.Module):
    r"""Features of two depths of two models to one standardised number for each image.

    The first features of both models are concatenated along channels and go through a stage of pre-activation blocks;
    the second ones join its output through a 1x1 convolution; after the other stages come batch norm, ReLU, the mean
    over places and a linear layer to a scalar z.  What comes out is

    .. math:: \frac{z - \mu}{\sqrt{\sigma^2 + \epsilon}}

    with the mean and variance of the batch in training, the running ones in eval mode.  This batch norm has no affine
    part, so the network cannot answer "the robust model" always.  In training z is first clipped to 0.6 standard
    deviations around the batch's mean, so that a few extreme images cannot set the scale.

    Where maps differ in height or width, adaptive average pooling brings them to the smallest of each among the maps
    that meet (the second ones: to the size of the first stage's output, repeating values where they are smaller).
    Flat features (B, F) count as maps of one place.

    Args:
        first_channels: channels of the first features, both models together.
        second_channels: likewise of the second features.
        widths: channels of each stage; every stage halves height and width.
        blocks: pre-activation blocks of each stage.
        momentum: of the output's running statistics.  The authors take 0.01, which needs some hundred steps before the
            running statistics are those of the data.

    Source: Bai et al. 2024, Figure 3 and Section D.1 (a ResNet-18 of widths 64 to 512 and more, two blocks in each
        stage); the clipping and the momentum are only in the authors' code.
    """

    def __init__(
        self, first_channels: int, second_channels: int, widths: Sequence[int], blocks: int, momentum: float
    ) -> None:
        super().__init__()
        if not widths or blocks < 1:
            raise HauberkError(
                f"expected at least one width and one block, got widths {list(widths)} and {blocks} blocks",
                "for example widths (16, 32, 32) with 1 block",
            )
        stages = [_stage(wide, width, blocks) for wide, width in pairwise([first_channels, *widths])]
        self.entry, self.join = stages[0], nn.Conv2d(second_channels, widths[0], 1, bias=False)
        self.rest = nn.Sequential(*stages[1:], nn.BatchNorm2d(widths[-1]), nn.ReLU())
        self.head = nn.Linear(widths[-1], 1, bias=False)  # the norm that follows takes any bias away
        self.norm = nn.BatchNorm1d(1, affine=False, momentum=momentum)

    def forward(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        """The standardised score of each image, (B,).

        Args:
            first: features of the lower depth, one of each model, (B, C, H, W) or (B, F).
            second: features of the upper depth.
        """
        features: Tensor = self.entry(concatenated(first))
        features = features + self.join(_resized(concatenated(second), features.shape[2:]))
        scores: Tensor = self.head(self.rest(features).mean((2, 3)))
        if self.training:
            mean, spread = scores.mean(), CLIP * scores.std(correction=0)
            scores = scores.clamp(mean - spread, mean + spread)
        standardised: Tensor = self.norm(scores)
        return standardised.squeeze(1)


def concatenated(features: Sequence[Tensor]) -> Tensor:
    """Maps side by side along channels, (B, C, H, W), at the smallest height and width among them.

    Raises:
        HauberkError: if one is neither flat nor a map.
    """
    for part in features:
        if part.dim() not in {2, 4}:
            raise HauberkError(
                f"expected features of shape (B, F) or (B, C, H, W), got {tuple(part.shape)}", "choose another layer"
            )
    maps = [part if part.dim() == 4 else part[:, :, None, None] for part in features]
    size = torch.Size([min(part.shape[axis] for part in maps) for axis in (2, 3)])
    return torch.cat([_resized(part, size) for part in maps], 1)


def _resized(features: Tensor, size: torch.Size) -> Tensor:
    return features if features.shape[2:] == size else functional.adaptive_avg_pool2d(features, (size[0], size[1]))


def _stage(in_channels: int, width: int, blocks: int) -> nn.Sequential:
    first = PreActivationBlock(in_channels, width, stride=2)
    return nn.Sequential(first, *(PreActivationBlock(width, width, stride=1) for _ in range(blocks - 1)))
