r"""Householder activations: continuous, orthogonal on each piece, with learnable borders.

Each of them maps a group of channels by an orthogonal matrix that depends on the sector in which the group lies, and
the matrices of neighbouring sectors agree on their border.  So they are 1-Lipschitz, and preserve the norm of gradients
almost everywhere.  A continuous piecewise linear map stretches as much as its steepest piece, in any norm; in the L1
and Linf norms a reflection by the angle a stretches by :math:`|\cos a| + |\sin a| \le \sqrt 2`.

Groups are formed as in MaxMin (see ``hauberk.layers.activations``).  Angles and directions are parameters of one
dimension, which keeps weight decay off them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.errors import HauberkError
from hauberk.layers.activations import check_channels, in_groups, lookup, per_channel
from hauberk.layers.bound import SLACK, Bound, check_norm
from hauberk.layers.derived import Derived
from hauberk.threats import Norm


class UnitDirections(nn.Module):
    r"""Scale the direction of each group to unit length, :math:`v = u / \|u\|_2`; a zero direction stays zero.

    Args:
        size: channels a group.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, directions: Tensor) -> Tensor:
        """Shape (C,) to the same shape."""
        groups = directions.reshape(self.size, -1)
        length = torch.linalg.vector_norm(groups, dim=0, keepdim=True)
        return (groups / torch.where(length > 0, length, 1.0)).flatten()


