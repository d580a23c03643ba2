"""Mixed precision that cannot leak: the network in bfloat16, its logits, the loss and every weight in float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Bfloat16(nn.Module):
    """A view of a classifier whose forward pass runs under bfloat16 autocast and answers in float32.

    It is used in training only: bfloat16 input gradients underflow, which would make an evaluation look robust.

    Args:
        model: the classifier; shared, not copied.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to float32 logits (B, K)."""
        with torch.autocast(images.device.type, torch.bfloat16):
            logits: Tensor = self.model(images)
        return logits.float()
