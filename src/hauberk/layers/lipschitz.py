r"""Walk a model layer by layer and bound its Lipschitz constant; unknown layers are refused.

Bounds hold in eval mode and belong to the weights as they are, in the dtype that they have: a parametrised weight
recomputed in another dtype is another weight.  The walk carries three bounds along, on how far the features move in
L1, L2 and Linf for each unit by which the image moves, and takes the smallest that any way through the layers' norms
and norm equivalence gives:

.. math::
    b'_q = \min_s b_s\,\|f\|_{s\to q}, \qquad
    \|v\|_\infty \le \|v\|_2 \le \|v\|_1 \le \sqrt n\,\|v\|_2 \le n\,\|v\|_\infty
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn

from hauberk.draws import drawn
from hauberk.errors import HauberkError, reason
from hauberk.layers.bound import SLACK, Bound, BoundedLayer, BoundsPairs, check_norm, times
from hauberk.layers.entry_norms import Pair
from hauberk.layers.freezing import probe
from hauberk.layers.known import Shape, computes_as, entry_norms, known_bound
from hauberk.layers.walkable import bent, check_walkable, plain_type
from hauberk.randomness import Key
from hauberk.threats import Norm

__all__ = [
    "Bound",
    "BoundedLayer",
    "LayerBound",
    "ModelBounds",
    "layer_bounds",
    "model_bound",
    "pairwise_bounds",
    "walk",
]

NORMS: tuple[Norm, ...] = get_args(Norm)


@dataclass(frozen=True)
class LayerBound:
    """The bound of one layer of a model.

    Args:
        name: its dotted name in the model, or ``model`` for a model that is one layer.
        kind: the name of its class.
        bound: what is known about it.
        norm: in which norm, on both sides.
    """

    name: str
    kind: str
    bound: Bound
    norm: Norm = "l2"


@dataclass(frozen=True)
class Step:
    """One layer on the walk.

    Args:
        name: as in ``LayerBound``.
        kind: as in ``LayerBound``.
        layer: the module.
        table: its bounds, from one norm to another.
        output: shape of what leaves it, without the batch axis.
    """

    name: str
    kind: str
    layer: nn.Module
    table: Mapping[Pair, Bound]
    output: Shape

    def bound(self, norm: Norm) -> LayerBound:
        """Its bound in the norm, or its known bound where there is none in that norm."""
        same: list[Norm] = [norm, "l2", *NORMS]
        known = next(q for q in same if (q, q) in self.table)
        return LayerBound(self.name, self.kind, self.table[known, known], known)


@dataclass(frozen=True)
class ModelBounds:
    """The results of a walk over a model, from which all its bounds follow.

    Args:
        input_shape: shape of one image, (C, H, W).
        steps: the layers in the order in which they are applied.
    """

    input_shape: Shape
    steps: Sequence[Step]

    def layers(self, norm: Norm = "l2") -> list[LayerBound]:
        """The bound of every layer in the norm, or in another one where this one is unknown."""
        return [step.bound(norm) for step in self.steps]

    def total(self, norm: Norm = "l2") -> Bound:
        """The bound of the whole model, with that norm on both sides.

        Raises:
            HauberkError: on an unknown norm.
        """
        reach = _carry(self.input_shape, self.steps, norm)[norm]
        if len(self.steps) == 1 and (norm, norm) in self.steps[0].table:
            return self.steps[0].table[norm, norm]
        return Bound(reach, f"product of {len(self.steps)} layers", False)

    def pairwise(self, norm: Norm = "l2") -> Tensor:
        r"""Lipschitz bounds of the differences of two logits, by the norm in which the image moves.

        .. math:: |(z_i - z_j)(x) - (z_i - z_j)(x')| \le K_{ij}\,\|x - x'\|, \qquad
                  K_{ij} = \min_q b_q\,\|w_i - w_j\|_{q^*}

        with :math:`b_q` the bound of all before the last linear layer, :math:`w_i` its rows and q* the dual of q; if
        the model does not end in one, :math:`K_{ij} = \min(b_1, \sqrt 2\,b_2, 2\,b_\infty)`, b of the whole model
        (in L2 Tsuzuku et al. 2018; Singla et al. 2022, Proposition 1).  A last layer with bounds of its own for pairs
        (``BoundsPairs``) gives the numbers that replace :math:`\|w_i - w_j\|_{q^*}`.

        Returns:
            shape (K, K), float64, symmetric, zero on the diagonal.
        """
        rows, last = self._rows(), self.steps[-1].layer
        if isinstance(last, BoundsPairs):
            shape = self.steps[-2].output if len(self.steps) > 1 else self.input_shape
            reach = _carry(self.input_shape, self.steps[:-1], norm)
            ways = [last.pairwise_bounds(shape, q) * _product(reach[q], 1.0 + SLACK) for q in NORMS]
            return torch.stack(ways).amin(0)
        if rows is None:
            apart = 1.0 - torch.eye(self.steps[-1].output[0], dtype=torch.float64)
            return apart * self._of_two(norm)
        reach = _carry(self.input_shape, self.steps[:-1], norm)
        return torch.stack([_through_rows(reach, rows - row) for row in rows])

    def logits(self, norm: Norm = "l2") -> Tensor:
        r"""Lipschitz bounds of the logits one by one, :math:`K_i = \min_q b_q \|w_i\|_{q^*}`, shape (K,), float64."""
        rows = self._rows()
        if rows is None:
            value = _through(_carry(self.input_shape, self.steps, norm), (1.0, 1.0, 1.0))
            return torch.full((self.steps[-1].output[0],), value, dtype=torch.float64)
        return _through_rows(_carry(self.input_shape, self.steps[:-1], norm), rows)

    def separate(self, norm: Norm = "l2") -> Tensor:
        r"""Lipschitz bounds of differences of two logits that each pass a 1-Lipschitz function of their own.

        .. math:: K'_{ij} = \min(K_i + K_j,\; \min(b_1, \sqrt2\,b_2, 2\,b_\infty))

        with :math:`K_i` the bounds of single logits and b those of the whole model: functions of single logits, such
        as a clamp, do not stretch the vector of all, and undo what two logits have in common.

        Returns:
            shape (K, K), float64, symmetric, zero on the diagonal.
        """
        single = self.logits(norm)
        apart = 1.0 - torch.eye(len(single), dtype=torch.float64)
        return apart * ((single + single[:, None]) * (1.0 + SLACK)).clamp(max=self._of_two(norm))

    def _of_two(self, norm: Norm) -> float:
        """What the bounds of the vector of all logits say of the difference of two of them."""
        return _through(_carry(self.input_shape, self.steps, norm), (1.0, math.sqrt(2.0), 2.0))

    def _rows(self) -> Tensor | None:
        """The rows of the last linear layer, if the model ends in one."""
        last = self.steps[-1]
        if len(last.output) != 1:
            raise HauberkError(f"expected logits of shape (K,), got {last.output}", "end the model with a linear layer")
        if isinstance(last.layer, nn.Linear) and computes_as(last.layer, nn.Linear):
            return last.layer.weight.detach().cpu().double()
        return None


@torch.no_grad()
def walk(model: nn.Module, input_shape: Sequence[int]) -> ModelBounds:
    """The bounds of every layer, and the shape of its output.

    Args:
        model: one layer, or ``nn.Sequential`` (nested) of layers, in eval mode.
        input_shape: shape of one image, (C, H, W).

    Raises:
        HauberkError: on train mode, NaN weights, a forward hook, or a layer that offers no bound; it is named.
    """
    global _found
    key, before = (id(model), tuple(input_shape)), _found
    if before is not None and key in before:
        return before[key][1]
    _found = {} if before is None else before
    try:
        found = _walk(model, input_shape)
        _found[key] = (model, found)  # with the model, whose id is its own while it lives
    finally:
        _found = before
    return found


# Bounds of the parts of a model, while the walk over all of it goes on: a layer made of others asks for theirs in
# every norm, and so do its own parts.
_found: dict[tuple[int, Shape], tuple[nn.Module, ModelBounds]] | None = None


def _walk(model: nn.Module, input_shape: Sequence[int]) -> ModelBounds:
    check_walkable(model)
    features = probe(model, input_shape)  # two different rows, so that a layer that merges or mixes them shows
    steps = []
    for name, layer in leaves(model):
        kind = plain_type(layer).__name__
        shape = tuple(features.shape[1:])
        try:
            table = _table(layer, shape)
            features = _applied(_one_draw(layer, len(features)), features)
        except (HauberkError, RuntimeError, ValueError, TypeError, IndexError) as error:
            raise _refusal(name, kind, shape, error) from error
        steps.append(Step(name, kind, layer, table, tuple(features.shape[1:])))
    if not steps:
        raise HauberkError("the model has no layers", "add layers: an empty nn.Sequential is not a classifier")
    return ModelBounds(tuple(input_shape), steps)


def _one_draw(layer: nn.Module, rows: int) -> nn.Module:
    """What moves the probes on; the bound is that of the layer itself, which holds for every draw of its parts."""
    return drawn(layer, Key(0, 0, tuple(range(rows)), "walk")).eval()


def _applied(layer: nn.Module, features: Tensor) -> Tensor:
    """What the layer makes of two rows; raises if they meet, or if it makes something else of them the second time.

    A kernel may round a batch of another shape otherwise, so that only batches of equal shape are compared: one row
    stays, the other changes.
    """
    made: Tensor = layer(features.clone())
    if made.dim() < 2 or len(made) != 2:
        raise HauberkError(
            "its output for one image depends on the other images of the batch", "flatten from axis 1 on"
        )
    if not torch.equal(made.nan_to_num(), layer(features.clone()).nan_to_num()):
        raise HauberkError(
            "two calls with the same input differ",
            "certify by smoothing instead: a random layer has no Lipschitz constant",
        )
    for row, sign in ((0, 1.0), (1, -1.0)):
        company = features.clone()
        company[1 - row] = sign * (2.0 * company[1 - row] + 1.0)
        if not _level(made[row], layer(company)[row], float(made.abs().max())):
            raise HauberkError(
                "its output for one image depends on the other images of the batch", "use fixed statistics"
            )
    return made


def _level(first: Tensor, second: Tensor, size: float) -> bool:
    """Whether two results are the same, but for rounding of a transform that takes two rows at a time."""
    few = 8.0 * torch.finfo(first.dtype).eps * size
    return torch.equal(first.nan_to_num(), second.nan_to_num()) or bool(((first - second).abs() <= few).all())


def layer_bounds(model: nn.Module, input_shape: Sequence[int], norm: Norm = "l2") -> list[LayerBound]:
    """``walk(model, input_shape).layers(norm)``: the bound of every layer, in order."""
    return walk(model, input_shape).layers(norm)


def model_bound(model: nn.Module, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
    r"""``walk(model, input_shape).total(norm)``: at most the product of the layers' bounds, rounded up.

    Example:
        >>> from hauberk.layers import AOLLinear, MaxMin, model_bound
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Flatten(), AOLLinear(64, 32), MaxMin(), AOLLinear(32, 10)).eval()
        >>> model_bound(net, (1, 8, 8)).value <= 1.0001
        True
    """
    return walk(model, input_shape).total(norm)


def pairwise_bounds(model: nn.Module, input_shape: Sequence[int], norm: Norm = "l2") -> Tensor:
    """``walk(model, input_shape).pairwise(norm)``: bounds of the differences of two logits, (K, K).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from hauberk.layers import pairwise_bounds
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False)).eval()
        >>> _ = net[1].weight.data.copy_(torch.eye(2))
        >>> round(float(pairwise_bounds(net, (1, 1, 2))[0, 1]), 4)  # the norm of (1, -1)
        1.4142
    """
    return walk(model, input_shape).pairwise(norm)


# --- from norm to norm ----------------------------------------------------------------------------------------

Reach = dict[Norm, float]


def _carry(shape: Shape, steps: Sequence[Step], norm: Norm) -> Reach:
    """How far the features move at most, in each norm, for a unit by which the input moves in one."""
    check_norm(norm)
    reach = _equivalent({q: 1.0 if q == norm else math.inf for q in NORMS}, math.prod(shape))
    for step in steps:
        found = dict.fromkeys(NORMS, math.inf)
        for (source, target), bound in step.table.items():
            if math.isfinite(reach[source]):
                found[target] = min(found[target], times(reach[source], bound.value))
        reach = _equivalent(found, math.prod(step.output))
    return reach


def _equivalent(reach: Reach, size: int) -> Reach:
    """What norm equivalence adds, for vectors of so many values."""
    root = math.nextafter(math.sqrt(size), math.inf) if size > 1 else 1.0
    two = min(reach["l2"], reach["l1"], _product(reach["linf"], root))
    most = min(reach["linf"], two)
    one = min(reach["l1"], _product(two, root), _product(most, float(size)))
    return {"l1": one, "l2": two, "linf": most}


def _product(first: float, second: float) -> float:
    return times(first, second) if math.isfinite(first) else math.inf


def _through(reach: Reach, duals: Sequence[float]) -> float:
    """The least of the three ways into one number, raised for rounding."""
    return min(_product(reach[q], dual) for q, dual in zip(NORMS, duals, strict=True)) * (1.0 + SLACK)


def _through_rows(reach: Reach, rows: Tensor) -> Tensor:
    """The same for the functionals that are the rows of a matrix, one number a row."""
    largest = rows.abs().amax(1)
    unit = rows / torch.where(largest > 0, largest, 1.0)[:, None]  # squares of tiny entries would vanish
    duals = torch.linalg.vector_norm(unit, math.inf, 1), torch.linalg.vector_norm(unit, 2, 1), unit.abs().sum(1)
    ways = []
    for q, dual in zip(NORMS, duals, strict=True):
        if math.isfinite(reach[q]):
            product = dual * largest * (reach[q] * (1.0 + SLACK))
            moves = (largest > 0) & torch.tensor(reach[q] > 0.0)
            ways.append(torch.where(moves, product.clamp(min=math.nextafter(0.0, 1.0)), 0.0))
    return torch.stack(ways).amin(0)


# --- layers ---------------------------------------------------------------------------------------------------


def _table(layer: nn.Module, shape: Shape) -> dict[Pair, Bound]:
    """All bounds of a layer, from one norm to another; at least one with the same norm on both sides."""
    table: dict[Pair, Bound] = {}
    refused: dict[Norm, HauberkError] = {}
    for norm in NORMS:
        try:
            table[norm, norm] = _bound(layer, shape, norm)
        except HauberkError as error:
            refused[norm] = error
    if not table:
        raise refused["l2"]
    return entry_norms(layer, shape) | table


def _bound(layer: nn.Module, shape: Shape, norm: Norm) -> Bound:
    if not isinstance(layer, BoundedLayer):
        return known_bound(layer, shape, norm)
    for method in ("lipschitz_bound", *_HELPERS):
        changed = bent(layer, _owner(type(layer), method)) if hasattr(layer, method) else []
        if changed:
            raise HauberkError(
                f"it changes {', '.join(changed)} but inherits the bound of another class ({method})",
                f"give the class that defines them its own {method}",
            )
    if "norm" in inspect.signature(layer.lipschitz_bound).parameters:
        return layer.lipschitz_bound(shape, norm)
    if norm != "l2":
        raise HauberkError(f"it gives no bound in {norm}", "give its method lipschitz_bound a parameter norm")
    return layer.lipschitz_bound(shape)


_HELPERS = ("inner_size", "weighted_branches", "pairwise_bounds")


def _owner(cls: type, method: str) -> type:
    """The class in which a method is defined."""
    for c in cls.__mro__:
        if method in vars(c):
            return c
    raise HauberkError(f"its {method} is defined on the object and not in its class", "define it in the class")


def leaves(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers of nested ``nn.Sequential`` in order; a layer that is used twice comes twice."""
    if type(module) is not nn.Sequential:
        yield name or "model", module
        return
    for key, child in module._modules.items():
        if child is not None:
            yield from leaves(child, f"{name}.{key}" if name else key)


def _refusal(name: str, kind: str, shape: Shape, error: Exception) -> HauberkError:
    message, hint = (error.message, error.hint) if isinstance(error, HauberkError) else (reason(error), "")
    return HauberkError(f"no Lipschitz bound for layer {name!r} ({kind}) on inputs of shape {shape}: {message}", hint)
