"""FAB: the nearest misclassified point, by projections onto linearised boundaries (Croce & Hein 2020)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from hauberk.attacks.base import Attack
from hauberk.attacks.hyperplane import steps_to_hyperplane
from hauberk.attacks.losses import target_classes
from hauberk.attacks.query import Query
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG, norms


def _column(values: Tensor) -> Tensor:
    return values[:, None, None, None]


@dataclass(frozen=True, config=CONFIG)
class FAB(Attack):
    r"""Fast adaptive boundary attack: a walk along the boundary that is pulled towards the image.

    At each step the boundary to the class :math:`s` that is nearest to the point :math:`x` in the dual norm,
    :math:`|z_s - z_y| / \|\nabla(z_s - z_y)\|_q`, is linearised.  With :math:`\delta, \delta_0` the shortest steps
    to it within the box from x and from the image :math:`x_0`, the next point is

    .. math::
        \mathrm{clip}\big((1 - \alpha)(x + \eta\,\delta) + \alpha\,(x_0 + \eta\,\delta_0)\big), \qquad
        \alpha = \min\big(\|\delta\|_p / (\|\delta\|_p + \|\delta_0\|_p),\ \alpha_{\max}\big)

    (Algorithm 1), and a misclassified point moves back, :math:`x_0 + \beta\,(x - x_0)`.  The budget is used by
    random starts and early stops only; ``result.nearest`` is the distance that was found.  Which class is nearest is
    judged without the box, as published; with targets each class has a run of its own.

    Args:
        threat: norm ball in the pixel box.
        loss: only recorded; the walk uses differences of logits.
        early_stop: leave an image alone once a misclassified point of the threat is found.
        steps: projections in one run.
        restarts: runs for each target; the first starts at the image, the others at random in a ball of half the
            radius :math:`\min(\epsilon, \text{nearest found})`.
        targets: None looks at the boundaries to all wrong classes at once, K - 1 backward passes a step; n makes one
            run for each of the n most likely wrong classes of the image (FAB-T), one backward pass a step.
        alpha_max: the largest weight of the image.
        eta: how far beyond the linearised boundary a step goes.
        beta: the share of the change that is kept when a misclassified point moves back.
    """

    early_stop: bool = False
    steps: Annotated[int, Field(ge=1)] = 100
    restarts: Annotated[int, Field(ge=1)] = 1
    targets: Annotated[int, Field(ge=1)] | None = None
    alpha_max: Annotated[float, Field(ge=0, le=1)] = 0.1
    eta: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.05
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.9

    def search(self, query: Query, randomness: Randomness) -> Tensor:
        """Walk once for each target and restart; the last point of the last walk is returned."""
        points = query.images
        for rivals in self._rivals(query):
            for restart in range(self.restarts):
                start = self._random_start(query, randomness) if restart else query.images
                points = self._walk(query, rivals, start)
        return points

    def _rivals(self, query: Query) -> Iterator[Tensor]:
        """The classes that each run looks at, (B, k)."""
        others = query.clean_logits.shape[1] - 1
        if self.targets is None:
            numbers = torch.arange(others, device=query.labels.device)
            yield numbers + (numbers >= query.labels[:, None]).long()
            return
        for rank in range(min(self.targets, others)):
            yield target_classes(query.clean_logits, query.labels, rank)[:, None]

    def _random_start(self, query: Query, randomness: Randomness) -> Tensor:
        reach = torch.zeros_like(query.images.flatten(1)[:, 0]) + query.budget
        if query.track:
            reach = torch.minimum(reach, query.best["nearest"])
        return self.threat.random_point(query.images, randomness, 0.5 * reach)

    def _walk(self, query: Query, rivals: Tensor, points: Tensor) -> Tensor:
        """One run of Algorithm 1.

        A misclassified point needs no gradient, only the point behind it does, and a forward pass tells whether it is
        one.  A row that has been misclassified once in this run will be at most steps to come: it is looked at before
        it is differentiated.  Until then one forward and one backward pass make a step.
        """
        values, gradients = query.differences(points, rivals)
        crossed = torch.zeros_like(query.active)
        for _ in range(self.steps - 1):
            points = self._step(query.images, points, values, gradients)
            if bool(crossed.any()):
                query.differences(points, rivals[:, :0], only=crossed)
                points = self._move_back(query.images, points, crossed & query.wrong)
            values, gradients = query.differences(points, rivals)
            first = query.wrong & query.active & ~crossed
            if bool(first.any()):
                points = self._move_back(query.images, points, first)
                values_behind, gradients_behind = query.differences(points, rivals, only=first)
                values = torch.where(first[:, None], values_behind, values)
                gradients = torch.where(_column(first)[:, None], gradients_behind, gradients)
                crossed = crossed | first
        points = self._step(query.images, points, values, gradients)
        query.differences(points, rivals[:, :0])
        return points

    def _move_back(self, images: Tensor, points: Tensor, rows: Tensor) -> Tensor:
        return torch.where(_column(rows), (points - images).mul_(self.beta).add_(images), points)

    def _step(self, images: Tensor, points: Tensor, values: Tensor, gradients: Tensor) -> Tensor:
        """The next point, from the differences of logits (B, k) and their gradients (B, k, C, H, W)."""
        rows, kinds = values.shape
        tiny = torch.finfo(values.dtype).tiny
        value, normal = values[:, 0], gradients[:, 0]
        if kinds > 1:
            steepness = self.threat.dual_norm(gradients.flatten(0, 1)).reshape(rows, kinds).clamp_min(tiny)
            nearest = (values.abs() / steepness).argmin(1)
            row = torch.arange(rows, device=values.device)
            value, normal = values[row, nearest], gradients[row, nearest]
        # the linearised difference at the image
        value_there = value + (images - points).mul_(normal).flatten(1).sum(1)
        norm = self.threat.norm
        step = steps_to_hyperplane(normal, norm)
        here, there = step(points, value), step(images, value_there)
        length = norms(here, norm)
        share = length / (length + norms(there, norm)).clamp_min(tiny)
        weight = _column(share.clamp(max=self.alpha_max))
        here.mul_(self.eta).add_(points).mul_(1.0 - weight)
        return there.mul_(self.eta).add_(images).mul_(weight).add_(here).clamp_(0.0, 1.0)
