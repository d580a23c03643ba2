"""N-FGSM: one step from strong noise without a clip to the ball, for fast training (de Jorge et al. 2022)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from hauberk.attacks.base import Attack
from hauberk.attacks.query import Query
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG, Norm


@dataclass(frozen=True, config=CONFIG)
class NFGSM(Attack):
    r"""A sign step from a noisy image (Algorithm 1), both cut to the pixel box but not to the ball.

    .. math:: \tilde x = x + \eta, \quad \eta_i \sim U(-k\epsilon, k\epsilon), \qquad
        x' = \tilde x + a\,\mathrm{sign}\,\nabla\ell(\tilde x)

    Training gets x', which lies up to :math:`k\epsilon + a` from the image: the authors leave out the clip to the ball
    on purpose, because it shortens the step.  An evaluation counts only points of the ball, so it also evaluates the
    projection of x'; as an attack, PGD is stronger.

    Args:
        threat: Linf ball in the pixel box.
        loss: ``ce``, ``margin``, ``dlr`` or, with noise, ``kl``, whose gradient is zero at the image.
        noise: k, in units of the budget.
        step_size: a in pixel units; None is eps.
    """

    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    norms: ClassVar[tuple[Norm, ...]] = ("linf",)
    projects: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss == "kl" and self.noise == 0:
            raise ValueError("the gradient of the kl loss is zero at the clean image; use noise, or ce or margin")

    def search(self, query: Query, randomness: Randomness) -> Tensor:
        """One draw, one gradient, one step."""
        size = query.budget if self.step_size is None else self.step_size
        start = self.threat.random_point(query.images, randomness, self.noise * query.budget)
        _, gradient = query.gradient(start)
        points = self.threat.ascend(start, gradient, size).clamp(0.0, 1.0)
        if query.track:
            query.value(points)
            query.value(query.project(points))
        return points
