"""Projected gradient descent on the negative loss, the standard first-order attack (Madry et al. 2018)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from hauberk.attacks.base import Attack
from hauberk.attacks.losses import target_classes
from hauberk.attacks.query import Query
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG, norms


@dataclass(frozen=True, config=CONFIG)
class PGD(Attack):
    r"""Projected gradient ascent, :math:`x_{k+1} = \Pi(x_k + a\,u(\nabla\ell(x_k)))`, with u the steepest unit step.

    With momentum, u takes :math:`g_{k+1} = \mu g_k + \nabla\ell(x_k) / \|\nabla\ell(x_k)\|_1` in the gradient's place
    (Dong et al. 2018, Eq. 6).

    Args:
        threat: norm ball in the pixel box.
        loss: ``ce``, ``margin`` or ``kl``.
        steps: gradient steps, one forward and one backward pass each; at evaluation one more forward at the end.
        step_size: a in pixel units; None is 2.5 eps / steps (Madry's rule), so that the border can be reached.
        restarts: independent runs from fresh random starts.
        random_start: start at a random point of the ball instead of the image.
        targeted: in restart r, raise the (r+1)-th most likely wrong class (of the clean image) instead.
        momentum: mu; 0 uses only the present gradient, 1 (the paper's value) sums up all of them.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from hauberk.batch import Batch
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).eval()
        >>> _ = net[1].weight.data.copy_(torch.tensor([[1.0, -1, 0, 0], [-1, 1, 0, 0]]))  # is pixel 0 brighter?
        >>> batch = Batch(torch.tensor([0.6, 0.5, 0, 0]).reshape(1, 1, 2, 2), torch.tensor([0]), torch.tensor([0]))
        >>> from hauberk.attacks import PGD
        >>> from hauberk.threats import Linf
        >>> [bool(PGD(Linf(eps), steps=10)(net, batch).success) for eps in (0.04, 0.06)]  # the truth is 0.05
        [False, True]
    """

    steps: Annotated[int, Field(ge=1)] = 10
    step_size: Annotated[float, Field(gt=0)] | None = None
    restarts: Annotated[int, Field(ge=1)] = 1
    random_start: bool = True
    targeted: bool = False
    momentum: Annotated[float, Field(ge=0, le=1)] = 0.0

    revision: ClassVar[int] = 2

    def search(self, query: Query, randomness: Randomness) -> Tensor:
        """Run the restarts; the last iterate of the last one is returned."""
        points = query.images
        for restart in range(self.restarts):
            if self.targeted:
                wrong_classes = query.clean_logits.shape[1] - 1
                query.targets = target_classes(query.clean_logits, query.labels, restart % wrong_classes)
            points = self._ascend(query, randomness)
        query.targets = None
        return points

    def length(self, query: Query) -> float | Tensor:
        """The length of a step in pixel units, a number or (B,)."""
        return 2.5 * query.budget / self.steps if self.step_size is None else self.step_size

    def _ascend(self, query: Query, randomness: Randomness) -> Tensor:
        size, points = self.length(query), query.images
        if self.random_start or self.loss == "kl":  # the gradient of the divergence vanishes at the image itself
            points = query.start(randomness)
        velocity = torch.zeros_like(points)
        for _ in range(self.steps):
            _, gradient = query.gradient(points)
            if self.momentum:
                gradient = velocity = self.momentum * velocity + _unit(gradient)
            points = query.ascend(points, gradient, size)
        if query.track:
            query.value(points)
        return points


def _unit(gradient: Tensor) -> Tensor:
    """The gradient of each row divided by its L1 norm; zero where it is zero."""
    length = norms(gradient, "l1").clamp_min(torch.finfo(gradient.dtype).tiny)
    return gradient / length[:, None, None, None]
