"""Fast minimum norm: steps in a ball whose radius follows the distance to the boundary (Pintor et al. 2021)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from hauberk.attacks.base import Attack
from hauberk.attacks.ddn import annealed
from hauberk.attacks.query import Query
from hauberk.classifier import classes
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG, norms


@dataclass(frozen=True, config=CONFIG)
class FMN(Attack):
    r"""The nearest misclassified point in L1, L2 or Linf, by a ball whose radius adapts.

    Each step sets the radius and then moves by the normalised gradient of the margin
    :math:`\ell = \max_{j\ne y} z_j - z_y` (Pintor et al. 2021, Algorithm 1):

    .. math::
        \epsilon_{k+1} = \begin{cases}
            \min\{(1 - \gamma_k)\,\epsilon_k,\; \|\delta^*\|_p\} & x_k \text{ is misclassified} \\
            (1 + \gamma_k)\,\epsilon_k & \text{it is not, and some point before was} \\
            \|\delta_k\|_p + (1 + \gamma_k)\,|\ell| / \|\nabla\ell\|_q & \text{none was so far}
        \end{cases}
        \qquad
        x_{k+1} = \mathrm{clip}\Bigl(\Pi_{\epsilon_{k+1}}\bigl(x_k + a_k \nabla\ell / \|\nabla\ell\|_2\bigr)\Bigr)

    :math:`\delta^*` is the smallest change so far, q is dual to p, and the third case is the distance to the boundary
    of the linearised model.  Its factor :math:`1 + \gamma_k` is not the paper's: without it the walk of some images of
    a linear model ends on the boundary and not behind it.  On a trained net that is not nearly linear both rules find a
    point for every image.  :math:`a_k` falls to a hundredth of its start and :math:`\gamma_k` to 0.001, both along a
    cosine.  The projection is onto ball and box together.

    Args:
        threat: norm ball in the pixel box; its budget decides success and has no influence on the walk.
        loss: ``margin``; the radius is computed from it.
        steps: gradient steps, one forward and one backward pass each; at evaluation one more forward at the end.
        step_size: first step a, Euclidean, in pixel units in all norms.
        gamma: first relative change of the radius.
        early_stop: leave an image alone at the first misclassified point of the threat, which is seldom the nearest.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from hauberk.batch import Batch
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).eval()
        >>> _ = net[1].weight.data.copy_(torch.tensor([[1.0, -1, 0, 0], [-1, 1, 0, 0]]))  # is pixel 0 brighter?
        >>> batch = Batch(torch.tensor([0.6, 0.5, 0, 0]).reshape(1, 1, 2, 2), torch.tensor([0]), torch.tensor([0]))
        >>> from hauberk.attacks import FMN
        >>> from hauberk.threats import Linf
        >>> round(float(FMN(Linf(1.0))(net, batch).nearest), 3)  # the truth is 0.05
        0.05
    """

    loss: Literal["margin"] = "margin"
    steps: Annotated[int, Field(ge=1)] = 100
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.05
    early_stop: bool = False

    def search(self, query: Query, randomness: Randomness) -> Tensor:  # noqa: ARG002 - nothing is random
        """Walk; the nearest misclassified point is returned, and the last iterate where there is none."""
        if query.track:
            query.retire(classes(query.clean_logits) != query.labels)  # nothing is nearer than the image itself
        images, shape, norm = query.images, (-1, 1, 1, 1), self.threat.norm
        largest = norms(torch.maximum(images, 1.0 - images), norm)  # no point of the box is farther
        points = kept = images
        radius = torch.full_like(largest, torch.inf)
        nearest = torch.full_like(largest, torch.inf)
        for step in range(self.steps):
            value, gradient = query.gradient(points)
            distance = norms(points - images, norm)
            closer = query.wrong & (distance < nearest)
            nearest = torch.where(closer, distance, nearest)
            kept = torch.where(closer.reshape(shape), points, kept)

            gamma = annealed(self.gamma, 0.001, step, self.steps)
            linear = distance + (1.0 + gamma) * value.abs() / self.threat.dual_norm(gradient).clamp_min(1e-12)
            outside = torch.where(nearest.isfinite(), (1.0 + gamma) * radius, linear)
            radius = torch.where(query.wrong, torch.minimum((1.0 - gamma) * radius, nearest), outside)
            radius = torch.minimum(radius, largest)
            size = annealed(self.step_size, 0.01 * self.step_size, step, self.steps)
            length = norms(gradient, "l2").clamp_min(1e-12).reshape(shape)
            points = self.threat.project(points + size * gradient / length, images, radius)
        if query.track:
            query.value(points)
        return torch.where(nearest.isfinite().reshape(shape), kept, points)
