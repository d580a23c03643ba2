"""Choosing the model: accuracy, clean and under attack, on held-out validation images, never on the test split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from hauberk.attacks.base import Attack
from hauberk.attacks.fgsm import FGSM
from hauberk.batch import Samples
from hauberk.classifier import TILE, evaluating, logits_of
from hauberk.data.split import Split
from hauberk.errors import HauberkError
from hauberk.training.config import Training
from hauberk.training.distributed import World

TILES_AT_ONCE = 4  # of images that are floats at one time


@dataclass(frozen=True)
class Score:
    """Validation accuracy.

    Args:
        clean: fraction of the images that are classified right.
        robust: fraction that stay right under the attack; None where no attack is given.
        one_step: fraction that stay right under one step (``FGSM``); None where it is not computed.
        training: fraction of training images that stay right under the attack; None where it is not computed.
        collapsed: whether training has overfitted to one-step attacks, see ``collapsed``.
    """

    clean: float
    robust: float | None = None
    one_step: float | None = None
    training: float | None = None
    collapsed: bool = False

    @property
    def key(self) -> tuple[float, ...]:
        """The key of selection: robust accuracy first, clean accuracy at a tie."""
        return (self.clean,) if self.robust is None else (self.robust, self.clean)

    def row(self) -> dict[str, float]:
        """The columns of the metrics file."""
        columns = {"validation_accuracy": self.clean, "validation_robust_accuracy": self.robust}
        columns |= {"validation_one_step_accuracy": self.one_step, "training_robust_accuracy": self.training}
        if self.training is not None and self.robust is not None:
            columns["robust_gap"] = self.training - self.robust
        if self.collapsed:
            columns["collapsed"] = 1.0
        return {name: value for name, value in columns.items() if value is not None}


class Judge:
    """Scores the models of a training on held-out images and on some training images.

    Args:
        train: the training split, of which ``gap_images`` are judged under the attack.
        val: the validation split.
        config: attack, number of images and guards.
        seed: the run's seed.
        device: where the images are.

    Raises:
        HauberkError: if the validation split is empty.
    """

    def __init__(self, train: Split, val: Split, config: Training, seed: int, device: torch.device) -> None:
        if not len(val):
            raise HauberkError("the validation split is empty", "hold some images out, or set validate_every: 0")
        self.held_out = held_out(val, config.validation_images, seed).to(device)
        self.learnt = held_out(train, config.gap_images, seed).to(device) if config.gap_images else None
        self.attack, self.drop, self.seed = config.validation_attack, config.collapse, seed

    def __call__(self, model: nn.Module, world: World, best: Mapping[str, Any] | None = None) -> Score:
        """The score of a model, compared with the record of the best so far, if there is one."""
        score = validate(model, self.held_out, self.attack, world, self.seed)
        robust = score.robust
        if self.attack is None or robust is None:
            return score
        if self.learnt is not None:
            score = replace(score, training=validate(model, self.learnt, self.attack, world, self.seed).robust)
        if self.drop:
            once = validate(model, self.held_out, FGSM(self.attack.threat), world, self.seed).robust or 0.0
            fallen = best is not None and collapsed(robust, once, best, self.drop)
            score = replace(score, one_step=once, collapsed=fallen)
        return score


def collapsed(robust: float, one_step: float, best: Mapping[str, Any], drop: float) -> bool:
    """Whether robust accuracy has fallen by more than the drop since the best while one-step accuracy has risen.

    One-step training can end so: the model learns to hide from the step that it is trained with, and loses all else
    (Wong et al. 2020, Section 5.4).

    Args:
        robust: accuracy under the validation attack now.
        one_step: accuracy under one step now.
        best: ``score`` (robust accuracy first) and ``one_step`` of the best so far.
        drop: how far robust accuracy may fall.
    """
    return bool(best["score"][0] - robust > drop and one_step > best["one_step"])


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
        attack: measures robust accuracy; None measures only clean accuracy.
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
