"""Threads, kernels and memory layout of a training run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from hauberk.training.config import Training


@contextmanager
def settings(config: Training, device: torch.device) -> Iterator[None]:
    """Threads and kernels for a reproducible run; they and the global random state are restored after."""
    threads, kernels = torch.get_num_threads(), torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    if config.threads:
        torch.set_num_threads(config.threads)
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.deterministic = kernels


def arrange(model: nn.Module, layout: torch.memory_format) -> None:
    """Keep the convolutions' weights in that memory layout."""
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
