"""EMMA: every rival is pushed away only as far as the image already is from it (Hu et al. 2023)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from hauberk.batch import Batch
from hauberk.objectives.base import Context, Loss, Objective, accuracy
from hauberk.objectives.logit_speeds import Lipschitz, measure
from hauberk.objectives.ramp import Amount, Ramp, amount
from hauberk.threats import CONFIG

Share = Annotated[float, Field(ge=0, le=1)]
RELEASED = Ramp(start=0.1 * 36 / 255, end=3 * 36 / 255)  # of the released configuration for CIFAR-10


def shifted(logits: Tensor, labels: Tensor, pairwise: Tensor, eps: float, least: float = 0.01) -> Tensor:
    r"""Worst-case logit differences within a radius of each pair's own.

    .. math:: u_i = z_i - z_y + \epsilon_i K_{yi}, \qquad
              \epsilon_i = \mathrm{clip}\big((z_y - z_i) / K_{yi},\ s\,\epsilon,\ \epsilon\big)

    :math:`\epsilon_i` has no gradient.  For a rival that is behind by less than :math:`\epsilon K_{yi}`, u is 0: level
    with the label.

    Args:
        logits: shape (B, K).
        labels: shape (B,).
        pairwise: Lipschitz constants of logit differences, (K, K), logits per pixel unit.
        eps: the largest radius, pixel units.
        least: s, the smallest radius as a share of eps; 1 takes eps for all pairs.

    Returns:
        shape (B, K), 0 at the label.

    Source: Hu et al. 2023 (EMMA); the clip is that of the released code.
    """
    behind = logits - logits.gather(1, labels[:, None])
    speeds = pairwise[labels]
    safe = -behind / torch.where(speeds > 0, speeds, 1.0)
    return behind + safe.detach().clamp(least * eps, eps) * speeds


@dataclass(frozen=True, config=CONFIG)
class EMMA(Objective):
    r"""Cross-entropy of worst-case logit differences, :math:`\log \sum_i \exp(z_i - z_y + \epsilon_i K_{yi})`.

    All rivals are pushed at once, each within a radius :math:`\epsilon_i` that grows with the image's distance from it
    (see ``shifted``).  With ``least=1`` every radius is eps: the margin loss.  The default eps is that of the released
    training for CIFAR-10, from a tenth of 36/255 to three times it over the first half.

    Args:
        eps: the largest radius, pixel units; a number or a ramp.
        least: the smallest radius as a share of eps.
        lipschitz: bound of the layers before the last, a number or ``walk``; see ``training_pairwise``.

    Source: Hu et al. 2023.
    """

    eps: Amount = RELEASED
    least: Share = 0.01
    lipschitz: Lipschitz = 1.0

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``ce`` (of the shifted logits), ``accuracy``, ``robust_accuracy``, ``speed``.

        ``robust_accuracy`` is the share of images that keep their label within eps, by training's bound.
        """
        logits, pairwise, speed = measure(model, batch.images, self.lipschitz, context)
        eps = amount(self.eps, context.progress)
        loss = functional.cross_entropy(shifted(logits, batch.labels, pairwise, eps, self.least), batch.labels)
        terms = {
            "ce": loss.detach(),
            "accuracy": accuracy(logits, batch.labels),
            "robust_accuracy": robust_accuracy(logits, batch.labels, pairwise, eps),
            "speed": speed.detach(),
        }
        return Loss(loss, terms)


@torch.no_grad()
def robust_accuracy(logits: Tensor, labels: Tensor, pairwise: Tensor, eps: float) -> Tensor:
    """Share of images whose label leads every rival by more than eps times their Lipschitz constant; for the log."""
    worst = shifted(logits, labels, pairwise, eps, least=1.0)
    return (worst.scatter(1, labels[:, None], -torch.inf) < 0).all(1).float().mean()
