"""Choosing the model: accuracy, clean and under attack, on held-out validation images, never on the test split."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from hauberk.attacks.base import Attack
from hauberk.batch import Batch
from hauberk.classifier import TILE, evaluating, logits_of
from hauberk.data.dataset import Split
from hauberk.training.distributed import World


@dataclass(frozen=True)
class Score:
    """Validation accuracy.

    Args:
        clean: fraction of the images that are classified right.
        robust: fraction that stay right under the attack; None where no attack is given.
    """

    clean: float
    robust: float | None = None

    @property
    def key(self) -> tuple[float, ...]:
        """What selection compares: robust accuracy first, clean accuracy at a tie."""
        return (self.clean,) if self.robust is None else (self.robust, self.clean)

    def row(self) -> dict[str, float]:
        """The columns of the metrics file."""
        robust = {} if self.robust is None else {"validation_robust_accuracy": self.robust}
        return {"validation_accuracy": self.clean} | robust


def held_out(split: Split, images: int, seed: int) -> Batch:
    """The validation images: a random subset of the split, the same for every epoch.

    Args:
        split: the validation split.
        images: how many; 0 or more than there are is all of them.
        seed: the run's seed.
    """
    if not 0 < images < len(split):
        return split.batch()
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    return split.batch(order[:images].sort().values)


def validate(model: nn.Module, batch: Batch, attack: Attack | None, world: World, seed: int = 0) -> Score:
    """Accuracy in eval mode and float32; processes share the work tile by tile, so the score does not depend on them.

    Args:
        model: the classifier.
        batch: validation images.
        attack: measures robust accuracy; None measures the clean one alone.
        world: the processes.
        seed: of the attack's randomness, the same at every epoch.
    """
    tiles = -(-len(batch) // TILE)
    first, end = (tiles * rank // world.size for rank in (world.rank, world.rank + 1))
    own = batch.select(slice(first * TILE, end * TILE))
    right = torch.zeros(2, dtype=torch.float64)
    if len(own):
        with evaluating(model):
            if attack is None:
                right[0] = (logits_of(model, own).argmax(1) == own.labels).sum()
            else:
                result = attack(model, own, seed)
                right[0] = (result.clean_prediction == own.labels).sum()
                right[1] = (~result.success).sum()
    right = world.sum(right.to(batch.images.device)) / len(batch)
    return Score(float(right[0]), None if attack is None else float(right[1]))
