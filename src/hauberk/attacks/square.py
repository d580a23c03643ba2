"""Square: random search over squares that uses only scores, no gradients (Andriushchenko et al. 2020)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from hauberk.attacks.base import Attack
from hauberk.attacks.losses import AttackLoss, LossName
from hauberk.attacks.query import Query, put
from hauberk.errors import HauberkError
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG, Norm, Threat

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of p, in a run of 10,000 queries
BLOCK = 100  # queries whose random numbers are drawn at once


@dataclass(frozen=True, config=CONFIG)
class Square(Attack):
    r"""Random search (Algorithm 1): change one square, keep the change where the loss rises.

    The squares cover the share p of the image, which falls from ``p_init`` by halves.  In Linf every square is set to
    :math:`x \pm \epsilon`, one sign for each channel (Algorithm 2); in L2 and L1 the mass of one window is moved into
    another, shaped by two opposite peaks (Algorithm 3; its L1 form is of Croce & Hein 2021).  It uses only the values
    of the loss, so masked gradients do not hinder it.

    The published implementation gives all images of a batch the same squares and never draws the last row and column;
    here each image has squares of its own, at all places.

    Args:
        threat: norm ball in the pixel box.
        loss: ``margin`` as in the paper, or another one.
        queries: squares tried in each run, one forward pass each, and one more for its start.
        p_init: share of the pixels that the first squares cover.
        restarts: independent runs.
        rescale_schedule: shrink the schedule of p, made for 10,000 queries, to ``queries``; AutoAttack does not.
    """

    loss: LossName | AttackLoss = "margin"
    queries: Annotated[int, Field(ge=1)] = 5000
    p_init: Annotated[float, Field(gt=0, le=1)] = 0.8
    restarts: Annotated[int, Field(ge=1)] = 1
    rescale_schedule: bool = False

    def search(self, query: Query, randomness: Randomness) -> Tensor:
        """Run the restarts; the point of highest loss of the last one is returned."""
        if isinstance(query.budget, Tensor):
            raise HauberkError(
                "square needs one budget for all images, and this training gives each image its own",
                "train with pgd or apgd",
            )
        points = query.images
        for _ in range(self.restarts):
            points = self._climb(query, randomness)
        return points

    def share(self, number: int) -> float:
        """The share p of the pixels that the query of this number, from 0, changes."""
        at = number * 10_000 // self.queries if self.rescale_schedule else number
        return self.p_init / 2.0 ** sum(at > halving for halving in HALVINGS)

    def _climb(self, query: Query, randomness: Randomness) -> Tensor:
        walk = _WALKS[self.threat.norm](query.images, self.threat, randomness)
        loss = query.value(walk.points)
        for start in range(0, self.queries, BLOCK):
            numbers = randomness.uniform(min(BLOCK, self.queries - start), walk.draws)
            rows = query.active.nonzero().flatten()
            if len(rows) == 0:
                break
            walk.take(rows)
            for offset, drawn in enumerate(numbers[rows].unbind(1)):
                value = query.value(walk.everywhere(walk.propose(self.share(start + offset), drawn)))
                better = value > loss
                walk.settle(better[rows])
                loss = torch.where(better, value, loss)
        return walk.everywhere(walk.points)


class _Walk(ABC):
    """The current points of the rows that are still searched, and a proposal for each.

    Args:
        images: (B, C, H, W).
        threat: norm ball.
        randomness: for the start.
    """

    draws: int  # random numbers a proposal needs

    def __init__(self, images: Tensor, threat: Threat, randomness: Randomness) -> None:
        self.shape, self.threat = images.shape[1:], threat
        self.images = self._origins = images
        self.rows = torch.arange(len(images), device=images.device)
        self.points = self._all = self.start(randomness)

    @abstractmethod
    def start(self, randomness: Randomness) -> Tensor:
        """The first point of each image, a new tensor (B, C, H, W)."""

    @abstractmethod
    def propose(self, share: float, drawn: Tensor) -> Tensor:
        """New points that differ in one window, (R, C, H, W), drawn from numbers in [0, 1) of shape (R, draws)."""

    def take(self, rows: Tensor) -> None:
        """Go on with these rows, (R,), alone."""
        self.everywhere(self.points)
        if len(rows) < len(self.rows):
            self.rows, self.points, self.images = rows, self._all[rows], self._origins[rows]

    def everywhere(self, points: Tensor) -> Tensor:
        """All points (B, C, H, W), those of the rows searched as given."""
        return points if len(self.rows) == len(self._all) else self._all.index_copy_(0, self.rows, points)

    def settle(self, better: Tensor) -> None:
        """Go to the last proposal where it is better, (R,)."""
        put(self.points, better.nonzero().flatten(), self._proposal)

    def _proposed(self, points: Tensor) -> Tensor:
        self._proposal = points
        return points

    def _corner(self, vertical: Tensor, horizontal: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Row and column of a window's first pixel, uniform over all places where it fits; each (R,)."""
        height, width = self.shape[1:]
        return _floor(vertical, height - side + 1), _floor(horizontal, width - side + 1)

    def _window(self, corner: tuple[Tensor, Tensor], side: int) -> Tensor:
        """Where the window's pixels lie in the flat points, (R, C, side * side)."""
        channels, height, width = self.shape
        count = torch.arange(max(channels, side, len(self.rows)), device=self.rows.device)
        inner = (count[:side, None] * width + count[:side]).flatten()
        inside = count[:channels, None] * (height * width) + inner
        first = count[: len(self.rows)] * (channels * height * width) + corner[0] * width + corner[1]
        return first[:, None, None] + inside


