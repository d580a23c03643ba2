"""PGD that stops soon after the first error, for friendly adversarial training (Zhang et al. 2020)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from hauberk.attacks.base import Attack
from hauberk.attacks.query import Query
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class FriendlyPGD(Attack):
    r"""PGD-K-:math:`\tau` (Algorithm 1): a row steps on from :math:`\tau` misclassified points, and stays at the next.

    .. math:: x_{k+1} = \begin{cases}
        x_k & \text{if } x_k \text{ is misclassified and so were } \tau \text{ points before it} \\
        \Pi(x_k + a\,u(\nabla\ell(x_k))) & \text{otherwise} \end{cases}

    With :math:`\tau = 0` no row moves after its first error, and one that is wrong at its start stays there; with
    :math:`\tau = K` this is PGD.  A row that stays costs no more passes, so training gets cheaper, and its points are
    easier, than with PGD.  As an attack it is weaker than PGD, because it stops early: use it only in training.

    Args:
        threat: norm ball in the pixel box.
        loss: ``ce``, ``margin``, ``dlr`` or ``kl``.
        steps: K, at most.
        step_size: a in pixel units; None is 2.5 eps / steps, as in PGD.
        tau: misclassified points that are stepped on from.
        random_start: start at a random point of the ball instead of the image.
    """

    steps: Annotated[int, Field(ge=1)] = 10
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    tau: Annotated[int, Field(ge=0)] = 0
    random_start: bool = True

    revision: ClassVar[int] = 2

    def search(self, query: Query, randomness: Randomness) -> Tensor:
        """Step until every row has stopped or K steps are done; rows keep their order."""
        size = 2.5 * query.budget / self.steps if self.step_size is None else self.step_size
        points = query.images
        if self.random_start or self.loss == "kl":  # the gradient of the divergence vanishes at the image itself
            points = query.start(randomness)
        spare = torch.full_like(query.labels, self.tau)
        for _ in range(self.steps):
            if not bool(query.active.any()):
                return points
            _, gradient = query.gradient(points)
            query.retire(query.wrong & (spare == 0))
            spare -= query.wrong.to(spare)
            moved = query.ascend(points, gradient, size)
            points = torch.where(query.active[:, None, None, None], moved, points)
        if query.track:
            query.value(points)
        return points
