"""Logit annealing: the larger the margin, the less it pays to enlarge it (Lai et al. 2025, BRONet)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from hauberk.batch import Batch
from hauberk.objectives.base import Context, Loss, Objective, accuracy
from hauberk.objectives.emma import Share, robust_accuracy, shifted
from hauberk.objectives.logit_speeds import Lipschitz, measure
from hauberk.objectives.ramp import Amount, Length, amount
from hauberk.threats import CONFIG


def annealed(logits: Tensor, labels: Tensor, temperature: float, offset: float, power: float) -> Tensor:
    r"""The loss of each row, :math:`-T (1 - p_y)^\beta \log p_y` with :math:`p = \mathrm{softmax}((z - \xi e_y)/T)`.

    Args:
        logits: shape (B, K).
        labels: shape (B,).
        temperature: T, in units of the logits.
        offset: :math:`\xi`, in units of the logits.
        power: :math:`\beta`.

    Returns:
        shape (B,).

    Source: Lai et al. 2025 (logit annealing loss).
    """
    lowered = logits - offset * functional.one_hot(labels, logits.shape[1]).to(logits)
    ce = functional.cross_entropy(lowered / temperature, labels, reduction="none")
    # 1 - p without cancellation; at 0 a power below 1 has no slope
    unsure = (-torch.expm1(-ce)).clamp_min(torch.finfo(ce.dtype).tiny)
    return temperature * unsure**power * ce


@dataclass(frozen=True, config=CONFIG)
class LogitAnnealing(Objective):
    r"""Focal cross-entropy at an offset, :math:`-T (1 - p_y)^\beta \log p_y`, on logits that EMMA may have shifted.

    .. math:: p = \mathrm{softmax}\big((u - \xi e_y) / T\big)

    u are the worst-case differences of ``emma.shifted``, or the logits themselves with ``eps: 0`` (as the authors
    train LipConvNets).  The margin is rewarded up to about :math:`\xi` and hardly beyond, so that a network of limited
    capacity fits the images with small margins; ``certificate_regularisation`` rewards it without bound.

    Args:
        eps: the largest radius of the shift, pixel units; a number or a ramp; 0 shifts nothing.
        least: the smallest radius as a share of eps.
        temperature: T, in units of the logits.
        offset: :math:`\xi`, in units of the logits.
        power: :math:`\beta`; 0 is the offset cross-entropy of ``standard``.
        lipschitz: bound of the layers before the last, a number or ``walk``; see ``training_pairwise``.

    Source: Lai et al. 2025; the defaults are those of the released code.
    """

    eps: Amount = 0.0
    least: Share = 0.01
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.75
    offset: Length = 2.0
    power: Length = 5.0
    lipschitz: Lipschitz = 1.0

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``annealed``, ``accuracy``, ``robust_accuracy`` (at eps) and ``speed``."""
        logits, pairwise, speed = measure(model, batch.images, self.lipschitz, context)
        eps = amount(self.eps, context.progress)
        moved = shifted(logits, batch.labels, pairwise, eps, self.least)
        loss = annealed(moved, batch.labels, self.temperature, self.offset, self.power).mean()
        terms = {
            "annealed": loss.detach(),
            "accuracy": accuracy(logits, batch.labels),
            "robust_accuracy": robust_accuracy(logits, batch.labels, pairwise, eps),
            "speed": speed.detach(),
        }
        return Loss(loss, terms)
