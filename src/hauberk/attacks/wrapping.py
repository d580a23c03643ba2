"""An attack around another attack: the same searches, with another goal or another kind of point."""

from __future__ import annotations

from dataclasses import replace
from typing import Self

from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hauberk.attacks.apgd import APGD
from hauberk.attacks.autoattack import AutoAttack
from hauberk.attacks.base import Attack
from hauberk.attacks.eot_sweep import EOTSweep
from hauberk.attacks.gradients import draws
from hauberk.attacks.judging import Asked
from hauberk.attacks.query import Query
from hauberk.errors import HauberkError
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class Wrapping(Attack):
    """An attack that changes what counts as a success of the attack inside.

    Args:
        threat: that of the attack inside.
        attack: the attack inside; None is APGD on the margin.
        loss: not used, nor are ``early_stop`` and ``eot``: those of the attack inside are used.
    """

    attack: Attack | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner.threat != self.threat:
            raise ValueError(f"the attack inside has the threat {self.inner.threat}, not {self.threat}")

    @property
    def inner(self) -> Attack:
        """The attack inside."""
        return APGD(self.threat, loss="margin") if self.attack is None else self.attack

    def judged(self, model: nn.Module, images: Tensor) -> Asked:
        """How a random model is judged: as by the attack inside."""
        inner = self.inner
        if isinstance(inner, Wrapping):
            return inner.judged(model, images)
        usual = draws(model, images[:1])
        return inner.asked(usual if inner.eot is None else inner.eot, usual > 1)

    def stages(self) -> tuple[Self, ...]:
        """The stages of a sequence inside, each wrapped; else the attack itself."""
        inner = self.inner
        if isinstance(inner, AutoAttack | EOTSweep | Wrapping):
            return tuple(replace(self, attack=stage) for stage in inner.stages())
        return (self,)

    @property
    def is_sequence(self) -> bool:
        """Whether a sequence of attacks is inside."""
        return is_sequence(self.inner)

    def search(self, query: Query, randomness: Randomness) -> Tensor:  # noqa: ARG002
        """Not available: training needs the search itself."""
        raise HauberkError(
            f"{type(self).__name__} is for evaluation and cannot be used in training", "train with pgd or apgd"
        )


def is_sequence(attack: Attack) -> bool:
    """Whether an attack runs stages, each on the survivors of the ones before."""
    return isinstance(attack, AutoAttack | EOTSweep) or (isinstance(attack, Wrapping) and attack.is_sequence)


def stages_of(attack: Attack) -> tuple[Attack, ...]:
    """The stages of a sequence, or the attack alone."""
    return attack.stages() if isinstance(attack, AutoAttack | EOTSweep | Wrapping) else (attack,)
