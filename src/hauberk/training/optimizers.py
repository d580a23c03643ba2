"""Optimisers with weight decay where it belongs."""

from __future__ import annotations

import torch
from torch import nn

from hauberk.training.config import Training


def optimizer(model: nn.Module, config: Training) -> torch.optim.Optimizer:
    """SGD or AdamW; weight decay acts on tensors of two and more dimensions, not on biases or norm layers.

    Args:
        model: whose parameters that need a gradient are optimised.
        config: names the optimiser and its settings; the learning rate is set anew at every step by the loop.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999))
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)
