"""Instance-adaptive adversarial training: every sample has a budget of its own (Balaji et al. 2019)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from hauberk.attacks.pgd import PGD
from hauberk.attacks.query import Query
from hauberk.batch import Batch
from hauberk.objectives.base import Context, Loss, Objective, accuracy, is_right
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG, Threat

MEMORY = "iaat"  # the place in a context's state: sample id to budget
Length = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, config=CONFIG)
class BudgetPGD(PGD):
    r"""PGD with steps of :math:`\max(2\epsilon_i/\mathrm{steps}, s)` for each image's own budget.

    Args:
        threat: the norm.
        least_step: s, pixel units.
    """

    least_step: Length = 0.0

    def length(self, query: Query) -> float | Tensor:
        """The length of a step, a number or (B,), pixel units."""
        size = torch.as_tensor(2.0 * query.budget / self.steps, dtype=query.images.dtype, device=query.images.device)
        return size.clamp_min(self.least_step)


@dataclass(frozen=True, config=CONFIG)
class IAAT(Objective):
    r"""Cross-entropy on attacked images, each attacked within its own budget :math:`\epsilon_i` (Algorithms 1 and 2).

    For the first epochs the budget is the threat's.  Later it moves towards the largest of three that the model
    withstands, :math:`\epsilon_i \leftarrow (1-\beta)\,\epsilon_i + \beta\,\max(0, \epsilon_i')` with

    .. math:: \epsilon_i' = \begin{cases} \epsilon_i + \gamma & \text{right under PGD of budget } \epsilon_i + \gamma \\
        \epsilon_i & \text{else, right under PGD of budget } \epsilon_i \\
        \epsilon_i - \gamma & \text{else} \end{cases}

    An image that is wrong before any attack has :math:`\epsilon_i' = 0`, and is trained on as it is in the warm-up.  A
    budget may outgrow the threat's.  A sample that was not seen in the warm-up starts with the threat's.

    The last point of PGD counts.  PGD runs in eval mode on frozen parameters (the authors' code: in train mode).  A
    step has three times the passes of PGD's.

    The defaults, and the zero budget of wrong images, are those of the authors' released code for CIFAR-10
    (epsilon 8/255, gamma 1.9/255, beta 0.1, 10 warm-up epochs, 10 steps of at least 2/255); that the paper prints the
    same numbers was not checked.

    Args:
        threat: the norm, and the budget of the warm-up.
        steps: of PGD from a random start, each of :math:`\max(2\epsilon_i/\mathrm{steps}, s)`.
        warmup: epochs with the threat's budget.
        gamma: how far a budget tries to move, pixel units; None is 1.9/8 of the threat's.
        beta: weight of the new budget in the running mean.
        least_step: s, pixel units; None is a quarter of the threat's budget.
    """

    threat: Threat
    steps: Annotated[int, Field(ge=1)] = 10
    warmup: Annotated[int, Field(ge=0)] = 10
    gamma: Length | None = None
    beta: Annotated[float, Field(ge=0, le=1)] = 0.1
    least_step: Length | None = None

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``ce_adversarial``, ``adversarial_accuracy`` and ``budget`` (the mean)."""
        randomness = context.randomness(len(batch))
        memory: dict[int, float] = context.state.setdefault(MEMORY, {})
        ids = batch.ids.tolist()
        before = batch.images.new_tensor([memory.get(i, self.threat.eps) for i in ids])
        budgets = self._budgets(model, batch, before, context.epoch < self.warmup, randomness)
        attacked = self._attacked(model, batch, budgets, randomness)
        memory.update(zip(context.whole(batch.ids).tolist(), context.whole(budgets).tolist(), strict=True))
        logits: Tensor = model(attacked)
        loss = functional.cross_entropy(logits, batch.labels)
        terms = {
            "ce_adversarial": loss.detach(),
            "adversarial_accuracy": accuracy(logits, batch.labels),
            "budget": budgets.mean(),
        }
        return Loss(loss, terms)

    def _budgets(self, model: nn.Module, batch: Batch, before: Tensor, warming: bool, randomness: Randomness) -> Tensor:
        """The budget of each row in this step, (B,)."""
        right = is_right(model, batch.images, batch.labels)
        if warming:
            return torch.where(right, self.threat.eps, torch.zeros_like(before))
        gamma = self.threat.eps * 1.9 / 8.0 if self.gamma is None else self.gamma
        more, less = before + gamma, (before - gamma).clamp_min(0.0)
        stands_more = is_right(model, self._attacked(model, batch, more, randomness), batch.labels)
        stands = is_right(model, self._attacked(model, batch, before, randomness), batch.labels)
        wanted = torch.where(stands_more, more, torch.where(stands, before, less))
        wanted = torch.where(right, wanted, torch.zeros_like(wanted))
        return (1.0 - self.beta) * before + self.beta * wanted

    def _attacked(self, model: nn.Module, batch: Batch, budgets: Tensor, randomness: Randomness) -> Tensor:
        """The last point of PGD with a budget (B,) for each row."""
        least = self.threat.eps / 4.0 if self.least_step is None else self.least_step
        attack = BudgetPGD(self.threat, steps=self.steps, least_step=least)
        return attack.perturb(model, batch.images, batch.labels, randomness, budgets)
