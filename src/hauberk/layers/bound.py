"""The Lipschitz bound of a layer, and the interfaces by which layers give it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, get_args, runtime_checkable

import torch
from torch import Tensor, nn

from hauberk.errors import HauberkError
from hauberk.threats import Norm

SLACK = 1e-9  # by which computed norms are raised; exceeds what rounding in float64 can take away


@dataclass(frozen=True)
class Bound:
    r"""An upper bound on a Lipschitz constant, in one norm of input and output (L2 by default).

    .. math:: \|f(x) - f(x')\| \le \mathrm{value}\,\|x - x'\| \quad\text{for all } x, x'

    Args:
        value: finite and not negative.
        method: how it was computed, for the record.
        exact: whether it is also the smallest such number, up to the slack for rounding.

    Raises:
        HauberkError: if the value is negative, infinite or NaN.
    """

    value: float
    method: str
    exact: bool

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value >= 0.0):
            raise HauberkError(
                f"expected a finite Lipschitz bound >= 0, got {self.value}", "check the weights for NaN and overflow"
            )


@runtime_checkable
class BoundedLayer(Protocol):
    """A layer that computes an upper bound on its Lipschitz constant from its present weights."""

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """The bound for inputs of that shape (without the batch axis), in eval mode.

        A layer that has only an L2 bound may leave ``norm`` out, or call ``only_l2``.
        """
        ...


@runtime_checkable
class BoundsPairs(Protocol):
    """A last layer with tighter bounds of the differences of two logits than its bound and its rows give."""

    def pairwise_bounds(self, input_shape: Sequence[int], norm: Norm = "l2") -> Tensor:
        """Their Lipschitz bounds by the norm in which its input moves, (K, K) float64, from the weights as they are."""
        ...


@runtime_checkable
class SumsInside(Protocol):
    """A layer whose internal sums may have larger terms than its inputs and outputs."""

    def inner_size(self, features: Tensor, constant: float) -> Tensor:
        """The L2 norm, for each row, of what is added up, as it would appear at the output; shape (B,).

        The constant is the layer's Lipschitz bound.
        """
        ...


@runtime_checkable
class Branches(Protocol):
    """A layer that adds up or joins the outputs of other modules."""

    def weighted_branches(self) -> list[tuple[float, nn.Module]]:
        """The modules, with the factor by which their outputs are multiplied."""
        ...


def constant_size(values: Tensor, features: Tensor) -> Tensor:
    """The L2 norm of one number for each channel, on all pixels of features (B, C, ...), for each row."""
    pixels = features[0, 0].numel()
    size: Tensor = torch.linalg.vector_norm(values.to(features)).expand(len(features)) * math.sqrt(pixels)
    return size


def check_norm(norm: Norm) -> None:
    """Raise unless the norm is one of those that a threat may have."""
    if norm not in get_args(Norm):
        raise HauberkError(f"expected a norm of {get_args(Norm)}, got {norm!r}", "use 'l2'")


def unit_bound(norm: Norm, method: str) -> Bound:
    """The bound 1 of maps that stretch no distance in any of the three norms."""
    check_norm(norm)
    return Bound(1.0, method, True)


def only_l2(norm: Norm) -> None:
    """Raise unless the norm is L2: for layers without bounds in the other norms."""
    if norm != "l2":
        raise HauberkError(
            f"no bound in {norm} is known", "use the L2 bound, from which a bound follows by norm equivalence"
        )


def times(first: float, second: float) -> float:
    """The product of two bounds, rounded up; exact where a factor is 0 or 1."""
    if first in (0.0, 1.0) or second in (0.0, 1.0):
        return first * second
    return math.nextafter(first * second, math.inf)


def scaled(weight: Tensor) -> tuple[float, Tensor]:
    """The largest entry, and the weights in float64 divided by it, so that nothing over- or underflows."""
    values = weight.detach().cpu().double()
    if not bool(values.isfinite().all()):
        raise HauberkError("the weights hold NaN or infinity", "training diverged: load an earlier checkpoint")
    scale = float(values.abs().max()) if values.numel() else 0.0
    return scale, values / (scale or 1.0)


def raised(scale: float, norm: float) -> float:
    """The product with the slack for rounding added; only a map that is zero has norm zero."""
    return max(scale * norm * (1.0 + SLACK), math.nextafter(0.0, 1.0)) if scale else 0.0
