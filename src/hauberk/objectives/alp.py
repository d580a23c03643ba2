"""Adversarial logit pairing: equal logits for an image and its attacked copy (Kannan et al. 2018)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn
from torch.nn import functional

from hauberk.attacks.base import Attack
from hauberk.batch import Batch
from hauberk.objectives.base import Context, Loss, Objective, Smoothing, accuracy
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class ALP(Objective):
    r"""Adversarial training plus the squared distance between the logits of an image and of its attacked copy.

    .. math:: (1 - c)\,\mathrm{CE}(f(x'), y) + c\,\mathrm{CE}(f(x), y) + \frac{\lambda}{K}\,\|f(x) - f(x')\|_2^2

    averaged over images, with K logits :math:`f(x)` and the attacked image :math:`x'`.  The mean over the K logits and
    c = 1/2 are those of the authors' code.  With :math:`\lambda = 0` it is ``pgd_adversarial``.  Otherwise one forward
    pass in train mode holds attacked and clean images, also if c = 0, and the gradient flows through both logits.

    The robustness first reported for this method was not confirmed.  Engstrom, Ilyas & Athalye 2018 broke the published
    ImageNet net with more attack steps (arXiv:1807.10272): pairing makes the loss hard to maximise, so that attacks of
    few steps are weak.  Evaluate with many steps, restarts and ``loss: margin``.

    Args:
        attack: the inner maximisation, for example ``PGD(Linf(8/255), steps=10)``.
        weight: lambda; the authors' example on ImageNet uses 0.5, and an attack towards the least likely class.
        clean_fraction: c; 0 takes the cross-entropy of attacked images only.
        label_smoothing: weight of the uniform distribution in the target of both cross-entropies.

    Source: Kannan, Kurakin & Goodfellow 2018, "Adversarial Logit Pairing" (arXiv:1803.06373).
    """

    attack: Attack
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.5
    clean_fraction: Annotated[float, Field(ge=0, le=1)] = 0.5
    label_smoothing: Smoothing = 0.0

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms of ``pgd_adversarial`` and, with lambda > 0, ``pairing`` and ``accuracy``."""
        rows = len(batch)
        attacked = context.attacked(self.attack, model, batch)
        mixed = self.clean_fraction > 0 or self.weight > 0
        logits = context.answers(model, torch.cat([attacked, batch.images]) if mixed else attacked)
        smoothing = self.label_smoothing
        loss = functional.cross_entropy(logits[:rows], batch.labels, label_smoothing=smoothing)
        terms = {"ce_adversarial": loss.detach(), "adversarial_accuracy": accuracy(logits[:rows], batch.labels)}
        if self.clean_fraction > 0:
            clean = functional.cross_entropy(logits[rows:], batch.labels, label_smoothing=smoothing)
            terms["ce_clean"] = clean.detach()
            loss = (1.0 - self.clean_fraction) * loss + self.clean_fraction * clean
        if self.weight > 0:
            pairing = functional.mse_loss(logits[:rows], logits[rows:])
            terms |= {"pairing": pairing.detach(), "accuracy": accuracy(logits[rows:], batch.labels)}
            loss = loss + self.weight * pairing
        return Loss(loss, terms)
