"""Choosing the model: accuracy, clean and under attack, on held-out validation images, never on the test split."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from hauberk.attacks.base import Attack
from hauberk.batch import Samples
from hauberk.classifier import TILE, evaluating, logits_of
from hauberk.data.split import Split
from hauberk.training.distributed import World

TILES_AT_ONCE = 4  # of images that are floats at one time


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


def held_out(split: Split, images: int, seed: int) -> Split:
    """The validation images: a random subset of the split, the same for every epoch.

    Args:
        split: the validation split.
        images: how many; 0 or more than there are is all of them.
        seed: the run's seed.
    """
    if not 0 < images < len(split):
        return split
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))  # on the CPU, as all data
    return split.select(order[:images].sort().values)


def validate(model: nn.Module, samples: Samples, attack: Attack | None, world: World, seed: int = 0) -> Score:
    """Accuracy in eval mode and float32; processes share the work tile by tile, so the score does not depend on them.

    Args:
        model: the classifier.
        samples: validation images; those of a few tiles at a time are made floats.
        attack: measures robust accuracy; None measures the clean one alone.
        world: the processes.
        seed: of the attack's randomness, the same at every epoch.
    """
    tiles = -(-len(samples) // TILE)
    first, end = (tiles * rank // world.size for rank in (world.rank, world.rank + 1))
    right = torch.zeros(2, dtype=torch.float64)  # on the CPU: two counts
    with evaluating(model):
        for start in range(first, end, TILES_AT_ONCE):
            own = samples.select(slice(start * TILE, min(start + TILES_AT_ONCE, end) * TILE)).batch()
            if attack is None:
                right[0] += (logits_of(model, own).argmax(1) == own.labels).sum().cpu()
            else:
                result = attack(model, own, seed)
                right[0] += (result.clean_prediction == own.labels).sum().cpu()
                right[1] += (~result.success).sum().cpu()
    right = world.sum(right.to(samples.labels.device)) / len(samples)
    return Score(float(right[0]), None if attack is None else float(right[1]))
