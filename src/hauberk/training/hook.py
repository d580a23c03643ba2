"""Hooks of training: called after each optimiser step and each epoch, and saved with the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from torch import nn

from hauberk.batch import Batch

Images = Callable[[], Iterator[Batch]]


class Hook:
    """A hook of training; a subclass defines the methods that it needs.

    A run that was killed goes on from a checkpoint, so all memory of the hook must be in its state, and its actions
    must depend only on that state and its arguments.
    """

    name: ClassVar[str]  # the place of its state in the checkpoint

    def after_step(self, model: nn.Module) -> None:
        """Look at the model after an optimiser step."""

    def after_epoch(self, model: nn.Module, progress: float, images: Images) -> None:
        """Look at the model at the end of an epoch, before it is validated.

        Args:
            model: the one that is trained, in train mode.
            progress: the fraction of all epochs that is done, in (0, 1].
            images: gives the batches of the epoch again, without augmentation, the same in every process.
        """

    def candidate(self) -> nn.Module | None:
        """The model that is validated, selected and returned instead of the trained one; None keeps the trained one."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
