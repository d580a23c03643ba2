"""Adversarial training: cross-entropy on attacked images (Madry et al. 2018)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from hauberk.attacks.base import Attack
from hauberk.batch import Batch
from hauberk.objectives.base import Context, Loss, Objective, Smoothing, accuracy
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class PGDAdversarial(Objective):
    r""":math:`(1 - c)\,\mathrm{CE}(f(x'), y) + c\,\mathrm{CE}(f(x), y)` with x' the attacked image.

    The saddle point of Madry et al. 2018, Eq. 2.1, plus a share c of clean images.
    The attack runs on frozen parameters with the model in eval mode; the loss is taken in train mode, in one forward
    pass.  With c > 0 that pass holds the attacked and the clean images, so batch norm sees the mixture.

    Args:
        attack: the inner maximisation, for example ``PGD(Linf(8/255), steps=10)``.
        clean_fraction: c; 0 trains on attacked images only (Madry), 0.5 on the union with the clean set.
        label_smoothing: weight of the uniform distribution in the target.
    """

    attack: Attack
    clean_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    label_smoothing: Smoothing = 0.0

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``ce_adversarial``, ``adversarial_accuracy`` and, with c > 0, ``ce_clean``."""
        rows = len(batch)
        attacked = context.attacked(self.attack, model, batch)
        mixed = self.clean_fraction > 0
        logits = context.answers(model, torch.cat([attacked, batch.images]) if mixed else attacked)
        loss = self._cross_entropy(logits[:rows], batch.labels)
        terms = {
            "ce_adversarial": loss.detach(),
            "adversarial_accuracy": accuracy(logits[:rows], batch.labels),
        }
        if mixed:
            clean = self._cross_entropy(logits[rows:], batch.labels)
            terms["ce_clean"] = clean.detach()
            loss = (1.0 - self.clean_fraction) * loss + self.clean_fraction * clean
        return Loss(loss, terms)

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
