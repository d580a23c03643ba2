"""The fast gradient sign method and its steepest-step form in L1 and L2 (Goodfellow et al. 2015)."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import Tensor

from hauberk.attacks.base import Attack
from hauberk.attacks.query import Query
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class FGSM(Attack):
    r"""One step of the whole budget, :math:`x' = \Pi(x + \epsilon\,u(\nabla\ell(x)))`; for Linf, u is the sign (Eq. 1).

    Args:
        threat: norm ball in the pixel box.
        loss: ``ce`` or ``margin``; the gradient of ``kl`` is zero at the image, so it is refused.
    """

    revision: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss == "kl":
            raise ValueError("the gradient of the kl loss is zero at the clean image; use ce, margin, or PGD")

    def search(self, query: Query, randomness: Randomness) -> Tensor:  # noqa: ARG002
        """One gradient, one step."""
        _, gradient = query.gradient(query.images)
        points = query.ascend(query.images, gradient, query.budget)
        if query.track:
            query.value(points)
        return points