class _Signs(_Walk):
    """Linf: stripes to start from, then squares of one sign a channel (Algorithm 2)."""

    def start(self, randomness: Randomness) -> Tensor:
        channels, _, width = self.shape
        self.draws = 2 + channels
        self._low, self._high = self._ends(self.images)
        return torch.where(randomness.uniform(channels, 1, width) < 0.5, self._low, self._high)

    def _ends(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return (images - self.threat.eps).clamp_(0.0, 1.0), (images + self.threat.eps).clamp_(0.0, 1.0)

    def take(self, rows: Tensor) -> None:
        if len(rows) < len(self.rows):
            self._low, self._high = self._ends(self._origins[rows])
        super().take(rows)

    def propose(self, share: float, drawn: Tensor) -> Tensor:
        # adding +-2 eps to a point of the ball and cutting it to the ball gives the ball's end; so does any longer step
        height, width = self.shape[1:]
        side = min(max(round((share * height * width) ** 0.5), 1), height, width)
        down, across = (
            _inside(first, side, size).to(self.points)
            for first, size in zip(self._corner(drawn[:, 0], drawn[:, 1], side), (height, width), strict=True)
        )
        step = 2.0 * _signs(drawn[:, 2:]).to(self.points)
        moved = torch.addcmul(self.points, step[:, :, None, None] * down[:, None, :, None], across[:, None, None])
        return self._proposed(torch.clamp(moved, self._low, self._high))


class _Masses(_Walk):
    """L2: the mass of two windows goes into the first, shaped by two peaks (Algorithm 3).

    The mass is the sum of squares, of which all channels together have the budget's square.
    """

    power = 2

    def start(self, randomness: Randomness) -> Tensor:
        (channels, height, width), rows = self.shape, len(self.images)
        self.draws = 5 + channels
        side = max(min(height, width) // 5, 1)
        down, across = height // side, width // side
        turned = (randomness.uniform(down, across) < 0.5).long()
        signs = _signs(randomness.uniform(channels, down, across)).to(self.images)
        tiles = self._shapes(side)[turned][:, None] * signs[..., None]
        tiles = tiles.reshape(rows, channels, down, across, side, side).transpose(3, 4)
        tiles = tiles.reshape(rows, channels, down * side, across * side)
        top, left = (height - down * side) // 2, (width - across * side) // 2
        change = torch.zeros_like(self.images)
        change[:, :, top : top + down * side, left : left + across * side] = tiles
        change = self.threat.eps * self._unit(change.flatten(1)).view_as(change)
        return (self.images + change).clamp_(0.0, 1.0)

    def take(self, rows: Tensor) -> None:
        super().take(rows)
        # measured anew now and then, so that rounding does not add up
        self._spent = self._mass((self.points - self.images).double().flatten(1))

    def propose(self, share: float, drawn: Tensor) -> Tensor:
        points, index, origin, wanted, freed = self._exchange(share, drawn)
        values = (origin + wanted).clamp_(0.0, 1.0)
        points.view(-1)[index] = values
        self._next = self._spent - freed.double().sum(1) + self._mass((values - origin).double().flatten(1))
        return self._proposed(points)

    def settle(self, better: Tensor) -> None:
        super().settle(better)
        self._spent = torch.where(better, self._next, self._spent)

    def _exchange(self, share: float, drawn: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """New points with a window emptied; the pixels to fill, their origins, new change, and mass by channel."""
        height, width = self.shape[1:]
        side = min(max(round((share * height * width) ** 0.5), 3) // 2 * 2 + 1, height, width)
        corner, other = self._corner(drawn[:, 0], drawn[:, 1], side), self._corner(drawn[:, 2], drawn[:, 3], side)
        index, emptied = self._window(corner, side), self._window(other, side)
        points, pixels = self.points.clone(), self.images.view(-1)
        moved = points.view(-1)
        origin, left_behind = pixels[index], pixels[emptied]
        change, lost = moved[index] - origin, moved[emptied] - left_behind
        lost = lost.masked_fill(_overlap(corner, other, side)[:, None], 0.0)
        freed = self._mass(change) + self._mass(lost)
        left = (self.threat.eps**self.power - self._spent).clamp_min(0.0).to(freed)
        shapes = self._shapes(side)[(drawn[:, 4] < 0.5).long()]
        wanted = self._unit(shapes[:, None] * _signs(drawn[:, 5:, None]) + self._unit(change))
        wanted = wanted * (freed + left[:, None] / self.shape[0]).pow(1 / self.power)[..., None]
        moved[emptied] = left_behind
        return points, index, origin, wanted, freed

    def _mass(self, change: Tensor) -> Tensor:
        """The norm to its power, over the last axis."""
        return change.square().sum(-1) if self.power == 2 else change.abs().sum(-1)

    def _unit(self, change: Tensor) -> Tensor:
        return change / (self._mass(change).pow(1 / self.power)[..., None] + 1e-12)

    def _shapes(self, side: int) -> Tensor:
        """The peaks of that side, upright and turned, flat: (2, side * side)."""
        upright = peaks(side, self.power)
        return torch.stack([upright, upright.T]).flatten(1).to(self.images)


class _SparseMasses(_Masses):
    """L1: the window gets C times its mass, and the projection onto ball and box takes the excess from all pixels.

    The projection sets the smallest changes to zero, which is what makes the change sparse.
    """

    power = 1

    def propose(self, share: float, drawn: Tensor) -> Tensor:
        proposed, index, origin, wanted, _ = self._exchange(share, drawn)
        proposed.view(-1)[index] = origin + self.shape[0] * wanted
        points, origins = proposed.flatten(1), self.images.flatten(1)
        # an unchanged pixel stays so: projecting the changed ones alone is much less to look at
        row, column = (points != origins).nonzero(as_tuple=True)
        counts = torch.bincount(row, minlength=len(points))
        place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
        some, theirs = points.new_zeros(2, len(points), int(counts.max().clamp_min(1)))
        some[row, place], theirs[row, place] = points[row, column], origins[row, column]
        some = self.threat.project(some, theirs)
        self._next = self._mass((some - theirs).double())
        points[row, column] = some[row, place]
        return self._proposed(proposed)


_WALKS: dict[Norm, type[_Walk]] = {"l1": _SparseMasses, "l2": _Masses, "linf": _Signs}


@cache
def peaks(side: int, power: int) -> Tensor:
    r"""A square of norm 1 with a positive peak in its upper half and a negative one in its lower half.

    Args:
        side: pixels of a side.
        power: 2 for the L2 norm and peaks of heights :math:`1/k^2`, 1 for the L1 norm and :math:`1/k^4`.

    Returns:
        shape (side, side).
    """
    upper = side // 2
    square = torch.cat([_peak(upper, side, power), -_peak(side - upper, side, power)])
    return square / square.abs().pow(power).sum().pow(1 / power)


def _peak(height: int, width: int, power: int) -> Tensor:
    r"""The sum of :math:`k^{-2}` (L2) or :math:`k^{-4}` (L1) over rings k from a pixel's own to the outermost."""
    down = (torch.arange(height) - height // 2).abs()  # on the CPU: a few numbers, made once
    rings = torch.maximum(down[:, None], (torch.arange(width) - width // 2).abs()[None])  # on the CPU
    heights = torch.arange(1, max(height // 2, width // 2) + 2).double() ** (-2 if power == 2 else -4)  # on the CPU
    rectangle = heights.flip(0).cumsum(0).flip(0)[rings]
    return rectangle / rectangle.pow(power).sum().pow(1 / power).clamp_min(1e-12)


def _floor(uniform: Tensor, count: int) -> Tensor:
    """Whole numbers below ``count``, all equally likely, from numbers in [0, 1)."""
    return (uniform * count).long().clamp_max(count - 1)


def _signs(uniform: Tensor) -> Tensor:
    return 1.0 - 2.0 * (uniform < 0.5)


def _inside(first: Tensor, side: int, size: int) -> Tensor:
    """Which of so many places lie in a window's side that starts at the first, (R, size)."""
    places = torch.arange(size, device=first.device)
    return (places >= first[:, None]) & (places < first[:, None] + side)


def _overlap(corner: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], side: int) -> Tensor:
    """Which pixels of the second window lie in the first, (R, side * side)."""
    count = torch.arange(side, device=corner[0].device)
    rows, columns = ((b - a)[:, None] + count for a, b in zip(corner, other, strict=True))
    rows, columns = (rows >= 0) & (rows < side), (columns >= 0) & (columns < side)
    return (rows[:, :, None] & columns[:, None]).flatten(1)
