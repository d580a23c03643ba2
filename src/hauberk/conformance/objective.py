"""The contract of training objectives."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import nn

from hauberk.batch import Batch
from hauberk.conformance.rules import require, untouched
from hauberk.objectives.base import Context, Objective


def check_objective(
    objective: Objective, model: nn.Module | None = None, input_shape: Sequence[int] = (3, 5, 4), num_classes: int = 3
) -> None:
    """A finite scalar with gradients, detached terms, its own randomness, and a model left in the mode it had.

    Args:
        objective: the training method.
        model: in train mode, if it needs a special one; otherwise a small network with batch norm.
        input_shape: (C, H, W).
        num_classes: K.

    Raises:
        HauberkError: naming the broken rule.
    """
    channels, size = input_shape[0], math.prod(input_shape[1:])
    network = model or nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Flatten(), nn.Linear(4 * size, num_classes),
    )  # fmt: skip
    images = torch.rand(6, *input_shape, generator=torch.Generator().manual_seed(1))
    batch = Batch(images.clone(), torch.arange(6) % num_classes, torch.arange(6))

    def once(seed: int) -> float:
        trained = copy.deepcopy(network).train()
        modes = [m.training for m in trained.modules()]  # frozen parts of a model stay in eval mode
        wanted = [p.requires_grad for p in trained.parameters()]
        with untouched(nn.Module(), objective):
            context = Context(torch.Generator().manual_seed(seed), augment=lambda: batch.images.flip(3))
            loss = objective(trained, batch, context)
        require(torch.equal(batch.images, images), objective, "the batch is not changed in place")
        whole = loss.total.dim() == 0 and bool(loss.total.isfinite()) and loss.total.requires_grad
        require(whole, objective, "the total is a finite scalar with a gradient")
        require(not any(t.requires_grad for t in loss.terms.values()), objective, "the terms are detached")
        require([m.training for m in trained.modules()] == modes, objective, "the model is left in train mode")
        left = [p.requires_grad for p in trained.parameters()]
        require(left == wanted, objective, "parameters are left trainable")
        require(all(p.grad is None for p in trained.parameters()), objective, "it does not call backward itself")
        gradients = torch.autograd.grad(
            loss.total, [p for p in trained.parameters() if p.requires_grad], allow_unused=True
        )
        reached = [g for g in gradients if g is not None]
        require(bool(reached) and all(bool(g.isfinite().all()) for g in reached), objective, "gradients are finite")
        return float(loss.total.detach())

    require(once(1) == once(1), objective, "the same generator gives the same loss")
