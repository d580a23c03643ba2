"""Auto-PGD: projected gradient ascent whose step halves when progress stalls (Croce & Hein 2020, Algorithm 1)."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from hauberk.attacks.base import Attack
from hauberk.attacks.losses import target_classes
from hauberk.attacks.query import Query, put
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG, L1, Linf, norms

RHO = 0.75
MOMENTUM = 0.75


def checkpoints(steps: int) -> list[int]:
    r"""The steps at which progress is judged, the period starting at 0.22 of all steps and shrinking by 0.03.

    :math:`\lceil p_j N\rceil` with ``p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)``
    (Section 3, "Step size selection").  Each period is rounded down to whole steps, as in the published implementation,
    which gives 22, 41, 57, 70, 80, 87, 93, 99 for 100 steps.
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


def _rows(value: float | Tensor, like: Tensor) -> Tensor:
    """A number, or one for each row, as a tensor (B,)."""
    return value if isinstance(value, Tensor) else torch.full_like(like, value)


@dataclass(frozen=True, config=CONFIG)
class APGD(Attack):
    r"""Step-size-free attack: momentum, halving at checkpoints, restart of the walk from the best point.

    .. math::
        z_{k+1} = \Pi(x_k + \eta_k u(\nabla\ell(x_k))), \quad
        x_{k+1} = \Pi(x_k + a (z_{k+1} - x_k) + (1 - a)(x_k - x_{k-1})), \quad a = 0.75

    The step starts at :math:`2\epsilon` and is halved, image by image, at a checkpoint if fewer than
    :math:`\rho = 0.75` of the steps since the last one raised the loss, or if neither the step nor the best loss
    changed since the last checkpoint; the walk then goes on from the best point.  In L1 the step is sparse and its
    sparsity adapts (Croce & Hein 2021, Algorithm 1).

    Args:
        threat: L1, L2 or Linf ball in the pixel box.
        loss: ``ce``, ``margin``, ``dlr``, ``kl`` or a registered loss.
        steps: gradient steps of one run.
        restarts: independent runs from fresh random starts.
        targets: None raises the loss of the label; n aims in turn at the n most likely wrong classes of the clean
            image (fewer where there are fewer), with ``restarts`` runs for each.
        shrinking: in L1, spend 30, 30 and 40 % of the steps at budgets 3 eps, 2 eps and eps, each phase going on from
            the last one's best point (Croce & Hein 2021, Section 3.4).
    """

    steps: Annotated[int, Field(ge=1)] = 100
    restarts: Annotated[int, Field(ge=1)] = 1
    targets: Annotated[int, Field(ge=1)] | None = None
    shrinking: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shrinking and self.threat.norm != "l1":
            raise ValueError("a sequence of shrinking budgets is defined for l1 only")

    def search(self, query: Query, randomness: Randomness) -> Tensor:
        """Run the targets and restarts; the best point of the last run is returned."""
        points = query.images
        for rank in range(self._targets(query)):
            if self.targets is not None:
                query.targets = target_classes(query.clean_logits, query.labels, rank)
            for _ in range(self.restarts):
                points = self._run(query, randomness)
        query.targets = None
        return points

    def _targets(self, query: Query) -> int:
        return 1 if self.targets is None else min(self.targets, query.clean_logits.shape[1] - 1)

    def _run(self, query: Query, randomness: Randomness) -> Tensor:
        if not self.shrinking:
            points = self.start(query.images, randomness, query.budget)
            if self.threat.norm != "l1":
                return self.ascend(query, points)
            return ascend_l1(query, points, query.budget, self.steps, fresh=True)
        first, second = math.ceil(0.3 * self.steps), math.ceil(0.3 * self.steps)
        phases = [(3.0, first), (2.0, second), (1.0, self.steps - first - second)]
        points = self.start(query.images, randomness, 3.0 * query.budget)
        for factor, steps in phases:
            eps = factor * query.budget
            points = ascend_l1(query, self.threat.project(points, query.images, eps), eps, steps)
        return points

    def start(self, images: Tensor, randomness: Randomness, eps: float | Tensor | None = None) -> Tensor:
        """A random point on the surface of the ball (as in the reference), cut to the box; in L1 a projected normal."""
        eps = self.threat.eps if eps is None else eps
        if isinstance(self.threat, Linf):
            direction = 2.0 * randomness.uniform(*images.shape[1:]).to(images) - 1.0
        else:
            direction = randomness.normal(*images.shape[1:]).to(images)
        if isinstance(self.threat, L1):
            return self.threat.project(images + direction, images, eps)
        length = _column(norms(direction, self.threat.norm)).clamp_min(1e-12)
        reach = _column(eps) if isinstance(eps, Tensor) else eps
        return (images + reach * direction / length).clamp(0.0, 1.0)

    def ascend(self, query: Query, start: Tensor) -> Tensor:
        """Algorithm 1 in L2 or Linf from a given start; returns the point of highest loss, (B, C, H, W)."""
        threat, project = self.threat, query.project
        judged = set(checkpoints(self.steps))
        points = previous = start
        loss, gradient = query.gradient(start)
        best, best_loss, best_gradient = start.clone(), loss.clone(), gradient.clone()
        step = _rows(2.0 * query.budget, loss)
        risen = torch.zeros_like(loss)
        last_check, stalled_loss = 0, best_loss.clone()
        halved = torch.ones_like(loss, dtype=torch.bool)  # the first check cannot fail for an unchanged step

        for k in range(1, self.steps + 1):
            momentum = MOMENTUM if k > 1 else 1.0
            moved = project(threat.steepest_step(gradient).mul_(_column(step)).add_(points))
            moved = moved.sub_(points).mul_(momentum).add_(points)
            nxt = project(moved.add_((points - previous).mul_(1 - momentum)))
            previous, points = points, nxt
            new_loss, gradient = query.gradient(points)
            risen += new_loss > loss
            loss = new_loss
            _keep_better(loss > best_loss, (best, points), (best_gradient, gradient), (best_loss, loss))

            if k in judged:
                few_rises = risen <= RHO * (k - last_check)
                stalled = ~halved & (stalled_loss >= best_loss)
                halved = few_rises | stalled
                step = torch.where(halved, step / 2.0, step)
                points = torch.where(_column(halved), best, points)
                gradient = torch.where(_column(halved), best_gradient, gradient)
                risen, last_check, stalled_loss = torch.zeros_like(loss), k, best_loss.clone()
        return best


