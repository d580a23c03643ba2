"""Friendly adversarial training: early-stopped PGD that stops later as training goes on (Zhang et al. 2020)."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any

import torch
from pydantic import Field, InstanceOf
from pydantic.dataclasses import dataclass
from torch import nn

from hauberk.attacks.friendly_pgd import FriendlyPGD
from hauberk.batch import Batch
from hauberk.objectives.base import Context, Loss, Objective
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class FriendlyAdversarial(Objective):
    r"""An adversarial objective whose PGD-K-:math:`\tau` has :math:`\tau(t) = \tau_0 + |\{i : t \ge t_i\}|`, at most K.

    Zhang et al. 2020, Algorithm 2, with t the share of training that is done.  The default moments are those of the
    authors' code, which trains 120 epochs with :math:`\tau` = 0 up to epoch 50, 1 up to 90, and 2 after that; their
    friendly TRADES raises :math:`\tau` after 30, 50 and 70 of 85 epochs.  With :math:`\tau_0 = K` this is the
    objective inside with PGD-K.  The released code also adds noise to each step, which is left out here.

    Args:
        objective: what is minimised on the attacked images, ``pgd_adversarial`` or ``trades`` for example; its attack
            is ``friendly_pgd``, whose ``tau`` is :math:`\tau_0`.
        raises: the moments :math:`t_i` in (0, 1), rising.
    """

    objective: InstanceOf[Objective]
    raises: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (5 / 12, 3 / 4)

    def __post_init__(self) -> None:
        if not isinstance(getattr(self.objective, "attack", None), FriendlyPGD):
            raise ValueError("the objective inside must use the attack friendly_pgd, whose tau is raised")
        if any(later <= earlier for earlier, later in pairwise(self.raises)):
            raise ValueError(f"the epochs in raises must increase, got {self.raises}")

    @property
    def replays(self) -> int:
        """Those of the objective inside."""
        return self.objective.replays

    def outside(self) -> str:
        """What the objective inside depends on."""
        return self.objective.outside()

    def tau(self, progress: float) -> int:
        r""":math:`\tau` when that share of training is done."""
        attack: FriendlyPGD = self.objective.attack  # type: ignore[attr-defined]
        return min(attack.steps, attack.tau + sum(progress >= moment for moment in self.raises))

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms of the objective inside, ``tau``, and ``attack_passes``, of each image."""
        changed: Any = self.objective
        tau, asked = self.tau(context.progress), []
        method: Objective = replace(changed, attack=replace(changed.attack, tau=tau))
        watch = model.register_forward_pre_hook(lambda m, given: None if m.training else asked.append(len(given[0])))
        try:
            loss = method(model, batch, context)
        finally:
            watch.remove()
        passes = torch.tensor(sum(asked) / len(batch)).to(batch.images)
        return Loss(loss.total, loss.terms | {"tau": passes.new_tensor(float(tau)), "attack_passes": passes})
