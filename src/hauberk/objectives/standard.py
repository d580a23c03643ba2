"""Cross-entropy on clean images, with the offset and temperature that 1-Lipschitz networks need."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn
from torch.nn import functional

from hauberk.batch import Batch
from hauberk.objectives.base import Context, Loss, Objective, Smoothing, accuracy
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class Standard(Objective):
    r"""Softmax cross-entropy :math:`T \cdot \mathrm{CE}((z - u\,e_y) / T)`, averaged over the batch.

    The logits of a 1-Lipschitz network cannot grow, so it is trained to a margin: the true logit is lowered by ``u``
    and the scale is set by ``T`` (Prach & Lampert 2022 take u = sqrt(2), T = 1/4 to aim at an L2 radius of 1; u =
    2 sqrt(2) eps aims at twice the radius eps).  The defaults, u = 0 and T = 1, are plain cross-entropy.

    Args:
        label_smoothing: weight of the uniform distribution in the target.
        temperature: T, in units of the logits.
        offset: u, in units of the logits.
    """

    label_smoothing: Smoothing = 0.0
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    offset: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``ce`` and ``accuracy``."""
        logits = context.answers(model, batch.images)
        lowered = logits
        if self.offset > 0:
            lowered = logits - self.offset * functional.one_hot(batch.labels, logits.shape[1]).to(logits)
        loss = self.temperature * functional.cross_entropy(
            lowered / self.temperature, batch.labels, label_smoothing=self.label_smoothing
        )
        return Loss(loss, {"ce": loss.detach(), "accuracy": accuracy(logits, batch.labels)})
