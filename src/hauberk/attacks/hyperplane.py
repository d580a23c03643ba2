"""The shortest step onto a hyperplane within the pixel box, in L1, L2 and Linf (Croce & Hein 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from hauberk.threats import Norm

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
    flat = normals.flatten(1)
    weight = flat.abs()
    largest = weight.amax(1).clamp_min(torch.finfo(weight.dtype).tiny)
    # the plane stays where it is if w and v are scaled alike; without it tiny gradients would vanish when squared
    weight, distance = weight / largest[:, None], values.abs() / largest
    direction = -flat.sign() * values.sign()[:, None]
    origin = points.flatten(1)
    room = torch.where(direction > 0, 1.0 - origin, origin).clamp_min(0.0)
    move = _greedy(weight, room, distance) if norm == "l1" else _level(weight, room, distance, norm)
    return (direction * move).reshape(points.shape)


def _level(weight: Tensor, room: Tensor, distance: Tensor, norm: Norm) -> Tensor:
    r"""How far each entry moves in L2 or Linf: :math:`\min(\lambda s_i, u_i)` with s = a or 1.

    The reached distance :math:`\sum_i a_i \min(\lambda s_i, u_i)` is concave and piecewise linear in
    :math:`\lambda`, so that Newton's method from 0 never passes the root, ends on its piece after finitely many
    steps, most often a handful, and is exact there.
    """
    speed = weight if norm == "l2" else weight.sign()
    slopes, lengths = weight * speed, weight * room
    level = torch.zeros_like(distance)
    for _ in range(weight.shape[1] + 1):
        free = (room > level[:, None] * speed).to(weight.dtype)
        slope = (slopes * free).sum(1)
        spent = (lengths * (1.0 - free)).sum(1)
        # where nothing is free the box ends before the plane, and every entry has moved as far as it can
        wanted = torch.where(slope > 0, (distance - spent) / slope, level)
        raised = torch.maximum(level, wanted)
        if torch.equal(raised, level):
            break
        level = raised
    return torch.minimum(level[:, None] * speed, room)


def _greedy(weight: Tensor, room: Tensor, distance: Tensor) -> Tensor:
    """How far each entry moves in L1: a continuous knapsack, filled from the largest weight on."""
    lengths = weight * room
    last = _last_weight(weight, lengths, distance)[:, None]
    whole = (weight > last).to(weight.dtype)
    shared = (weight == last).to(weight.dtype)
    rest = distance - (lengths * whole).sum(1)
    share = rest / (lengths * shared).sum(1).clamp_min(torch.finfo(weight.dtype).tiny)
    return room * (whole + shared * share.clamp(0.0, 1.0)[:, None])


def _last_weight(weight: Tensor, lengths: Tensor, distance: Tensor) -> Tensor:
    """The weight at which the knapsack is full, (B,); 0 where all entries together do not fill it."""
    size = weight.shape[1]
    count = min(FIRST, size)
    while True:  # few entries are enough for short steps, and sorting all of them would cost more than all the rest
        largest, order = weight.topk(count, dim=1)
        reached = lengths.gather(1, order).cumsum(1) >= distance[:, None]
        full = reached.any(1)
        if count == size or bool(full.all()):
            found = largest.gather(1, reached.to(torch.int8).argmax(1, keepdim=True)).squeeze(1)
            return torch.where(full, found, torch.zeros_like(found))
        count = min(8 * count, size)
