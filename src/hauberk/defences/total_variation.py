"""Total variation minimisation: pixels are dropped at random and filled in again (Guo et al. 2018)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from hauberk import registry
from hauberk.capabilities import Random, Traits
from hauberk.defences.purified import PurifiedClassifier
from hauberk.errors import HauberkError
from hauberk.models.building import with_spec
from hauberk.randomness import Draw
from hauberk.specs import Depth

Backward = Literal["exact", "identity"]
Kind = Literal["isotropic", "l1"]
PRIMAL, DUAL = 1.0, 0.125  # step sizes; their product times 8, the bound of ||D||^2, is 1


@dataclass(frozen=True)
class Minimisation:
    r"""The image of small total variation that is near the kept pixels of another.

    .. math::
        \min_z \tfrac12 \|M \odot (z - x)\|_2^2 + \lambda\,\mathrm{TV}(z), \qquad
        \mathrm{TV}(z) = \sum_{c, i, j} \|(Dz)_{cij}\|_p

    with D the differences to the next pixel down and to the right, M = 1 where a pixel is kept, p = 2 (isotropic) or 1,
    and channels by themselves.  A fixed number of primal-dual steps starts from the kept pixels, the mean of a
    channel's in the place of the others, so that the result depends only on the kept pixels.  Every step is
    differentiable, and so is the result.

    The paper's data term is a norm that is not squared: the minimisers are the same for another lambda.

    Args:
        weight: lambda, above 0.
        steps: of the solver.
        kind: which total variation.

    Source: Guo et al. 2018, Eq. 1; Chambolle & Pock 2011, Algorithm 1 (with theta = 1).
    """

    weight: float
    steps: int
    kind: Kind

    def __call__(self, images: Tensor, kept: Tensor) -> Tensor:
        """Images (B, C, H, W) and their mask of the same shape, 1 where a pixel is kept, to images."""
        known = kept * images
        mean = known.sum((2, 3), keepdim=True) / kept.sum((2, 3), keepdim=True).clamp_min(1.0)
        found = ahead = torch.where(kept > 0, images, mean)
        shrink = 1.0 / (1.0 + PRIMAL * kept)
        known = PRIMAL * known * shrink
        down, right = torch.zeros_like(found)[..., 1:, :], torch.zeros_like(found)[..., 1:]
        for _ in range(self.steps):
            down, right = self._within(down + DUAL * ahead.diff(dim=2), right + DUAL * ahead.diff(dim=3))
            divergence = functional.pad(down, (0, 0, 1, 1)).diff(dim=2) + functional.pad(right, (1, 1)).diff(dim=3)
            last, found = found, (found + PRIMAL * divergence) * shrink + known
            ahead = 2.0 * found - last
        return found

    def objective(self, found: Tensor, images: Tensor, kept: Tensor) -> Tensor:
        """The objective that is minimised, for each image, (B,)."""
        down, right = functional.pad(found.diff(dim=2), (0, 0, 0, 1)), functional.pad(found.diff(dim=3), (0, 1))
        isotropic = self.kind == "isotropic"
        lengths = (down.square() + right.square()).sqrt() if isotropic else down.abs() + right.abs()
        return 0.5 * (kept * (found - images)).square().sum((1, 2, 3)) + self.weight * lengths.sum((1, 2, 3))

    def _within(self, down: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """The projection of dual variables onto the ball of radius lambda, differentiable also at 0."""
        if self.kind == "l1":
            return down.clamp(-self.weight, self.weight), right.clamp(-self.weight, self.weight)
        squares = functional.pad(down.square(), (0, 0, 0, 1)) + functional.pad(right.square(), (0, 1))
        scale = self.weight * squares.clamp_min(self.weight**2).rsqrt()
        return down * scale[..., :-1, :], right * scale[..., :-1]


class TotalVariation(nn.Module):
    """The minimisation with the mask of one draw, or with all pixels kept.

    Args:
        solver: the minimisation.
        backward: ``exact`` differentiates the steps; ``identity`` blocks gradients, so that an attack passes them
            straight through (BPDA).
        drop: the probability with which a value of a pixel is dropped.
        key: of the draw; None drops nothing.
    """

    def __init__(self, solver: Minimisation, backward: Backward, drop: float = 0.0, key: Draw | None = None) -> None:
        super().__init__()
        self.solver, self.drop, self.key = solver, drop, key
        self.traits = Traits(gradient="exact" if backward == "exact" else "none")

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to images of the same shape, not clipped."""
        kept = torch.ones_like(images)
        if self.key is not None:
            kept = (self.key.rows(images).uniform(*images.shape[1:]) >= self.drop).to(images)
        if self.traits.gradient == "exact":
            return self.solver(images, kept)
        with torch.no_grad():
            return self.solver(images, kept)


class RandomTotalVariation(Random):
    """The minimisation with a mask that is drawn anew for every call, a Bernoulli variable for each value.

    Args:
        solver: the minimisation.
        backward: as in ``TotalVariation``.
        drop: the probability with which a value of a pixel is dropped.
    """

    def __init__(self, solver: Minimisation, backward: Backward, drop: float) -> None:
        super().__init__()
        self.solver, self.backward, self.drop = solver, backward, drop
        self.traits = Traits(stochastic=True, gradient="exact" if backward == "exact" else "none")

    def draw(self, key: Draw) -> nn.Module:
        """The minimisation with one mask."""
        return TotalVariation(self.solver, self.backward, self.drop, key)


def total_variation(
    base: nn.Module,
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.5,
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.03,
    steps: Depth = 50,
    kind: Kind = "isotropic",
    backward: Backward = "exact",
) -> nn.Module:
    """Build a classifier behind total variation minimisation.

    Args:
        base: a built model, or in a spec its description; it is best trained behind the same step.
        drop: the probability with which each value of a pixel is dropped; 0 makes the step deterministic.
        weight: lambda, the weight of smoothness against the kept pixels.
        steps: of the solver; 50 come within half a percent of the minimum on 32x32 noise with an edge.
        kind: ``isotropic``, or ``l1`` for the sum of absolute differences.
        backward: ``exact`` differentiates the solver's steps; ``identity`` blocks gradients, and attacks use BPDA.

    Returns:
        a classifier whose random mask takes its noise by key; ``spec`` holds this call.

    Raises:
        HauberkError: if drop or weight is out of range.
    """
    if not (0.0 <= drop < 1.0 and 0.0 < weight < math.inf):
        raise HauberkError(f"expected 0 <= drop < 1 and a weight above 0, got {drop} and {weight}", "usual: 0.5, 0.03")
    solver = Minimisation(weight, steps, kind)
    step = RandomTotalVariation(solver, backward, drop) if drop > 0 else TotalVariation(solver, backward)
    model = PurifiedClassifier(base, step.train(base.training)).train(base.training)
    return with_spec(
        model, "total_variation", base=registry.spec(base), drop=drop, weight=weight, steps=steps, kind=kind,
        backward=backward,
    )  # fmt: skip
