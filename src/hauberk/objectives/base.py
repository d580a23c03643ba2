"""What training minimises: one method, one file, called as ``objective(model, batch, context)``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hauberk.batch import Batch
from hauberk.randomness import Shared


@dataclass(frozen=True)
class Loss:
    """A scalar to minimise and the terms it is made of.

    Args:
        total: scalar tensor with a gradient.
        terms: named scalars for the log, detached.
    """

    total: Tensor
    terms: dict[str, Tensor]


@dataclass
class Context:
    """What an objective may use beside the model and the batch.

    Args:
        generator: the run's random numbers, saved in the checkpoint.
        epoch: the current epoch, from 0.
        progress: the fraction of all optimiser steps done, in [0, 1].
        state: memory that grows with training, keyed by method and by sample id, saved in the checkpoint.
    """

    generator: torch.Generator
    epoch: int = 0
    progress: float = 0.0
    state: dict[str, Any] = field(default_factory=dict)

    def randomness(self, rows: int) -> Shared:
        """Random numbers for a batch of that many rows."""
        return Shared(self.generator, rows)


class Objective(ABC):
    """A training method.  Subclasses are frozen dataclasses whose fields are its hyper-parameters."""

    @abstractmethod
    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch.

        Args:
            model: the classifier being trained, in train mode.
            batch: augmented images in [0, 1], labels, ids.
            context: randomness, progress and memory.

        Returns:
            the total, a scalar tensor with a gradient, and its terms.
        """