def ascend_l1(query: Query, start: Tensor, eps: float | Tensor, steps: int, fresh: bool = False) -> Tensor:
    r"""APGD for L1 from a given start: a step moves the k pixels of largest gradient by equal amounts.

    Every 4 % of the steps k becomes the number of changed pixels of the best point divided by 1.5; where that number
    fell below 95 % of the last one, the step goes back to :math:`\epsilon` and the walk to the best point, elsewhere
    the step is divided by 1.5, down to :math:`\epsilon/10` (Croce & Hein 2021, Algorithm 1).

    Args:
        query: the model, the images and the labels.
        start: a point of the ball, (B, C, H, W).
        eps: budget of this walk, pixel units, a number or (B,).
        steps: gradient steps.
        fresh: the start is random, so its sparsity says nothing and k starts at 20 % of the pixels.

    Returns:
        the point of highest loss, (B, C, H, W).
    """
    images, project = query.images, query.threat.projection(query.images, eps)
    features, period = images[0].numel(), max(int(0.04 * steps), 1)
    points = start
    loss, gradient = query.gradient(start)
    best, best_loss, best_gradient = start.clone(), loss.clone(), gradient.clone()
    changed = _changed(start, images)
    count = torch.full_like(loss, 0.2 * features) if fresh else changed / 1.5
    changed = torch.full_like(loss, features) if fresh else changed
    step = whole = _rows(eps, loss)
    least = _rows(eps / 10.0, loss)

    for k in range(1, steps + 1):
        points = project(_sparse_step(gradient, count).mul_(_column(step)).add_(points))
        loss, gradient = query.gradient(points)
        _keep_better(loss > best_loss, (best, points), (best_gradient, gradient), (best_loss, loss))

        if k % period == 0:
            now = _changed(best, images)
            sparser = now / changed.clamp_min(1.0) < 0.95
            # two pixels divided by 1.5 would round up to two for ever
            count, changed = torch.where(now <= 2, 1.0, now / 1.5), now
            step = torch.where(sparser, whole, step / 1.5).clamp(least, whole)
            points = torch.where(_column(sparser), best, points)
            gradient = torch.where(_column(sparser), best_gradient, gradient)
    return best


def _keep_better(better: Tensor, *pairs: tuple[Tensor, Tensor]) -> None:
    """Of each pair of (the best so far, the newest), put the rows of the newest that are better into the best."""
    rows = better.nonzero().flatten()
    for best, newest in pairs:
        put(best, rows, newest)


def _changed(points: Tensor, images: Tensor) -> Tensor:
    """How many values differ from the image's, (B,)."""
    return torch.ne(points, images, out=torch.empty_like(images)).flatten(1).sum(1)


def _sparse_step(gradient: Tensor, count: Tensor) -> Tensor:
    """The unit L1 step that spreads over so many values (rounded up), those of largest gradient; (B, C, H, W)."""
    size = gradient.flatten(1).abs()
    features = size.shape[1]
    rank = (features - count.ceil()).clamp(0, features - 1).long()
    least = ascending(size).gather(1, rank[:, None])
    chosen = torch.ge(size, least, out=torch.empty_like(size))
    sign = gradient.sign().flatten(1).mul_(chosen)
    return (sign / sign.abs().sum(1, keepdim=True).clamp_min(1e-10)).reshape(gradient.shape)


def ascending(values: Tensor) -> Tensor:
    """Each row sorted, (B, N); on a CPU by numpy, whose sort is vectorised and about eight times as fast."""
    if values.device.type != "cpu":
        return values.sort(1).values
    return torch.from_numpy(np.sort(values.numpy(), axis=1))  # on the CPU: numpy