class HouseholderActivation(nn.Module):
    r"""Reflect what lies on the positive side of a learnable hyperplane, in each group of channels.

    .. math::
        g(z) = z - 2 v \max(v^\top z, 0) =
        \begin{cases} z & v^\top z \le 0 \\ (I - 2 v v^\top) z & v^\top z > 0 \end{cases}, \qquad \|v\|_2 = 1

    It starts by sorting the first and the last channel of each group, the larger first: with groups of two it is
    ``MaxMin``.  ``layer.direction`` holds v; a zero v leaves its group as it is.

    Args:
        channels: channels C.
        size: channels a group, which divides C.

    Raises:
        HauberkError: if the size is below 2 or does not divide the channels.

    Source: Singla et al. 2022, Householder activations.
    """

    def __init__(self, channels: int, size: int = 2) -> None:
        super().__init__()
        if size < 2 or channels % size:
            raise HauberkError(f"groups of {size} do not divide {channels} channels", "use a size that divides them")
        self.size = size
        direction = torch.zeros(size, channels // size)
        direction[0], direction[-1] = -math.sqrt(0.5), math.sqrt(0.5)
        self.direction = nn.Parameter(direction.flatten())
        parametrize.register_parametrization(self, "direction", UnitDirections(size))

    def extra_repr(self) -> str:
        """The numbers of channels and of channels in each group."""
        return f"{len(self.direction)}, size={self.size}"

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, ...) to the same shape.

        Raises:
            HauberkError: on another number of channels.
        """
        direction = self.direction
        check_channels(features.shape[1:], len(direction))
        groups = in_groups(features, self.size)
        v = per_channel(direction.reshape(self.size, -1), features)
        along = (groups * v).sum(1, keepdim=True).relu()
        return torch.flatten(groups - 2.0 * along * v, 1, 2)

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        r"""The larger norm of the two pieces, for the v that there is: in L2 :math:`\max(1, 2\|v\|^2 - 1)`."""
        check_channels(input_shape, len(self.direction))
        return _fold_bound(self.direction.reshape(self.size, -1), norm)


class Householder1(Derived):
    r"""Reflect what lies beyond a line through the origin, in each pair of channels.

    .. math::
        g(x, y) = \begin{cases} (x, y) & x \sin(\theta/2) - y \cos(\theta/2) \le 0 \\
        (x \cos\theta + y \sin\theta,\; x \sin\theta - y \cos\theta) & \text{otherwise} \end{cases}

    the ``HouseholderActivation`` with :math:`v = (\sin(\theta/2), -\cos(\theta/2))`.  It starts at
    :math:`\theta = \pi/2`, which is (min, max).

    Args:
        channels: channels C, an even number; x and y are their halves.

    Raises:
        HauberkError: if C is odd.

    Source: Singla et al. 2022, Householder activations of order 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        _check_even(channels)
        self.angle = nn.Parameter(torch.full((channels // 2,), 0.5 * math.pi))

    def extra_repr(self) -> str:
        """The number of channels."""
        return str(2 * len(self.angle))

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, ...) to the same shape.

        Raises:
            HauberkError: on another number of channels.
        """
        check_channels(features.shape[1:], 2 * len(self.angle))
        x, y = features.chunk(2, dim=1)
        # written as a fold: both pieces agree on the border to the last bit
        across, down = per_channel(self.numbers(features.shape[1:])["normals"], features)
        beyond = 2.0 * (x * across + y * down).relu()
        return torch.cat([x - beyond * across, y - beyond * down], dim=1)

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """The larger norm of the two pieces, for the sines and cosines that there are."""
        check_channels(input_shape, 2 * len(self.angle))
        return _fold_bound(self.numbers(input_shape)["normals"], norm)

    def derive(self, input_shape: Sequence[int]) -> dict[str, Tensor]:  # noqa: ARG002
        """The direction v of each pair, shape (2, C / 2)."""
        return {"normals": torch.stack([torch.sin(0.5 * self.angle), -torch.cos(0.5 * self.angle)])}


class Householder2(nn.Module):
    r"""Four sectors of the plane, each with an orthogonal map of its own, in each pair of channels.

    With :math:`\varphi = \mathrm{atan2}(y, x) - \theta_0/2 \bmod 2\pi`,
    :math:`S(a) = \begin{pmatrix} \cos a & \sin a \\ \sin a & -\cos a \end{pmatrix}` and R(a) the rotation by a:

    .. math::
        g(x, y) = \begin{cases}
        (x, y) & \varphi < \theta_1/2 \\
        S(\theta_0 + \theta_1)\,(x, y) & \theta_1/2 \le \varphi < (\theta_1 + \theta_2)/2 \\
        R(-\theta_2)\,(x, y) & (\theta_1 + \theta_2)/2 \le \varphi < \pi + \theta_2/2 \\
        S(\theta_0)\,(x, y) & \pi + \theta_2/2 \le \varphi
        \end{cases}

    The angles are clamped to :math:`[0, 2\pi]` and start uniformly in :math:`[0, \pi]`.  With
    :math:`\theta_1 = 2\pi, \theta_2 = 0` it is ``Householder1`` with :math:`\theta = \theta_0`.

    The last sector has no upper end: a :math:`\varphi` just below zero is rounded to :math:`2\pi` itself, and the
    authors' code, which requires :math:`\varphi < 2\pi`, returns zero at such points.

    The other activations of this file are continuous to the last bit; here neighbouring sectors agree on their border
    up to rounding, some 1e-7 of the pair's length in float32.

    Args:
        channels: channels C, an even number; x and y are their halves.

    Raises:
        HauberkError: if C is odd.

    Source: Singla et al. 2022, Householder activations of order 2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        _check_even(channels)
        self.theta0, self.theta1, self.theta2 = (nn.Parameter(math.pi * torch.rand(channels // 2)) for _ in range(3))

    def extra_repr(self) -> str:
        """The number of channels."""
        return str(2 * len(self.theta0))

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, ...) to the same shape.

        Raises:
            HauberkError: on another number of channels.
        """
        pairs = len(self.theta0)
        check_channels(features.shape[1:], 2 * pairs)
        x, y = features.chunk(2, dim=1)
        cosine, sine, borders = self._sectors()
        with torch.no_grad():  # the sector itself has no derivative
            angle = torch.atan2(y, x) - per_channel(0.5 * self._angles()[0], features)
            angle = angle + 2.0 * math.pi * (angle < 0).to(angle)
            index = per_channel(torch.arange(pairs, device=x.device), features)
            for border in per_channel(borders, features):
                index = index + pairs * (angle >= border).long()
            flip = lookup(cosine.new_tensor([-1.0, 1.0, -1.0, 1.0]).repeat_interleave(pairs), index)
        c, s = lookup(cosine.flatten(), index), lookup(sine.flatten(), index)
        return torch.cat([x * c + y * s, flip * (x * s - y * c)], dim=1)

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """The largest norm of the four pieces, for the sines and cosines that there are."""
        check_norm(norm)
        check_channels(input_shape, 2 * len(self.theta0))
        cosine, sine, _ = (_finite(values) for values in self._sectors())
        if norm == "l2":
            return Bound(float(torch.hypot(cosine, sine).max()) * (1.0 + SLACK), "rotations and reflections", True)
        # a sector may be empty, so this need not be attained
        return Bound(float((cosine.abs() + sine.abs()).max()) * (1.0 + SLACK), "rotations and reflections", False)

    def _angles(self) -> Tensor:
        """The clamped angles, shape (3, C / 2)."""
        return torch.stack([self.theta0, self.theta1, self.theta2]).clamp(0.0, 2.0 * math.pi)

    def _sectors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Cosine and sine of each sector's map, shape (4, C / 2), and the borders between sectors, (3, C / 2)."""
        start, first, second = self._angles()
        turns = torch.stack([torch.zeros_like(start), start + first, second, start])
        borders = torch.stack([0.5 * first, 0.5 * (first + second), math.pi + 0.5 * second])
        return turns.cos(), turns.sin(), borders.detach()


def _fold_bound(directions: Tensor, norm: Norm) -> Bound:
    r"""The larger norm of I and :math:`I - 2vv^\top`, for directions of shape (size, groups) as long as they are."""
    check_norm(norm)
    v = _finite(directions)
    if norm == "l2":
        steepest = (2.0 * v.square().sum(0) - 1.0).max()
    else:  # the matrix is symmetric: rows and columns have the same sums
        steepest = ((1.0 - 2.0 * v.square()).abs() + 2.0 * v.abs() * (v.abs().sum(0) - v.abs())).max()
    return Bound(max(1.0, float(steepest)) * (1.0 + SLACK), "identity and a reflection", True)


def _finite(values: Tensor) -> Tensor:
    values = values.detach().cpu().double()
    if not bool(values.isfinite().all()):
        raise HauberkError("the angles hold NaN or infinity", "training diverged: load an earlier checkpoint")
    return values


def _check_even(channels: int) -> None:
    if channels < 2 or channels % 2:
        raise HauberkError(f"pairs of channels: expected an even number, got {channels}", "use an even width")
