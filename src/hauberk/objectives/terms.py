"""A base loss plus any number of regularisers, as in a recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field, InstanceOf
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hauberk.batch import Batch
from hauberk.objectives.base import Context, Loss, Objective
from hauberk.objectives.noisy_copies import Weight
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class Terms(Objective):
    r"""A weighted base loss plus regularisers, :math:`w\,L_{cls} + \sum_i \alpha_i L_{reg,i}`.

    Every objective can be the base, and every one can be a regulariser.  Those that are designed as regularisers
    (``hauberk list objectives`` says so) have their :math:`\alpha` as ``weight``.

    The parts see the same batch.  Those with equal attacks share the attacked images, and those that use the same
    images share the forward pass, so that ``standard`` plus ``attacked_divergence`` costs what ``trades`` does.  The
    regularisers are computed first, so that attacks use the statistics of batch norm from before the step.

    Args:
        base: the loss of the task; its ``replays`` count.
        terms: the regularisers.
        weight: w.
    """

    base: InstanceOf[Objective]
    terms: Annotated[tuple[InstanceOf[Objective], ...], Field(min_length=1)]
    weight: Weight = 1.0

    def __post_init__(self) -> None:
        if any(term.replays > 1 for term in self.terms):
            raise ValueError("a regulariser cannot take several steps on each batch: use such a method as the base")

    @property
    def replays(self) -> int:
        """Optimiser steps on each batch."""
        return self.base.replays

    def outside(self) -> str:
        """What the parts depend on beside their fields."""
        return " ".join(filter(None, (part.outside() for part in (self.base, *self.terms))))

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms of all parts, by their own names, numbered where two parts have the same."""
        sharing = replace(context, shared={} if context.shared is None else context.shared)
        regularisers = [term(model, batch, sharing) for term in self.terms]
        base = self.base(model, batch, sharing)
        total = self.weight * base.total
        terms: dict[str, Tensor] = dict(base.terms)
        for number, regulariser in enumerate(regularisers, 1):
            total = total + regulariser.total
            terms |= {f"{name}_{number}" if name in terms else name: v for name, v in regulariser.terms.items()}
        return Loss(total, terms)
