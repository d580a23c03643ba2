"""Stochastic weight averaging: the mean of the weights at the ends of late epochs (Izmailov et al. 2018)."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import nn

from hauberk.training.hook import Hook, Images


class SWA(Hook):
    r"""The running mean of the weights at the end of each epoch (Algorithm 1).

    .. math:: \bar\theta_n = \bar\theta_{n-1} + (\theta_n - \bar\theta_{n-1})/n

    The statistics of batch norm that belong to a mean of weights are not the mean of the statistics.  They are computed
    anew on the images of the epoch, clean and without augmentation, one forward pass each.  The norms of frozen parts,
    which are in eval mode while the rest is trained, keep theirs.

    The method needs a learning rate that stays large in the epochs that are averaged, as ``schedule:
    constant`` gives it.

    Args:
        model: the model to shadow.
        start: epochs that end after this fraction of training are averaged, in (0, 1).
    """

    name: ClassVar[str] = "swa"

    def __init__(self, model: nn.Module, start: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.start = start
        self.epochs = 0

    @torch.no_grad()
    def after_epoch(self, model: nn.Module, progress: float, images: Images) -> None:
        """Take in the weights of a late epoch, and compute the statistics of the norms."""
        if progress <= self.start:
            return
        self.epochs += 1
        for average, value in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if average.is_floating_point():
                average.lerp_(value, 1.0 / self.epochs)
            else:
                average.copy_(value)
        pairs = zip(self.model.modules(), model.modules(), strict=True)
        recompute([own for own, live in pairs if live.training], self.model, images)

    def candidate(self) -> nn.Module | None:
        """The mean, as soon as there is one."""
        return self.model if self.epochs else None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs."""
        return {"model": self.model.state_dict(), "epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.model.load_state_dict(state["model"])
        self.epochs = int(state["epochs"])


def recompute(modules: list[nn.Module], model: nn.Module, images: Images) -> None:
    """Give the batch norms among the modules the mean statistics over batches; the rest stays in eval mode.

    Args:
        modules: of the model.
        model: called on each batch, in eval mode, under ``no_grad``.
        images: the batches.
    """
    norms = [m for m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # equal weights for all batches
        norm.train()
    for batch in images():
        model(batch.images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
