"""Numbers that change while a model is trained."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from hauberk.threats import CONFIG

Length = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, config=CONFIG)
class Ramp:
    r"""A number that moves linearly from ``start`` to ``end`` and stays there.

    .. math:: v(t) = s + (e - s)\,\min(t / \tau, 1)

    Args:
        start: s, its value before the first step.
        end: e.
        over: :math:`\tau`, the share of the training that it takes; 0 is ``end`` from the first step on.
    """

    start: Length
    end: Length
    over: Annotated[float, Field(ge=0, le=1)] = 0.5

    def at(self, progress: float) -> float:
        """The value when that share of all steps is done, in [0, 1]."""
        return self.end if progress >= self.over else self.start + (self.end - self.start) * progress / self.over


Amount = Length | Ramp


def amount(value: float | Ramp, progress: float) -> float:
    """The value of a number or of a ramp when that share of the training is done."""
    return value.at(progress) if isinstance(value, Ramp) else value
