"""The shortest step onto a hyperplane within the pixel box, in L1, L2 and Linf (Croce & Hein 2020)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hauberk.threats import Norm, level, room

FIRST = 64  # entries that an L1 step looks at before it looks at eight times as many


def step_to_hyperplane(points: Tensor, normals: Tensor, values: Tensor, norm: Norm) -> Tensor:
    r"""The shortest step from each point of the box to where a linear function vanishes.

    .. math::
        \min_\delta \|\delta\|_p \quad\text{s.t.}\quad v + \langle w, \delta\rangle = 0, \quad 0 \le x + \delta \le 1

    With :math:`a_i = |w_i|` and the room :math:`u_i` from :math:`x_i` to the side of the box that w points to, the
    entries move by :math:`m_i \in [0, u_i]` with :math:`\sum_i a_i m_i = |v|`.  By the optimality conditions
    :math:`m_i = \min(\lambda, u_i)` for Linf and :math:`m_i = \min(\lambda a_i, u_i)` for L2, with one :math:`\lambda`,
    and for L1 the entries move in order of :math:`a_i`, all of their room each; entries that tie at the last place
    share what is left in proportion to their room.

    Args:
        points: x in [0, 1], (B, ...).
        normals: w, of the shape of ``points``.
        values: v, the function at the points, (B,).
        norm: ``l1``, ``l2`` or ``linf``.

    Returns:
        the step, of the shape of ``points``.  Where the plane does not meet the box, it leads to a point of the box
        that is closest to the plane; where a normal is zero, so is the step.
    """
    return steps_to_hyperplane(normals, norm)(points, values)


def steps_to_hyperplane(normals: Tensor, norm: Norm) -> Callable[[Tensor, Tensor], Tensor]:
    """``step_to_hyperplane`` of points and values: what depends on the normals alone is computed once."""
    flat = normals.flatten(1)
    weight = flat.abs()
    largest = weight.amax(1).clamp_min(torch.finfo(weight.dtype).tiny)
    # the plane stays where it is if w and v are scaled alike; without it tiny gradients would vanish when squared
    weight, towards = weight / largest[:, None], flat.sign()
    slopes = weight * weight if norm == "l2" else weight

    def step(points: Tensor, values: Tensor) -> Tensor:
        distance, direction = values.abs() / largest, towards * -values.sign()[:, None]
        rooms = room(points.flatten(1), direction)
        if norm == "l1":
            return _greedy(weight, rooms, distance).mul_(direction).view_as(points)
        found = level(slopes, weight * rooms, distance, torch.zeros_like(distance))[:, None]
        # where the normal is zero there is no room either
        return torch.minimum(found * weight if norm == "l2" else found, rooms).mul_(direction).view_as(points)

    return step


def _greedy(weight: Tensor, room: Tensor, distance: Tensor) -> Tensor:
    """How far each entry moves in L1: a continuous knapsack, filled from the largest weight on."""
    lengths = weight * room
    last = _last_weight(weight, lengths, distance)[:, None]
    whole, shared = torch.empty_like(weight), torch.empty_like(weight)
    torch.gt(weight, last, out=whole)
    torch.eq(weight, last, out=shared)
    rest = distance - (lengths * whole).sum(1)
    share = rest / (lengths * shared).sum(1).clamp_min(torch.finfo(weight.dtype).tiny)
    return room * (whole + shared * share.clamp(0.0, 1.0)[:, None])


def _last_weight(weight: Tensor, lengths: Tensor, distance: Tensor) -> Tensor:
    """The weight at which the knapsack is full, (B,); 0 where all entries together do not fill it."""
    found, count = torch.zeros_like(distance), FIRST
    left = (lengths.sum(1) >= distance).nonzero().flatten()
    while len(left):  # few entries are enough for short steps; sorting all would cost more than all the rest
        largest, order = weight[left].topk(min(count, weight.shape[1]), dim=1)
        reached = lengths[left].gather(1, order).cumsum(1) >= distance[left, None]
        full = reached.any(1)
        last = largest.gather(1, reached.to(torch.int8).argmax(1, keepdim=True)).squeeze(1)
        found[left] = torch.where(full, last, 0.0)
        left = left[~full] if count < weight.shape[1] else left[:0]
        count *= 8
    return found
