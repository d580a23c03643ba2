"""The recipe's ``training:`` block."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from hauberk import registry
from hauberk.attacks.base import Attack
from hauberk.data.augment import Augmentation
from hauberk.threats import CONFIG
from hauberk.training.schedules import Schedule

Count = Annotated[int, Field(ge=0, le=10**9)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]


def _attack(value: Any) -> Any:
    """An attack written as in a recipe, ``pgd`` or ``{name: pgd, steps: 10, ...}``, is built first."""
    return registry.build(value, kind="attack") if isinstance(value, str | dict) else value


@dataclass(frozen=True, config=CONFIG)
class Training:
    """How to train: everything but the model, the objective and the data.

    Args:
        epochs: passes over the training split.
        steps_per_epoch: batches of an epoch, the first of its order, and no more than it has; 0 is the whole split.
        batch_size: images of one batch, over all processes.
        optimizer: ``sgd`` or ``adamw``.
        lr: the largest learning rate.
        momentum: of ``sgd``; the first beta of ``adamw``.
        nesterov: Nesterov's form of momentum, ``sgd`` only.
        weight_decay: for tensors of two and more dimensions only, so neither for biases nor for norm layers.
        schedule: ``one_cycle``, ``cosine``, ``piecewise`` or ``constant``, see ``hauberk.training.schedules``.
        warmup: the fraction of training in which the learning rate rises linearly.
        ema: decay of the average of the weights, for each step; 0 turns it off.  With it, the average is what is
            validated, selected and returned.
        swa: the fraction of training after which the weights at the end of each epoch are averaged; 0 turns it off.
            With it, the mean is validated, selected and returned, with batch norm statistics of its own.
        awp: size of the adversarial perturbation of the weights, relative to those of each layer, that every step is
            taken at (Wu et al. 2020: 0.01 with adversarial training, 0.005 with TRADES); 0 turns it off.
        awp_start: epochs before the weights are first perturbed.
        gradient_clip: the largest Euclidean norm of the whole gradient; 0 turns it off.
        precision: ``bfloat16`` runs the network's forward passes in training under autocast; loss, weights and every
            evaluation stay in float32.
        channels_last: keep images and convolutions in channels-last memory, faster on most machines.
        augmentation: random crop, flip and black squares of training images.
        validate_every: validate after every so many epochs, and after the last; 0 turns validation off.
        validation_images: how many images of the validation split, drawn once from the seed; 0 is all of them.
        validation_attack: what measures robust validation accuracy, which selects the model; None selects by clean one.
        gap_images: training images, without augmentation, whose robust accuracy is measured beside; less that of the
            validation images it is ``robust_gap``, the curve of robust overfitting; 0 measures none.
        collapse: stop, with the best weights so far, when robust validation accuracy is more than this below the best
            while accuracy under FGSM has risen, as one-step training can end (0.1 is usual); 0 does not look.
        patience: stop after so many validations in a row without improvement; 0 never stops early.
        checkpoint_minutes: besides at the end of each epoch, save so often within one; 0 saves at the ends only.
        threads: CPU threads; 0 leaves them as they are.
    """

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 30
    steps_per_epoch: Count = 0
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    momentum: Share = 0.9
    nesterov: bool = True
    weight_decay: Amount = 5e-4
    schedule: Schedule = "one_cycle"
    warmup: Share = 0.2
    ema: Share = 0.0
    swa: Share = 0.0
    awp: Share = 0.0
    awp_start: Count = 0
    gradient_clip: Amount = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = True
    augmentation: Augmentation = Augmentation()
    validate_every: Count = 1
    validation_images: Count = 1000
    validation_attack: Annotated[Attack | None, BeforeValidator(_attack)] = None
    gap_images: Count = 0
    collapse: Share = 0.0
    patience: Count = 0
    checkpoint_minutes: Amount = 10.0
    threads: Annotated[int, Field(ge=0, le=1024)] = 0

    def __post_init__(self) -> None:
        if self.optimizer == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("Nesterov momentum needs a momentum above 0: set nesterov to false or momentum above 0")
        if self.ema and self.swa:
            raise ValueError("only one average can be returned: set ema or swa to 0")
        if (self.gap_images or self.collapse) and self.validation_attack is None:
            raise ValueError("gap_images and collapse need a validation_attack, for example PGD")
        if self.patience and not self.validate_every:
            raise ValueError("patience counts validations: set validate_every above 0")
