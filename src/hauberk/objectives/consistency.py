"""Consistency regularisation: equal outputs for two attacked augmentations of an image (Tack et al. 2022)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from hauberk.attacks.base import Attack
from hauberk.batch import Batch
from hauberk.objectives.base import Context, Loss, Objective, accuracy
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class Consistency(Objective):
    r"""Adversarial training on two views, plus the Jensen-Shannon divergence of their sharpened outputs.

    .. math:: \frac12 \sum_{i=1}^2 \mathrm{CE}(f(x_i'), y)
              + \lambda\,\mathrm{JS}\big(\sigma(f(x_1')/\tau),\ \sigma(f(x_2')/\tau)\big)

    with :math:`x_i'` the attacked i-th augmentation, each with a perturbation of its own.  Both go through the network
    in one forward pass, so that batch norm sees the mixture.  Gradients flow into both outputs.  The authors train with
    crop, flip and, in the second half, AutoAugment and black squares of 16 pixels; here both views come from
    ``training.augmentation``, which has the squares (``cutout: 16, cutout_from: 0.5``) and no AutoAugment.

    A step has twice the passes of adversarial training on the same batch.

    Args:
        attack: the inner maximisation on each view.
        weight: lambda.
        temperature: tau; below 1 it sharpens the outputs, whose confidence is low in adversarial training.
    """

    attack: Attack
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.5

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``ce_adversarial``, ``divergence`` and ``adversarial_accuracy``."""
        views = [batch.images, context.view()]
        attacked = [context.attacked(self.attack, model, replace(batch, images=v)) for v in views]
        logits: Tensor = model(torch.cat(attacked))
        labels = batch.labels.repeat(2)
        loss = functional.cross_entropy(logits, labels)
        apart = jensen_shannon(*(logits / self.temperature).chunk(2)).mean()
        terms = {
            "ce_adversarial": loss.detach(),
            "divergence": apart.detach(),
            "adversarial_accuracy": accuracy(logits, labels),
        }
        return Loss(loss + self.weight * apart, terms)


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    r"""How far two outputs are apart, :math:`\frac12\mathrm{KL}(p, m) + \frac12\mathrm{KL}(q, m)` with their mean m.

    Args:
        first: logits of p, (B, K).
        second: logits of q, (B, K).

    Returns:
        shape (B,), in nats, between 0 and log 2.
    """
    p, q = first.log_softmax(1), second.log_softmax(1)
    mean = torch.logaddexp(p, q) - math.log(2.0)
    return 0.5 * (p.exp() * (p - mean) + q.exp() * (q - mean)).sum(1)
