"""The divergence of the outputs at two attacked augmentations of an image, the regulariser of Tack et al. 2022."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from hauberk.attacks.base import Attack
from hauberk.batch import Batch
from hauberk.objectives.base import Context, Loss, Objective
from hauberk.objectives.consistency import jensen_shannon
from hauberk.objectives.noisy_copies import Weight
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class ViewDivergence(Objective):
    r""":math:`\lambda\,\mathrm{JS}(\sigma(f(x_1')/\tau), \sigma(f(x_2')/\tau))`, a regulariser for ``terms``.

    The two views are those of ``consistency``, which has their cross-entropy as its base.  The lecture prints the first
    view on both sides.  The authors add the same divergence to TRADES and MART: take these as the base.

    Args:
        attack: on each view, with a perturbation of its own; None compares the views without an attack.
        weight: lambda.
        temperature: tau; below 1 it sharpens the outputs.
    """

    attack: Attack | None = None
    weight: Weight = 1.0
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.5

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The regulariser of one batch; term ``view_divergence``."""
        views = [batch.images, context.view()]
        if self.attack is not None:
            views = [context.attacked(self.attack, model, replace(batch, images=v)) for v in views]
        first, second = (context.answers(model, torch.cat(views)) / self.temperature).chunk(2)
        apart = jensen_shannon(first, second).mean()
        return Loss(self.weight * apart, {"view_divergence": apart.detach()})
