"""Free adversarial training: one backward pass updates the weights and the perturbation (Shafahi et al. 2019)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from hauberk.batch import Batch
from hauberk.objectives.base import Context, Loss, Objective, accuracy
from hauberk.threats import CONFIG, Threat

MEMORY = "free_adversarial"  # the place in a context's state: the perturbation of each row of a batch


@dataclass(frozen=True, config=CONFIG)
class FreeAdversarial(Objective):
    r"""Cross-entropy at :math:`x + \delta`, whose backward pass also gives the step of :math:`\delta` (Algorithm 1).

    .. math:: \delta \leftarrow \Pi(\delta + a\,u(\nabla_x\,\mathrm{CE}(f(x + \delta), y)))

    with u the steepest unit step, for Linf the sign.  Each batch is trained on m times in a row, each time with an
    optimiser step, and :math:`\delta` goes on from batch to batch, row by row, starting at zero.  An epoch does m times
    the steps of standard training: divide ``epochs`` by m.  The pass is in train mode, unlike that of an attack.  The
    perturbation is cut to the pixel box of its image, too.

    Args:
        threat: norm and budget.
        replays: m.
        step_size: a in pixel units; None is the budget, as in the paper.
    """

    threat: Threat
    replays: Annotated[int, Field(ge=1)] = 8
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``ce_adversarial`` and ``adversarial_accuracy``."""
        kept: Tensor | None = context.state.get(MEMORY)
        own = slice(context.offset, context.offset + len(batch))
        start = batch.images if kept is None else self.threat.project(batch.images + kept[own], batch.images)
        points = start.detach().clone().requires_grad_(True)
        size = self.threat.eps if self.step_size is None else self.step_size

        @torch.no_grad()
        def move(gradient: Tensor) -> None:
            moved = self.threat.project(self.threat.ascend(points.detach(), gradient, size), batch.images)
            context.state[MEMORY] = context.whole(moved - batch.images)

        points.register_hook(move)  # type: ignore[no-untyped-call]
        logits: Tensor = model(points)
        loss = functional.cross_entropy(logits, batch.labels)
        return Loss(loss, {"ce_adversarial": loss.detach(), "adversarial_accuracy": accuracy(logits, batch.labels)})
