"""How far the output moves under attack, the regulariser of TRADES (Zhang et al. 2019)."""

from __future__ import annotations

from pydantic.dataclasses import dataclass
from torch import nn

from hauberk.attacks.base import Attack
from hauberk.batch import Batch
from hauberk.objectives.base import Context, Loss, Objective, accuracy
from hauberk.objectives.noisy_copies import Weight
from hauberk.objectives.trades import Divergence, divergence
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class AttackedDivergence(Objective):
    r""":math:`\beta\, D(p(x), p(x'))` with x' the attacked image, a regulariser for ``terms``.

    With ``standard`` as the base it is ``trades``.

    Args:
        attack: the inner maximisation, usually with ``loss="kl"``; an attack that the base makes too is shared.
        weight: beta.
        divergence: ``kl``, or the lecture's ``ce``, which adds the entropy of the clean output.
        detach_target: let no gradient flow through the clean output; then kl and ce train alike.

    Source: Zhang et al. 2019, Eq. 5.
    """

    attack: Attack
    weight: Weight = 6.0
    divergence: Divergence = "kl"
    detach_target: bool = False

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The regulariser of one batch; terms ``divergence`` and ``adversarial_accuracy``."""
        points = context.attacked(self.attack, model, batch)
        clean, attacked = context.answers(model, batch.images), context.answers(model, points)
        moved = divergence(self.divergence, clean.detach() if self.detach_target else clean, attacked).mean()
        terms = {"divergence": moved.detach(), "adversarial_accuracy": accuracy(attacked, batch.labels)}
        return Loss(self.weight * moved, terms)
