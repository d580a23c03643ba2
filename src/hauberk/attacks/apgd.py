"""Auto-PGD: projected gradient ascent whose step halves when progress stalls (Croce & Hein 2020, Algorithm 1)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from hauberk.attacks.base import Attack
from hauberk.attacks.query import Query
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG, L2, Norm, norms

RHO = 0.75
MOMENTUM = 0.75


def checkpoints(steps: int) -> list[int]:
    r"""The steps at which progress is judged, the period starting at 0.22 of all steps and shrinking by 0.03.

    :math:`\lceil p_j N\rceil` with ``p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)``
    (Section 3, "Step size selection").  The published implementation rounds each period down to whole steps, which
    gives 22, 41, 57, 70, 80, 87, 93, 99 for 100 steps; so does this.
    """
    period, least, shrink = (max(int(fraction * steps), 1) for fraction in (0.22, 0.06, 0.03))
    found, at = [], 0
    while at + period <= steps:
        at += period
        found.append(at)
        period = max(period - shrink, least)
    return found


def _column(values: Tensor) -> Tensor:
    return values[:, None, None, None]


@dataclass(frozen=True, config=CONFIG)
class APGD(Attack):
    r"""Step-size-free attack: momentum, halving at checkpoints, restart of the walk from the best point.

    .. math::
        z_{k+1} = \Pi(x_k + \eta_k u(\nabla\ell(x_k))), \quad
        x_{k+1} = \Pi(x_k + a (z_{k+1} - x_k) + (1 - a)(x_k - x_{k-1})), \quad a = 0.75

    The step starts at :math:`2\epsilon` and is halved, image by image, at a checkpoint if fewer than
    :math:`\rho = 0.75` of the steps since the last one raised the loss, or if neither the step nor the best loss
    changed since the last checkpoint; the walk then goes on from the best point.

    Args:
        threat: Linf or L2 ball in the pixel box.
        loss: ``ce`` or ``margin``.
        steps: gradient steps.
        restarts: independent runs from fresh random starts.
    """

    steps: Annotated[int, Field(ge=1)] = 100
    restarts: Annotated[int, Field(ge=1)] = 1

    norms: ClassVar[tuple[Norm, ...]] = ("l2", "linf")

    def search(self, query: Query, randomness: Randomness) -> Tensor:
        """Run the restarts; the best point of the last one is returned."""
        points = query.images
        for _ in range(self.restarts):
            points = self.ascend(query, self.start(query.images, randomness))
        return points

    def start(self, images: Tensor, randomness: Randomness) -> Tensor:
        """A random point on the surface of the ball (as in the reference), cut to the box."""
        if isinstance(self.threat, L2):
            direction = randomness.normal(*images.shape[1:]).to(images)
        else:
            direction = 2.0 * randomness.uniform(*images.shape[1:]).to(images) - 1.0
        length = _column(norms(direction, self.threat.norm)).clamp_min(1e-12)
        return (images + self.threat.eps * direction / length).clamp(0.0, 1.0)

    def ascend(self, query: Query, start: Tensor) -> Tensor:
        """Algorithm 1 from a given start; returns the point of highest loss, (B, C, H, W)."""
        images, threat = query.images, self.threat
        judged = set(checkpoints(self.steps))
        points = previous = best = start
        loss, gradient = query.gradient(start)
        best_loss, best_gradient = loss.clone(), gradient
        step = torch.full_like(loss, 2.0 * threat.eps)
        risen = torch.zeros_like(loss)
        last_check, stalled_loss = 0, best_loss.clone()
        halved = torch.ones_like(loss, dtype=torch.bool)  # the first check cannot fail for an unchanged step

        for k in range(1, self.steps + 1):
            momentum = MOMENTUM if k > 1 else 1.0
            moved = threat.project(points + _column(step) * threat.steepest_step(gradient), images)
            nxt = threat.project(points + momentum * (moved - points) + (1 - momentum) * (points - previous), images)
            previous, points = points, nxt
            new_loss, gradient = query.gradient(points)
            risen += new_loss > loss
            loss = new_loss
            better = loss > best_loss
            best = torch.where(_column(better), points, best)
            best_gradient = torch.where(_column(better), gradient, best_gradient)
            best_loss = torch.where(better, loss, best_loss)

            if k in judged:
                few_rises = risen <= RHO * (k - last_check)
                stalled = ~halved & (stalled_loss >= best_loss)
                halved = few_rises | stalled
                step = torch.where(halved, step / 2.0, step)
                points = torch.where(_column(halved), best, points)
                gradient = torch.where(_column(halved), best_gradient, gradient)
                risen, last_check, stalled_loss = torch.zeros_like(loss), k, best_loss.clone()
        return best
