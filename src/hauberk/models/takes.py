"""The images that a model takes, found from its layers and by calling it."""

from __future__ import annotations

import math

import torch
from torch import nn

from hauberk.devices import device_of
from hauberk.models.program_file import ProgramFile
from hauberk.randomness import fenced


def tried(model: nn.Module, channels: int, size: int) -> bool:
    """Whether the model can be called on two images of these numbers of channels and pixels a side."""
    images = torch.full((2, channels, size, size), 0.5, device=device_of(model))
    try:
        with fenced(), torch.no_grad():
            model(images)
    except (Exception, SystemExit):  # whatever the user's code raises
        return False
    return True


def sizes(model: nn.Module) -> tuple[int, ...]:
    """Sizes that the model declares: a file by the shape of its input, a dense first layer by its width."""
    if isinstance(model, ProgramFile):
        side = (*model.shape, None, None, None)[2]
        return () if side is None else (side,)
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)), None)
    if not isinstance(first, nn.Linear):
        return ()
    width = first.in_features
    sides = [(channels, math.isqrt(width // channels)) for channels in (1, 3)]
    return tuple(side for channels, side in sides if side > 0 and channels * side * side == width)
