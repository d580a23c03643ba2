"""Threats: what the adversary may do, as a norm ball of budget eps within the pixel box [0, 1].

Every method works on batches of images of any shape ``(B, ...)`` and treats rows separately.  ``eps`` may be
overridden by a tensor of shape (B,), for methods that give each sample a budget of its own.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from hauberk.randomness import Randomness

Norm = Literal["l1", "l2", "linf"]
# of a certified radius: a norm, how many elements of each modality are edited, or by how many 8-bit levels in all
Measure = Literal[Norm, "elements", "levels"]
Budget = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
CONFIG = ConfigDict(extra="forbid")
NEWTON = 60  # steps at most; a handful is usual


def _column(eps: float | Tensor, images: Tensor) -> Tensor:
    """The budget as a tensor that broadcasts over images: shape (B, 1, 1, ...) or ()."""
    value = torch.as_tensor(eps, dtype=images.dtype, device=images.device)
    return value.reshape(-1, *[1] * (images.dim() - 1)) if value.dim() else value


def _per_row(values: Tensor, images: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (images.dim() - 1))


def _root(uniform: Tensor, dimension: int) -> Tensor:
    """u^(1/d), computed in float64: in float32 the last bit may depend on a value's place in the tensor."""
    return uniform.double() ** (1.0 / dimension)


def epsilon(eps: float) -> str:
    """A budget as every page, table and message writes it: 8/255 where it is a number of 255ths, else 0.5 or 12.

    A decimal of at most two digits that says the same is kept: 0.2 is not written 51/255.
    """
    steps = round(eps * 255)
    short = math.isclose(float(f"{eps:.2g}"), eps, rel_tol=1e-6)
    if steps and eps < 1 and abs(eps * 255 - steps) < 1e-6 and not short:
        return f"{steps}/255"
    return f"{eps:.4g}"


def norms(change: Tensor, norm: Norm) -> Tensor:
    r"""Length of each row, :math:`\|\delta_b\|_p`.

    Args:
        change: shape (B, ...).
        norm: ``l1``, ``l2`` or ``linf``.

    Returns:
        shape (B,), in the pixels' units.
    """
    flat = change.flatten(1)
    if norm == "linf":
        return flat.abs().amax(1)
    return flat.abs().sum(1) if norm == "l1" else torch.linalg.vector_norm(flat, dim=1)


def room(points: Tensor, signs: Tensor) -> Tensor:
    """How far each pixel can move within the box: 1 - x for sign 1, x for sign -1, 0 for sign 0."""
    # the end of the box by a clamp: choosing by a mask costs several times as much
    return torch.add(points, signs, alpha=2.0).clamp_(0.0, 1.0).sub_(points).abs_()


def level(slopes: Tensor, rooms: Tensor, wanted: Tensor, start: Tensor) -> Tensor:
    r"""The level :math:`\lambda` at which :math:`\sum_i \min(\lambda s_i, u_i)` reaches what is wanted.

    The sum is concave and piecewise linear in :math:`\lambda`, so that Newton's method from below never passes the
    root, ends on its piece after finitely many steps, most often a handful, and is exact there.

    Args:
        slopes: s >= 0, (B, N).
        rooms: u >= 0, (B, N).
        wanted: the sum, (B,); where all rooms together are less, the level is one at which nothing is free.
        start: a level below the root, (B,).
    """
    free, full, found = torch.empty_like(slopes), torch.empty_like(slopes), start
    for _ in range(slopes.shape[1] + 1):
        reached = found[:, None] * slopes
        torch.lt(reached, rooms, out=free)
        torch.ge(reached, rooms, out=full)
        slope, spent = free.mul_(slopes).sum(1), full.mul_(rooms).sum(1)
        raised = torch.maximum(found, torch.where(slope > 0, (wanted - spent) / slope, found))
        left = (raised > found).nonzero().flatten()
        found = raised
        if 2 * len(left) <= len(found):  # most rows are done: the others go on alone
            if len(left):
                found[left] = level(slopes[left], rooms[left], wanted[left], found[left])
            break
    return found


