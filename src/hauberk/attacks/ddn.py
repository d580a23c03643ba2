"""Decoupled direction and norm: steps on a sphere that shrinks after errors and grows otherwise (Rony et al. 2019)."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from hauberk.attacks.base import Attack
from hauberk.attacks.query import Query
from hauberk.classifier import classes
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG, Norm, norms


def annealed(first: float, last: float, step: int, steps: int) -> float:
    r"""Cosine schedule, :math:`b + (a - b)(1 + \cos(\pi k / N)) / 2` at step k of N, from a to b."""
    return last + (first - last) * (1.0 + math.cos(math.pi * step / steps)) / 2.0


@dataclass(frozen=True, config=CONFIG)
class DDN(Attack):
    r"""The nearest misclassified point in L2, direction and norm found apart.

    .. math::
        \delta' = \delta_k + a_k \frac{\nabla\ell}{\|\nabla\ell\|_2}, \qquad
        \rho_{k+1} = (1 \mp \gamma)\,\rho_k, \qquad
        x_{k+1} = \mathrm{clip}\Bigl(x + \rho_{k+1} \frac{\delta'}{\|\delta'\|_2}\Bigr)

    with minus where :math:`x_k` is misclassified and plus where it is not, and :math:`a_k` falling from 1 to 0.01 along
    a cosine (Rony et al. 2019, Algorithm 1).  With three classes and more the walk ends where cross-entropy is largest
    on the sphere, which need not be where the boundary is nearest; ``loss: margin`` has no such bias.

    Args:
        threat: L2 ball in the pixel box; its budget decides success and has no influence on the walk.
        loss: ``ce`` (the paper's), ``margin`` or ``dlr``.
        steps: gradient steps, one forward and one backward pass each; at evaluation one more forward at the end.
        gamma: relative change of the norm in one step.
        init_norm: first norm, in pixel units.
        quantise: number of levels to which every iterate is rounded.  The paper rounds to 256, those of an image file;
            None is the default here, because the threat is a ball of real numbers.
        early_stop: leave an image alone at the first misclassified point of the threat, which is seldom the nearest.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from hauberk.batch import Batch
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).eval()
        >>> _ = net[1].weight.data.copy_(torch.tensor([[1.0, -1, 0, 0], [-1, 1, 0, 0]]))  # is pixel 0 brighter?
        >>> batch = Batch(torch.tensor([0.6, 0.5, 0, 0]).reshape(1, 1, 2, 2), torch.tensor([0]), torch.tensor([0]))
        >>> from hauberk.attacks import DDN
        >>> from hauberk.threats import L2
        >>> round(float(DDN(L2(1.0))(net, batch).nearest), 2)  # the truth is 0.1 / sqrt(2)
        0.07
    """

    steps: Annotated[int, Field(ge=1)] = 100
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.05
    init_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    quantise: Annotated[int, Field(ge=2)] | None = None
    early_stop: bool = False

    norms: ClassVar[tuple[Norm, ...]] = ("l2",)

    def search(self, query: Query, randomness: Randomness) -> Tensor:
        """Walk; the nearest misclassified point is returned, and the last iterate where there is none."""
        if query.track:
            query.retire(classes(query.clean_logits) != query.labels)  # nothing is nearer than the image itself
        images, shape = query.images, (-1, 1, 1, 1)
        spare = randomness.normal(*images.shape[1:]).to(images)  # a direction where the gradient is zero
        largest = norms(torch.maximum(images, 1.0 - images), "l2")  # no point of the box is farther
        points = kept = images
        radius = torch.full_like(largest, self.init_norm)
        nearest = torch.full_like(largest, torch.inf)
        for step in range(self.steps):
            _, gradient = query.gradient(points)
            change = points - images
            distance = norms(change, "l2")
            closer = query.wrong & (distance < nearest)
            nearest = torch.where(closer, distance, nearest)
            kept = torch.where(closer.reshape(shape), points, kept)

            flat = gradient.flatten(1).abs().amax(1).reshape(shape) == 0.0
            direction = self.threat.steepest_step(torch.where(flat, spare, gradient))
            change = change + annealed(1.0, 0.01, step, self.steps) * direction
            factor = torch.where(query.wrong, 1.0 - self.gamma, 1.0 + self.gamma)
            radius = torch.minimum(factor * radius, largest)
            change = change * (radius / norms(change, "l2").clamp_min(1e-12)).reshape(shape)
            points = self._round((images + change).clamp(0.0, 1.0))
        if query.track:
            query.value(points)
        return torch.where(nearest.isfinite().reshape(shape), kept, points)

    def _round(self, points: Tensor) -> Tensor:
        return points if self.quantise is None else (points * (self.quantise - 1)).round() / (self.quantise - 1)
