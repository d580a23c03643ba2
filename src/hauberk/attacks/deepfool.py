"""DeepFool: steps to the nearest linearised boundary until the class changes (Moosavi-Dezfooli et al. 2016)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from hauberk.attacks.base import Attack
from hauberk.attacks.hyperplane import step_to_hyperplane
from hauberk.attacks.losses import target_classes
from hauberk.attacks.query import Query
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG, Norm


@dataclass(frozen=True, config=CONFIG)
class DeepFool(Attack):
    r"""Adds up the shortest steps to the nearest linearised boundary and overshoots their sum a little.

    .. math::
        l = \arg\min_j \frac{|z_j - z_y|}{\|\nabla(z_j - z_y)\|_q}, \qquad
        r \leftarrow r + \delta_l(x), \qquad x \leftarrow \mathrm{clip}(x_0 + (1 + \eta)\,r)

    (Algorithm 2), with :math:`\delta_l` the shortest step to the linearised boundary, until x is misclassified.  The
    paper's steps know no box; here they stay within it, which is the same where the box is out of reach.  The paper
    applies the overshoot :math:`\eta` at the end, its released code before each look, and so does this: without it
    the points of a linear model stay on the boundary, where rounding decides.

    Args:
        threat: L2 or Linf ball in the pixel box; its budget ends no walk, the distance found is ``result.nearest``.
        loss: only recorded; the walk uses differences of logits.
        early_stop: no difference here: an image is left alone at its first misclassified point in any case.
        steps: the most steps, one forward and ``classes - 1`` backward passes each.
        overshoot: eta.
        classes: the most likely classes of the image that are looked at, its label among them.
    """

    early_stop: bool = False
    steps: Annotated[int, Field(ge=1)] = 50
    overshoot: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02
    classes: Annotated[int, Field(ge=2)] = 10

    norms: ClassVar[tuple[Norm, ...]] = ("l2", "linf")

    def search(self, query: Query, randomness: Randomness) -> Tensor:  # noqa: ARG002
        """Walk until every row has a misclassified point; the last points are returned."""
        count = min(self.classes, query.clean_logits.shape[1]) - 1
        ranked = [target_classes(query.clean_logits, query.labels, rank) for rank in range(count)]
        rivals = torch.stack(ranked, 1)
        points, change = query.images, torch.zeros_like(query.images)
        walking = torch.ones_like(query.active)
        for _ in range(self.steps):
            values, gradients = query.differences(points, rivals, only=walking)
            walking = walking & ~query.wrong
            if not bool(walking.any()):
                return points
            step = self._step(points, values, gradients)
            change = change + torch.where(walking[:, None, None, None], step, torch.zeros_like(step))
            points = (query.images + (1.0 + self.overshoot) * change).clamp(0.0, 1.0)
        query.differences(points, rivals[:, :0], only=walking)
        return points

    def _step(self, points: Tensor, values: Tensor, gradients: Tensor) -> Tensor:
        rows, kinds = values.shape
        steepness = self.threat.dual_norm(gradients.flatten(0, 1)).reshape(rows, kinds)
        nearest = (values.abs() / steepness.clamp_min(torch.finfo(values.dtype).tiny)).argmin(1)
        row = torch.arange(rows, device=values.device)
        return step_to_hyperplane(points, gradients[row, nearest], values[row, nearest], self.threat.norm)
