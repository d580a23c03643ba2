"""The contract of training objectives: one method in each file, called as ``objective(model, batch, context)``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from hauberk.attacks.base import Attack
from hauberk.batch import Batch
from hauberk.classifier import evaluating, frozen
from hauberk.errors import HauberkError
from hauberk.randomness import Shared

Smoothing = Annotated[float, Field(ge=0, lt=1)]


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
        generator: the run's random numbers, keyed anew at each step, so that a resumed run draws the same.
        epoch: the current epoch, from 0.
        progress: the fraction of all optimiser steps done, in [0, 1].
        state: memory that grows with training, keyed by method and by sample id, saved in the checkpoint.  It is the
            same in every process: values that depend on rows must go through ``whole`` first.
        offset: rows of the step's batch before those of this process (0 in a single process).
        total: rows of the step's batch over all processes; None in a single process.
        add: adds up a tensor over the processes; None in a single process.
        augment: gives the images of the batch under fresh augmentation.
        shared: results that the parts of one loss share (``terms``); None where nothing is shared.
    """

    generator: torch.Generator
    epoch: int = 0
    progress: float = 0.0
    state: dict[str, Any] = field(default_factory=dict)
    offset: int = 0
    total: int | None = None
    add: Callable[[Tensor], Tensor] | None = None
    augment: Callable[[], Tensor] | None = None
    shared: dict[tuple[Any, ...], tuple[Any, Tensor]] | None = None

    def randomness(self, rows: int) -> Shared:
        """Random numbers for this process's rows of the step's batch; a row's draw does not depend on the processes."""
        return Shared(self.generator, rows, self.offset, self.total)

    def view(self) -> Tensor:
        """Another view of the batch: its images under fresh augmentation, (B, C, H, W)."""
        if self.augment is None:
            raise HauberkError(
                "the objective needs a second view of its batch, and this context has none",
                "give the context a function augment",
            )
        return self._once(("view",), None, self.augment)

    def attacked(self, attack: Attack, model: nn.Module, batch: Batch) -> Tensor:
        """The attacked images of the batch, (B, C, H, W); parts of one loss with equal attacks share them."""
        labels = None if attack.loss == "kl" else batch.labels  # a divergence is attacked without them

        def found() -> Tensor:
            return attack.perturb(model, batch.images, batch.labels, self.randomness(len(batch)))

        return self._once((attack, id(batch.images), id(labels)), (batch.images, labels), found)

    def answers(self, model: nn.Module, images: Tensor) -> Tensor:
        """Logits (B, K) in the model's own mode; parts of one loss that ask about the same tensor share one pass."""
        return self._once((id(model), id(images), model.training), (model, images), lambda: model(images))

    def _once(self, key: tuple[Any, ...], alive: Any, found: Callable[[], Tensor]) -> Tensor:
        """A value that the parts share; what its key names by place is kept alive, so that no place is used twice."""
        if self.shared is None:
            return found()
        if key not in self.shared:
            self.shared[key] = (alive, found())
        return self.shared[key][1]

    def whole(self, values: Tensor) -> Tensor:
        """The values of all rows of the step's batch over the processes, from those of this one's rows (B, ...)."""
        if self.total is None or self.add is None:
            return values
        rows = values.new_zeros(self.total, *values.shape[1:])
        rows[self.offset : self.offset + len(values)] = values
        return self.add(rows)


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Fraction of rows whose largest logit is the label's, a scalar for the log."""
    return (logits.detach().argmax(1) == labels).float().mean()


def is_right(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Whether each row is classified right in eval mode, (B,) bool; the model is left as it was."""
    with frozen(model), evaluating(model), torch.no_grad():
        logits: Tensor = model(images)
    return logits.argmax(1) == labels


class Objective(ABC):
    """A training method.  Subclasses are frozen dataclasses whose fields are its hyper-parameters."""

    @property
    def replays(self) -> int:
        """Optimiser steps on each batch."""
        return 1

    def outside(self) -> str:
        """What the loss depends on beside its fields, a teacher's weights for example; a checkpoint compares it."""
        return ""

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