@dataclass(frozen=True, config=CONFIG)
class Threat(ABC):
    """A norm ball of radius ``eps`` (pixel units, [0, 1] scale) around an image, within the box [0, 1]."""

    eps: Budget

    norm: ClassVar[Norm]
    dual: ClassVar[Norm]

    def __str__(self) -> str:
        """For example ``linf:8/255``."""
        return f"{self.norm}:{epsilon(self.eps)}"

    def distance(self, points: Tensor, origins: Tensor) -> Tensor:
        r"""Distance of each point from its origin in the threat's norm, in float64, shape (B,)."""
        return norms(points.double() - origins.double(), self.norm)

    def dual_norm(self, gradient: Tensor) -> Tensor:
        r"""Dual norm of each row: the largest :math:`\langle g, \delta\rangle` over the unit ball, shape (B,)."""
        return norms(gradient, self.dual)

    @abstractmethod
    def projection(self, origins: Tensor, eps: float | Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """The projection onto ball and box around fixed origins: what depends on them alone is computed once."""

    def project(self, points: Tensor, origins: Tensor, eps: float | Tensor | None = None) -> Tensor:
        """The point of (ball and box) nearest to each point in Euclidean distance; idempotent up to rounding."""
        return self.projection(origins, eps)(points)

    @abstractmethod
    def random_point(self, origins: Tensor, randomness: Randomness, eps: float | Tensor | None = None) -> Tensor:
        """A random point of the ball, cut to the box; shape of ``origins``."""

    @abstractmethod
    def steepest_step(self, gradient: Tensor) -> Tensor:
        r"""The direction of the unit ball with the largest :math:`\langle g, \delta\rangle`; zero where g is zero."""

    def ascend(
        self, points: Tensor, gradient: Tensor, size: float | Tensor, eps: float | Tensor | None = None  # noqa: ARG002
    ) -> Tensor:
        """The points moved by a step of so much in the threat's norm along the steepest direction.

        Args:
            points: in the box, (B, ...).
            gradient: of what is to rise, same shape.
            size: length of the step, pixel units, a number or (B,).
            eps: budget of the ball into which the points are projected then, a number or (B,).

        Returns:
            the moved points, not projected, same shape.
        """
        return points + _column(size, points) * self.steepest_step(gradient)


@dataclass(frozen=True, config=CONFIG)
class Linf(Threat):
    r"""Each pixel moves by at most eps: :math:`\|\delta\|_\infty \le \epsilon`.

    Example:
        >>> import torch
        >>> from hauberk.threats import Linf
        >>> threat = Linf(8 / 255)
        >>> image, point = torch.full((1, 3, 4, 4), 0.5), torch.full((1, 3, 4, 4), 0.9)
        >>> round(float(threat.distance(threat.project(point, image), image)) * 255, 3)
        8.0
    """

    norm: ClassVar[Norm] = "linf"
    dual: ClassVar[Norm] = "l1"

    def projection(self, origins: Tensor, eps: float | Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """Clamp to the interval [max(0, x - eps), min(1, x + eps)] of each pixel."""
        budget = _column(self.eps if eps is None else eps, origins)
        low, high = (origins - budget).clamp_(0.0, 1.0), (origins + budget).clamp_(0.0, 1.0)
        return partial(torch.clamp, min=low, max=high)

    def random_point(self, origins: Tensor, randomness: Randomness, eps: float | Tensor | None = None) -> Tensor:
        """Uniform in the ball, then cut to the box."""
        budget = _column(self.eps if eps is None else eps, origins)
        uniform = randomness.uniform(*origins.shape[1:]).to(origins)
        return self.project(origins + budget * (2.0 * uniform - 1.0), origins, eps)

    def steepest_step(self, gradient: Tensor) -> Tensor:
        """The sign of the gradient."""
        return gradient.sign()


@dataclass(frozen=True, config=CONFIG)
class L2(Threat):
    r"""The Euclidean length of the change is at most eps: :math:`\|\delta\|_2 \le \epsilon`.

    Example:
        >>> import torch
        >>> from hauberk.threats import L2
        >>> threat = L2(0.5)
        >>> image, point = torch.full((1, 1, 2, 2), 0.5), torch.full((1, 1, 2, 2), 0.9)
        >>> round(float(threat.distance(threat.project(point, image), image)), 3)
        0.5
    """

    norm: ClassVar[Norm] = "l2"
    dual: ClassVar[Norm] = "l2"

    def projection(self, origins: Tensor, eps: float | Tensor | None = None) -> Callable[[Tensor], Tensor]:
        r"""Nearest point of the intersection, by its optimality conditions.

        The nearest point is :math:`\mathrm{clip}(x + t\,(z - x), 0, 1)` for one :math:`t \in [0, 1]`:
        stationarity of the Lagrangian gives :math:`u = z - x` scaled by :math:`1/(1+\lambda)` and clipped.
        With the room :math:`b_i` from :math:`x_i` to the side of the box that u points to its squared length is
        :math:`\sum_i \min(t^2 u_i^2, b_i^2)`, which ``level`` solves for :math:`t^2`.
        """
        return partial(self._nearest, origins, _column(self.eps if eps is None else eps, origins))

    @staticmethod
    def _nearest(origins: Tensor, budget: Tensor, points: Tensor) -> Tensor:
        nearest = points.clamp(0.0, 1.0)
        outside = _per_row(norms(nearest - origins, "l2"), origins) > budget
        if not bool(outside.any()):
            return nearest
        change = points - origins
        # where the box is inactive the factor is closed form; it is also a lower bound for the general one
        factor = (budget / _per_row(norms(change, "l2"), origins).clamp_min(1e-30)).clamp(max=1.0)
        scaled = torch.addcmul(origins, factor, change)
        flat = scaled.flatten(1)
        cut = ((flat.amin(1) < 0.0) | (flat.amax(1) > 1.0)) & outside.flatten()
        if bool(cut.any()):  # only those rows change, so that no row depends on another
            rooms = room(origins, change.sign()).square_().flatten(1)
            squared = (budget * budget).reshape(-1).expand(len(origins))
            found = level(change.square().flatten(1), rooms, squared, factor.flatten().square())
            factor = torch.where(_per_row(cut, origins), _per_row(found.sqrt(), origins), factor)
            scaled = torch.addcmul(origins, factor, change)
        scaled.clamp_(0.0, 1.0)
        return scaled if bool(outside.all()) else torch.where(outside, scaled, nearest)

    def random_point(self, origins: Tensor, randomness: Randomness, eps: float | Tensor | None = None) -> Tensor:
        """Uniform in the ball (Gaussian direction, length eps * u^(1/d)), then cut to the box."""
        budget = _column(self.eps if eps is None else eps, origins)
        direction = randomness.normal(*origins.shape[1:]).to(origins)
        radius = _per_row(_root(randomness.uniform(), origins[0].numel()).to(origins), origins)
        length = _per_row(norms(direction, "l2"), origins)
        return self.project(origins + budget * radius * direction / length.clamp_min(1e-30), origins, eps)

    def steepest_step(self, gradient: Tensor) -> Tensor:
        """The gradient scaled to unit length."""
        # dividing by the largest entry first keeps tiny gradients from underflowing when squared
        scaled = gradient / _per_row(norms(gradient, "linf"), gradient).clamp_min(torch.finfo(gradient.dtype).tiny)
        return scaled / _per_row(norms(scaled, "l2"), gradient).clamp_min(1e-12)


@dataclass(frozen=True, config=CONFIG)
class L1(Threat):
    r"""The sum of absolute changes is at most eps: :math:`\|\delta\|_1 \le \epsilon`.

    Example:
        >>> import torch
        >>> from hauberk.threats import L1
        >>> threat = L1(1.0)
        >>> image, point = torch.full((1, 1, 2, 2), 0.5), torch.full((1, 1, 2, 2), 0.9)
        >>> round(float(threat.distance(threat.project(point, image), image)), 3)
        1.0
    """

    norm: ClassVar[Norm] = "l1"
    dual: ClassVar[Norm] = "linf"

    def projection(self, origins: Tensor, eps: float | Tensor | None = None) -> Callable[[Tensor], Tensor]:
        r"""Nearest point of the intersection: soft-threshold the change, then clip.

        The optimality conditions give :math:`u_i = \mathrm{clip}(\mathrm{sign}(c_i)\max(|c_i|-\lambda, 0))` with one
        :math:`\lambda \ge 0`.  The clipped length :math:`\sum_i \min(\max(|c_i|-\lambda,0), b_i)`, with
        :math:`b_i` the room to the box, is piecewise linear and falls with :math:`\lambda`; its root is found by
        Newton's method between bounds, exact on the root's piece (Croce & Hein 2021, Section 3.1, sort instead).
        """
        return partial(self._nearest, origins, _column(self.eps if eps is None else eps, origins))

    @classmethod
    def _nearest(cls, origins: Tensor, budget: Tensor, points: Tensor) -> Tensor:
        change = points - origins
        signs, size = change.sign(), change.abs().flatten(1)
        kept = cls._shrunk(size, room(origins, signs).flatten(1), budget.reshape(-1).expand(len(size)))
        return torch.addcmul(origins, signs, kept.view_as(change)).clamp_(0.0, 1.0)

    @classmethod
    def _shrunk(cls, size: Tensor, rooms: Tensor, budget: Tensor) -> Tensor:
        """What is left of each entry, min(max(size - lambda, 0), room), with the smallest lambda within the budget."""
        kept = torch.minimum(size, rooms)
        outside = (kept.sum(1) > budget).nonzero().flatten()
        if len(outside) == 0:
            return kept
        threshold = torch.zeros_like(budget)
        some, theirs, limit = (size, rooms, budget) if len(outside) == len(size) else (
            size[outside], rooms[outside], budget[outside]
        )  # fmt: skip
        low = torch.zeros_like(limit)
        threshold[outside] = cls._threshold(some, theirs, limit, low, low, some.amax(1))
        return torch.minimum((size - threshold[:, None]).relu_(), rooms)

    @classmethod
    def _threshold(
        cls, size: Tensor, rooms: Tensor, budget: Tensor, threshold: Tensor, low: Tensor, high: Tensor
    ) -> Tensor:
        """The lambda at which the kept entries spend the budget, from a first guess between two bounds; all (B,)."""
        moved, full = torch.empty_like(size), torch.empty_like(size)
        close = 1.0 - 8.0 * torch.finfo(size.dtype).eps
        for step in range(NEWTON):
            over = size - threshold[:, None]
            kept = torch.minimum(over.relu(), rooms)
            total = kept.sum(1)
            low, high = torch.where(total > budget, threshold, low), torch.where(total > budget, high, threshold)
            torch.gt(kept, 0.0, out=moved)
            torch.ge(over, rooms, out=full).mul_(moved)
            free = moved.sub_(full)
            count = free.sum(1)
            exact = (free.mul_(size).sum(1) + full.mul_(rooms).sum(1) - budget) / count.clamp_min(1.0)
            # a root on the wrong side of where it was looked for is one of rounding
            exact = torch.where(total > budget, torch.maximum(exact, threshold), torch.minimum(exact, threshold))
            spent = (total <= budget) & (total >= budget * close)
            settled = spent | ((exact == threshold) & (count > 0))
            # the sum is neither convex nor concave, so that every fourth step may be one of bisection
            newton = (exact > low) & (exact < high) & (count > 0) & (step % 4 < 3)
            threshold = torch.where(settled, threshold, torch.where(newton, exact, 0.5 * (low + high)))
            left = (~settled).nonzero().flatten()
            if 2 * len(left) <= len(size):  # most rows are done: the others go on alone
                if len(left):
                    rest = (x[left] for x in (size, rooms, budget, threshold, low, high))
                    threshold[left] = cls._threshold(*rest)
                return threshold
        return torch.where(settled, threshold, high)

    def random_point(self, origins: Tensor, randomness: Randomness, eps: float | Tensor | None = None) -> Tensor:
        """Uniform in the ball (Laplace direction, length eps * u^(1/d)), then cut to the box."""
        budget = _column(self.eps if eps is None else eps, origins)
        uniform = randomness.uniform(*origins.shape[1:]).double() - 0.5
        # a draw of exactly 0 would give an infinite direction
        direction = (-uniform.sign() * torch.log1p(-2.0 * uniform.abs().clamp_max(0.5 - 2.0**-25))).to(origins)
        radius = _per_row(_root(randomness.uniform(), origins[0].numel()).to(origins), origins)
        length = _per_row(norms(direction, "l1"), origins)
        return self.project(origins + budget * radius * direction / length.clamp_min(1e-30), origins, eps)

    def steepest_step(self, gradient: Tensor) -> Tensor:
        """All of the unit on the entry with the largest gradient (the first one at a tie)."""
        flat = gradient.flatten(1)
        index = flat.abs().argmax(1, keepdim=True)
        step = torch.zeros_like(flat).scatter_(1, index, flat.gather(1, index).sign())
        return step.reshape(gradient.shape)

    def ascend(
        self, points: Tensor, gradient: Tensor, size: float | Tensor, eps: float | Tensor | None = None
    ) -> Tensor:
        r"""The best point of ball and box: the entries of largest gradient move to their ends of the box in turn.

        .. math:: \max_\delta \langle g, \delta\rangle \quad\text{for}\quad
                  \|\delta\|_1 \le a, \; x + \delta \in [0, 1]^d

        is a fractional knapsack: each entry has room for :math:`1 - x_i` or :math:`x_i`, worth :math:`|g_i|` a unit.
        The step of one entry that ``steepest_step`` gives would never move again once that entry is saturated.  No step
        is longer than the diameter of the budget's ball: what is beyond would only go to entries of smaller gradient.
        """
        length = torch.minimum(_column(size, points), 2.0 * _column(self.eps if eps is None else eps, points))
        flat, slope = points.flatten(1), gradient.flatten(1)
        room = torch.where(slope > 0, 1.0 - flat, flat).clamp_min(0.0)
        order = slope.abs().argsort(dim=1, descending=True, stable=True)
        fits = room.gather(1, order)
        left = length.reshape(-1, 1) - (fits.cumsum(1) - fits)
        moved = torch.zeros_like(flat).scatter_(1, order, torch.minimum(left.clamp_min(0.0), fits))
        return points + (slope.sign() * moved).reshape(points.shape)


def norm_equivalence(source: Norm, target: Norm, dimension: int) -> float:
    r"""The factor c with :math:`B_{target}(c\,r) \subseteq B_{source}(r)`: radii in one norm from radii in another.

    Args:
        source: the norm in which a radius r is known.
        target: the norm wanted.
        dimension: number of pixel values d.

    Returns:
        1 where the target norm dominates; :math:`d^{-(1/s - 1/t)}` otherwise.
    """
    exponent = {"l1": 1.0, "l2": 0.5, "linf": 0.0}
    return 1.0 if exponent[target] >= exponent[source] else math.pow(dimension, exponent[target] - exponent[source])


def counterpart(threat: Threat, dimension: int) -> Threat:
    r"""A threat of about the same size in another norm: L2 for Linf, Linf for the others.

    The budget is the typical length, in the other norm, of a change uniform in the given ball: for an Linf ball the
    root mean square of the Euclidean length, :math:`\epsilon_2 = \epsilon_\infty\sqrt{d/3}`, and back by the same rule;
    for L1 the mean of the sum of absolute values, :math:`\epsilon_\infty = 2\epsilon_1/d`.

    Args:
        threat: the one known.
        dimension: number of pixel values d.
    """
    if threat.norm == "linf":
        return L2(threat.eps * math.sqrt(dimension / 3.0))
    return Linf(threat.eps * (math.sqrt(3.0 / dimension) if threat.norm == "l2" else 2.0 / dimension))
