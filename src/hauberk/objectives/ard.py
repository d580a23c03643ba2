"""Adversarially robust distillation: a student under attack learns from a teacher (Goldblum et al. 2020)."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from hauberk.attacks.base import Attack
from hauberk.batch import Batch
from hauberk.errors import HauberkError
from hauberk.models.of_run import run_hash, run_model
from hauberk.objectives.base import Context, Loss, Objective, accuracy
from hauberk.objectives.trades import divergence
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class ARD(Objective):
    r"""The student's softened output at the attacked image is trained towards the teacher's at the clean image.

    .. math:: a\,t^2\,\mathrm{KL}\big(\sigma(T(x)/t),\ \sigma(f(x')/t)\big) + (1 - a)\,\mathrm{CE}(f(x), y)

    with teacher T and student f.  The divergence is summed over the classes; the authors' code takes torch's mean over
    them, so that its weight falls with their number.  With a = 1, the default there, only the attack uses the labels,
    and the student is not run on clean images.  The teacher is frozen and in eval mode.

    Args:
        attack: the inner maximisation on the student, cross-entropy in the paper.
        teacher: run directory of a robust teacher; the student learns only from its outputs at clean images.
        weights: the teacher's ``hauberk.classifier.weights_hash``; None accepts any weights.
        temperature: t.
        weight: a.
    """

    attack: Attack
    teacher: str = field(kw_only=True)
    weights: str | None = None
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    weight: Annotated[float, Field(ge=0, le=1)] = 1.0

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``divergence``, ``adversarial_accuracy`` and, with a below 1, ``ce``."""
        wanted = self._taught(batch)
        points = self.attack.perturb(model, batch.images, batch.labels, context.randomness(len(batch)))
        logits: Tensor = model(points)
        if logits.shape != wanted.shape:
            raise HauberkError(
                f"the teacher {self.teacher} has {wanted.shape[1]} classes, but the student has {logits.shape[1]}",
                "use a teacher that was trained for the same task",
            )
        apart = divergence("kl", wanted / self.temperature, logits / self.temperature).mean()
        loss = self.weight * self.temperature**2 * apart
        terms = {"divergence": apart.detach(), "adversarial_accuracy": accuracy(logits, batch.labels)}
        if self.weight < 1.0:
            natural = functional.cross_entropy(model(batch.images), batch.labels)
            terms["ce"] = natural.detach()
            loss = loss + (1.0 - self.weight) * natural
        return Loss(loss, terms)

    def outside(self) -> str:
        """The hash of the teacher's weights and spec, so that a training with another teacher is told apart."""
        return run_hash(self.teacher)

    @torch.no_grad()
    def _taught(self, batch: Batch) -> Tensor:
        logits: Tensor = run_model(self.teacher, self.weights).to(batch.images)(batch.images)
        return logits
