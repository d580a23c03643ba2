"""Mixed precision: the network runs in bfloat16; its logits, the loss and all weights stay in float32."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

TRIALS = 5


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


def bfloat16_over_float32(device: torch.device | str) -> float:
    """The time of a convolution in bfloat16 relative to float32, forwards and backwards; large without hardware.

    Args:
        device: where it is timed, in milliseconds.
    """
    with torch.random.fork_rng(devices=[]):
        convolution, images = nn.Conv2d(16, 32, 3, padding=1).to(device), torch.rand(16, 16, 16, 16, device=device)

    def best(view: nn.Module) -> float:
        found = float("inf")
        for _ in range(TRIALS):
            started = time.perf_counter()
            view(images).sum().backward()
            float(images[0, 0, 0, 0])  # waits for an accelerator
            found = min(found, time.perf_counter() - started)
        return found

    return best(Bfloat16(convolution)) / best(convolution)
