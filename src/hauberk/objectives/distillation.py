"""Distillation at the attacked image, the logit smoothing of PLS (Chen et al. 2021)."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hauberk.attacks.base import Attack
from hauberk.batch import Batch
from hauberk.errors import HauberkError
from hauberk.models.of_run import run_hash, run_model
from hauberk.objectives.base import Context, Loss, Objective
from hauberk.objectives.noisy_copies import Weight
from hauberk.objectives.trades import divergence
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class Distillation(Objective):
    r""":math:`\lambda\,t^2\,\mathrm{KL}(\sigma(T(x')/t), \sigma(f(x')/t))` with teacher T, a regulariser for ``terms``.

    Teacher and student see the same attacked image, whereas the teacher of ``ard`` sees the clean image.  Two of them,
    a standard and a robust net of the student's own kind, around ``pgd_adversarial`` with the same attack and SWA are
    properly learned smoothening (PLS); the released code weighs 0.3 for the labels, 0.1 and 0.6.  It takes the
    cross-entropy of the softened outputs, which has the same gradient.  The teacher is frozen and in eval mode.

    Args:
        attack: on the student; None compares on clean images.
        teacher: run directory of the teacher.
        weights: the teacher's ``hauberk.classifier.weights_hash``; None accepts any weights.
        temperature: t.
        weight: lambda.

    Source: Chen et al. 2021, Section 3.
    """

    attack: Attack | None = None
    teacher: str = field(kw_only=True)
    weights: str | None = None
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0
    weight: Weight = 1.0

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The regulariser of one batch; term ``distillation``, before its weight."""
        points = batch.images if self.attack is None else context.attacked(self.attack, model, batch)
        logits, wanted = context.answers(model, points), self._taught(points)
        if logits.shape != wanted.shape:
            raise HauberkError(
                f"the teacher {self.teacher} has {wanted.shape[1]} classes, but the student has {logits.shape[1]}",
                "use a teacher that was trained for the same task",
            )
        apart = self.temperature**2 * divergence("kl", wanted / self.temperature, logits / self.temperature).mean()
        return Loss(self.weight * apart, {"distillation": apart.detach()})

    def outside(self) -> str:
        """The hash of the teacher's weights and spec, so that a training with another teacher is told apart."""
        return run_hash(self.teacher)

    @torch.no_grad()
    def _taught(self, points: Tensor) -> Tensor:
        logits: Tensor = run_model(self.teacher, self.weights).to(points)(points)
        return logits
