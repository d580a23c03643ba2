"""The attack of Carlini & Wagner: squared distance plus a hinge on the margin, minimised over a hidden variable."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from hauberk.attacks.base import Attack
from hauberk.attacks.query import Query
from hauberk.classifier import classes
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG, Norm, norms

SHAPE = (-1, 1, 1, 1)
EDGE = 1e-6  # keeps atanh finite at black and white pixels


@dataclass(frozen=True, config=CONFIG)
class CarliniWagner(Attack):
    r"""The nearest misclassified point in L2 by unconstrained optimisation.

    .. math::
        \min_w \|x'(w) - x\|_2^2 + c\,\max\{z_y - \max_{j\ne y} z_j + \kappa,\; 0\}, \qquad
        x'(w) = \tfrac12(\tanh w + 1)

    by Adam from the image, for several c: after a search that found a point c is halved between the bounds known so
    far, after one that did not it is raised, tenfold while there is no upper bound (Carlini & Wagner 2017, Sections V
    and VI-A).  The paper spends 20 searches of 10,000 steps; the defaults here cost 900 steps, for comparison
    with other attacks.

    Args:
        threat: L2 ball in the pixel box; its budget decides success and has no influence on the search.
        loss: must be ``margin``, from which the hinge is computed.
        steps: gradient steps of one search, one forward and one backward pass each.
        binary_searches: values of c that are tried.
        initial_constant: the first c, the price of one unit of logit margin in squared pixel units.
        learning_rate: of Adam, in units of w.
        confidence: kappa, the margin in logits by which another class has to lead; the search returns the nearest point
            with that lead, while the nearest misclassified point in the result may have a smaller lead.
        early_stop: leave an image alone at the first misclassified point of the threat, which is seldom the nearest.
    """

    loss: Literal["margin"] = "margin"
    steps: Annotated[int, Field(ge=1)] = 100
    binary_searches: Annotated[int, Field(ge=1)] = 9
    initial_constant: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-2
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.01
    confidence: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    early_stop: bool = False

    norms: ClassVar[tuple[Norm, ...]] = ("l2",)

    def search(self, query: Query, randomness: Randomness) -> Tensor:  # noqa: ARG002 - nothing is random
        """Search for each c; the nearest point of the wanted lead is returned, the last iterate where there is none."""
        if query.track:
            query.retire(classes(query.clean_logits) != query.labels)  # nothing is nearer than the image itself
        constant = torch.full_like(query.images[:, 0, 0, 0], self.initial_constant)
        low, high = torch.zeros_like(constant), torch.full_like(constant, torch.inf)
        nearest, kept = torch.full_like(constant, torch.inf), query.images
        for _ in range(self.binary_searches):
            distance, points = self._minimise(query, constant)
            found, closer = distance.isfinite(), distance < nearest
            nearest = torch.where(closer, distance, nearest)
            kept = torch.where((closer | nearest.isinf()).reshape(SHAPE), points, kept)
            low, high = torch.where(found, low, constant), torch.where(found, constant, high)
            constant = torch.where(high.isinf(), 10.0 * constant, (low + high) / 2.0)
        return kept

    def _minimise(self, query: Query, constant: Tensor) -> tuple[Tensor, Tensor]:
        """Distance of the nearest point of the wanted lead, infinite if there is none, and it or the last iterate."""
        images = query.images
        hidden = torch.atanh((2.0 * images - 1.0) * (1.0 - EDGE))
        mean, square = torch.zeros_like(images), torch.zeros_like(images)
        nearest, kept = torch.full_like(constant, torch.inf), images
        for step in range(1, self.steps + 1):
            tanh = hidden.tanh()
            points = 0.5 * (tanh + 1.0)
            value, gradient = query.gradient(points)
            distance = norms(points - images, "l2")
            closer = query.wrong & (value >= self.confidence) & (distance < nearest)
            nearest = torch.where(closer, distance, nearest)
            kept = torch.where((closer | nearest.isinf()).reshape(SHAPE), points, kept)

            price = torch.where(value < self.confidence, constant, 0.0).reshape(SHAPE)
            slope = (2.0 * (points - images) - price * gradient) * 0.5 * (1.0 - tanh.square())
            # Adam (Kingma & Ba 2015, Algorithm 1) with its usual constants
            mean = 0.9 * mean + 0.1 * slope
            square = 0.999 * square + 0.001 * slope.square()
            size = self.learning_rate / (1.0 - 0.9**step)
            hidden = hidden - size * mean / (square.sqrt() / math.sqrt(1.0 - 0.999**step) + 1e-8)
        return nearest, kept
