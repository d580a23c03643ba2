"""Customised adversarial training: a budget for each sample, and a label that is softer the larger it is (CAT)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from hauberk.attacks.base import Attack
from hauberk.batch import Batch
from hauberk.classifier import margins
from hauberk.objectives.base import Context, Loss, Objective, accuracy, is_right
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG

MEMORY = "customised_adversarial"  # the place in a context's state: sample id to budget
Length = Annotated[float, Field(ge=0, allow_inf_nan=False)]
USUAL = 8 / 255  # the largest budget in the paper, to which its numbers belong


@dataclass(frozen=True, config=CONFIG)
class CustomisedAdversarial(Objective):
    r"""Cross-entropy with soft labels on images that are attacked within budgets of their own.

    Cheng et al. 2020, Algorithm 1.  Each sample starts at :math:`\epsilon_i = 0`.  At each visit it is attacked within
    :math:`r_i = \min(\epsilon_i + \eta, \epsilon)`, and keeps a budget that it withstands:

    .. math:: \epsilon_i \leftarrow \begin{cases} r_i & f(x_i') = y_i \\ \epsilon_i & \text{otherwise} \end{cases}
        \qquad
        \tilde y_i = (1 - c\,\epsilon_i)\,e_{y_i} + c\,\epsilon_i\,d_i, \quad d_i \sim \mathrm{Dirichlet}(\beta)

    so that :math:`\epsilon_i` approaches the smallest budget at which the sample falls, which is the definition in the
    paper.  The authors' released code has it the other way round: it keeps the increment where the attack succeeds.  By
    the definition a budget never falls.  The decision of a net in training fluctuates, so after many visits nearly
    every budget has reached epsilon, which is plain adversarial training; with ``falls`` the budget of a misclassified
    sample is reduced by :math:`\eta`, and budgets stay near the boundary.  With m > 0 the loss has the margin of
    Carlini and Wagner, weighed by the budget,

    .. math:: m\,\epsilon_i \max\bigl(0, \kappa - (z_y - \max_{j \ne y} z_j)\bigr)

    Soft labels and a wide margin change the scale of the logits, which can hide gradients from an attack on
    cross-entropy: evaluate with ``loss: margin`` or AutoAttack.

    Args:
        attack: the inner maximisation; the budget of its threat is epsilon, the largest.  A ``step_size`` of None
            follows each sample's budget.
        eta: how far a budget grows at a visit, pixel units; None is the paper's 0.005 at 8/255, in proportion.
        smoothing: c, the label's softness in 1 / pixel units, at most 1 / epsilon; None is the paper's 10 at 8/255, in
            proportion.
        concentration: beta, the same for every class.
        falls: subtract eta from the budget of a misclassified sample, which is not in the paper.
        margin: m; 0 leaves the term out.
        kappa: how far the label's logit should be ahead.
    """

    attack: Attack
    eta: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    smoothing: Length | None = None
    concentration: Annotated[int, Field(ge=1, le=1000)] = 1
    falls: bool = False
    margin: Length = 0.0
    kappa: Length = 10.0

    def __post_init__(self) -> None:
        if self.smoothing is not None and self.smoothing * self.attack.threat.eps > 1.0:
            most = 1.0 / self.attack.threat.eps
            raise ValueError(f"smoothing {self.smoothing:g} takes away more than the whole label: use at most {most:g}")

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``ce_adversarial``, ``adversarial_accuracy``, ``budget``, ``margin_loss``."""
        largest, randomness = self.attack.threat.eps, context.randomness(len(batch))
        eta = 0.005 / USUAL * largest if self.eta is None else self.eta
        softness = 10.0 * USUAL / largest if self.smoothing is None and largest > 0 else self.smoothing or 0.0
        memory: dict[int, float] = context.state.setdefault(MEMORY, {})
        before = batch.images.new_tensor([memory.get(i, 0.0) for i in batch.ids.tolist()])
        tried = (before + eta).clamp_max(largest)
        attacked = self.attack.perturb(model, batch.images, batch.labels, randomness, tried)
        fooled = (before - eta).clamp_min(0.0) if self.falls else before
        budgets = torch.where(is_right(model, attacked, batch.labels), tried, fooled)
        memory.update(zip(context.whole(batch.ids).tolist(), context.whole(budgets).tolist(), strict=True))

        logits: Tensor = model(attacked)
        direction = dirichlet(randomness, logits.shape[1], self.concentration).to(logits)
        loss = functional.cross_entropy(logits, soft_labels(batch.labels, softness * budgets, direction))
        terms = {
            "ce_adversarial": loss.detach(),
            "adversarial_accuracy": accuracy(logits, batch.labels),
            "budget": budgets.mean(),
        }
        if self.margin > 0:
            hinge = (budgets * (self.kappa - margins(logits, batch.labels)).relu()).mean()
            terms["margin_loss"] = hinge.detach()
            loss = loss + self.margin * hinge
        return Loss(loss, terms)


def soft_labels(labels: Tensor, softness: Tensor, direction: Tensor) -> Tensor:
    """One-hot labels (B,) drawn towards a distribution (B, K) by a share (B,) each; (B, K)."""
    hard = functional.one_hot(labels, direction.shape[1]).to(direction)
    return torch.lerp(hard, direction, softness[:, None].to(direction))


def dirichlet(randomness: Randomness, classes: int, concentration: int) -> Tensor:
    """Symmetric Dirichlet draws, (B, K): normalised sums of as many exponential variables as the concentration."""
    gamma = -torch.log1p(-randomness.uniform(concentration, classes)).sum(1)
    gamma = gamma.clamp_min(torch.finfo(gamma.dtype).tiny)
    return gamma / gamma.sum(1, keepdim=True)
