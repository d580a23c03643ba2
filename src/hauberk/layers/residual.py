r"""Sums and concatenations of branches, bounded by the bounds of the branches.

Each branch is a module that ``hauberk.layers.lipschitz`` can bound: one layer, or an ``nn.Sequential``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hauberk.errors import HauberkError
from hauberk.layers.bound import Bound, times
from hauberk.layers.derived import Derived
from hauberk.layers.lipschitz import model_bound
from hauberk.threats import Norm


def plus(first: float, second: float) -> float:
    """The sum of two bounds, rounded up; exact where one of them is 0."""
    if 0.0 in (first, second):
        return first + second
    return math.nextafter(first + second, math.inf)


class AffineResidual(nn.Module):
    r"""A weighted sum of input and branch, :math:`y = a\,x + b\,f(x)`, of constant :math:`|a| + |b|\,L`.

    With a = b = 1 it is the residual block of a ResNet, whose constant is 1 + L and not L.

    Args:
        branch: f, which keeps the shape.
        skip: a.
        gain: b.
        learnable: whether a and b are trained.
    """

    skip: Tensor
    gain: Tensor

    def __init__(self, branch: nn.Module, skip: float = 1.0, gain: float = 1.0, learnable: bool = False) -> None:
        super().__init__()
        self.branch = branch
        for name, value in (("skip", skip), ("gain", gain)):
            if learnable:
                self.register_parameter(name, nn.Parameter(torch.tensor(float(value))))
            else:
                self.register_buffer(name, torch.tensor(float(value)))

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, ...) to the same shape.

        Raises:
            HauberkError: if the branch changes the shape.
        """
        return self.skip * features + self.gain * _same_shape(self.branch(features), features)

    def weighted_branches(self) -> list[tuple[float, nn.Module]]:
        """The branch, with b."""
        return [(abs(float(self.gain.detach())), self.branch)]

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """The triangle inequality, with a and b as they are."""
        inner = model_bound(self.branch, input_shape, norm)
        skip, gain = abs(float(self.skip.detach())), abs(float(self.gain.detach()))
        return Bound(plus(skip, times(gain, inner.value)), "triangle inequality", False)


class ConvexResidual(Derived):
    r"""A mean of input and branch, :math:`y = \alpha x + (1 - \alpha) f(x)`, of constant :math:`\alpha + (1-\alpha) L`.

    If the branch is 1-Lipschitz the sum is.  :math:`\alpha = \sigma(t)` is learned.  A shortcut s takes the place of
    the identity where the branch changes the shape: :math:`\alpha s(x) + (1 - \alpha) f(x)`, of constant
    :math:`\alpha L_s + (1 - \alpha) L`.

    Args:
        branch: f, which keeps the shape, or makes that of the shortcut.
        alpha: where it starts, strictly between 0 and 1.
        shortcut: s; None is the identity.

    Raises:
        HauberkError: if alpha is not between 0 and 1.

    Example:
        >>> from hauberk.layers import AOLLinear, ConvexResidual
        >>> round((ConvexResidual(AOLLinear(8, 8), alpha=0.5).eval()).lipschitz_bound((8,)).value, 4)
        1.0
    """

    def __init__(self, branch: nn.Module, alpha: float = 0.5, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        if not 0.0 < alpha < 1.0:
            raise HauberkError(f"expected alpha strictly between 0 and 1, got {alpha}", "use for example 0.5")
        self.branch, self.shortcut = branch, shortcut
        self.logit = nn.Parameter(torch.tensor(math.log(alpha / (1.0 - alpha))))

    @property
    def alpha(self) -> Tensor:
        """The weight of the input."""
        return self.logit.sigmoid()

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, ...) to the same shape.

        Raises:
            HauberkError: if the branch changes the shape.
        """
        numbers = self.numbers(features.shape[1:])
        kept = features if self.shortcut is None else self.shortcut(features)
        return numbers["alpha"] * kept + numbers["rest"] * _same_shape(self.branch(features), kept)

    def derive(self, input_shape: Sequence[int]) -> dict[str, Tensor]:  # noqa: ARG002
        """The weights of input and branch."""
        return {"alpha": self.alpha, "rest": 1.0 - self.alpha}

    def weighted_branches(self) -> list[tuple[float, nn.Module]]:
        """The branch and the shortcut, with their shares."""
        alpha, rest = (float(self.numbers(())[name].detach()) for name in ("alpha", "rest"))
        return [(rest, self.branch), *([] if self.shortcut is None else [(alpha, self.shortcut)])]

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """The triangle inequality, with alpha as it is."""
        inner = model_bound(self.branch, input_shape, norm)
        outer = 1.0 if self.shortcut is None else model_bound(self.shortcut, input_shape, norm).value
        alpha, rest = (float(self.numbers(input_shape)[name].detach()) for name in ("alpha", "rest"))
        return Bound(plus(times(alpha, outer), times(rest, inner.value)), "triangle inequality", False)


class Concatenation(nn.Module):
    r"""The outputs of several branches as channels of one, :math:`y = (f_1(x), \dots, f_n(x))`.

    .. math:: \mathrm{Lip}_2 \le \Big(\sum_i L_i^2\Big)^{1/2}, \qquad \mathrm{Lip}_1 \le \sum_i L_i, \qquad
              \mathrm{Lip}_\infty \le \max_i L_i

    Args:
        branches: modules whose outputs agree in all axes but the channels.

    Raises:
        HauberkError: without branches.
    """

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        if not branches:
            raise HauberkError("a concatenation needs at least one branch", "for example Concatenation(first, second)")
        self.branches = nn.ModuleList(branches)

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, ...) to (B, sum of the branches' channels, ...)."""
        return torch.cat([branch(features) for branch in self.branches], dim=1)

    def weighted_branches(self) -> list[tuple[float, nn.Module]]:
        """All branches, as they are."""
        return [(1.0, branch) for branch in self.branches]

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """From the branches' bounds in the same norm.

        Raises:
            HauberkError: if a layer works in place, which would change the input of the other branches.
        """
        if any(getattr(layer, "inplace", False) for layer in self.modules()):
            raise HauberkError(
                "a branch works in place and so changes the input of the other branches", "use inplace=False"
            )
        values = [model_bound(branch, input_shape, norm).value for branch in self.branches]
        total = 0.0
        for value in values:
            total = max(total, value) if norm == "linf" else plus(total, times(value, value if norm == "l2" else 1.0))
        if norm == "l2" and len(values) > 1:
            total = math.nextafter(math.sqrt(total), math.inf)
        return Bound(values[0] if len(values) == 1 else total, f"{len(values)} branches", False)


def _same_shape(result: Tensor, features: Tensor) -> Tensor:
    """The result, unless adding it would repeat some of its values."""
    if result.shape != features.shape:
        raise HauberkError(
            f"the branch changes shape {tuple(features.shape)} to {tuple(result.shape)}",
            "use a branch that keeps the shape",
        )
    return result
