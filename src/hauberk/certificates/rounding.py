"""The forward pass in float64, with an allowance for its rounding."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from hauberk.capabilities import FixesDraws
from hauberk.classifier import weights_hash
from hauberk.draws import drawn
from hauberk.errors import HauberkError, reason
from hauberk.layers.bound import Branches, SumsInside
from hauberk.layers.freezing import Shape, materialised, predictor
from hauberk.layers.lipschitz import ModelBounds, leaves, walk
from hauberk.layers.walkable import check_walkable
from hauberk.randomness import Draw, PublicDraw
from hauberk.threats import Norm

# Float64 sums of thousands of terms are off by less than this share of their size.
SHARE = 1e-12
TINY = 1e-150  # what a value may lose by underflow, its square included


class ExactForward:
    r"""Logits, and how far rounding may have moved the difference of two of them.

    .. math:: e = \sqrt2\,\rho \sum_l \Big(\prod_{m > l} L_m\Big)\,\big(\|x_{l+1}\| + L_l\,\|x_l\| + s_l\big)

    :math:`x_l` enters layer l, and :math:`s_l` is the size of what is added up inside it, as it would appear at its
    output (``inner_size``; of residual and concatenated branches the same sum); the share :math:`\rho` of their size is
    what a layer's float64 arithmetic stays below.  It matters where large numbers cancel: a margin smaller than their
    rounding errors proves nothing.

    Args:
        bounds: of the walk, over layers in float64.
        layers: those of one draw where the walked ones are random; None for the walked ones.
    """

    def __init__(self, bounds: ModelBounds, layers: Sequence[nn.Module] | None = None) -> None:
        shapes = [bounds.input_shape, *(step.output for step in bounds.steps[:-1])]
        self.layers = [step.layer for step in bounds.steps] if layers is None else list(layers)
        self.constants = [
            ModelBounds(shape, [step]).total().value for shape, step in zip(shapes, bounds.steps, strict=True)
        ]
        self.inner = [_inner(layer, shape) for layer, shape in zip(self.layers, shapes, strict=True)]
        self.values = self._values(shapes, bounds.steps[-1].output)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images of shape (B, C, H, W), float64, to logits (B, K) and e, shape (B,)."""
        return self._rounded(images, self.layers)

    def _rounded(self, images: Tensor, layers: Sequence[nn.Module]) -> tuple[Tensor, Tensor]:
        logits, size = self._run(images.clone(), layers)  # a first layer may work in place
        return logits, math.sqrt(2.0) * SHARE * size

    def _values(self, shapes: Sequence[Shape], output: Shape) -> float:
        """The same sum over lengths of vectors of ones: how much logits move if every value moves by one."""
        lengths = [math.sqrt(math.prod(shape)) for shape in (*shapes, output)]
        moved = 0.0
        for constant, size, new in zip(self.constants, lengths[:-1], lengths[1:], strict=True):
            moved = constant * moved + new + constant * size
        return math.sqrt(2.0) * moved

    def _run(self, features: Tensor, layers: Sequence[nn.Module]) -> tuple[Tensor, Tensor]:
        moved, size = features.new_zeros(len(features)), _lengths(features)
        for constant, layer, inner in zip(self.constants, layers, self.inner, strict=True):
            inside = inner(layer, features, constant)
            features, seen = _watched(layer, features)
            new = _lengths(features)
            moved = constant * moved + new + constant * size + inside + seen
            size = new
        return features, moved


class FrozenForward(ExactForward):
    """The forward pass of the frozen copy of a model, with the copy.

    Args:
        bounds: of the walk over the copy.
        frozen: the copy.
    """

    def __init__(self, bounds: ModelBounds, frozen: nn.Module) -> None:
        self._steps = [step.name for step in bounds.steps]
        super().__init__(bounds, self._drawn(frozen, PublicDraw(0, 0)))  # of random layers, what one draw is made of
        self.predictor = predictor(frozen)
        self.pairwise: dict[Norm, np.ndarray] = {}  # bounds of the logit differences, once they were asked for
        self.share: float | None = None  # of the estimate in another precision; see ``deployed``

    @torch.no_grad()
    def drawn(self, images: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """As a call, of a random model with the noise of a draw."""
        return self._rounded(images, self._drawn(self.predictor[-1], draw))

    def one(self, draw: Draw) -> nn.Module:
        """The frozen copy with the noise of a draw."""
        return drawn(self.predictor[-1], draw)

    def _drawn(self, frozen: nn.Module, draw: Draw) -> list[nn.Module]:
        """The layers of the walk with the noise of a draw."""
        one = drawn(frozen, draw)
        return [one.get_submodule(name) for name in self._steps] if type(frozen) is nn.Sequential else [one]

    @cached_property
    def name(self) -> str:
        """The hash of the frozen predictor's numbers."""
        return weights_hash(self.predictor)


_walked: dict[tuple[int, tuple[int, ...]], tuple[nn.Module, ModelBounds, FrozenForward]] | None = None


@contextmanager
def unchanged() -> Iterator[None]:
    """Inside, models do not change, so that ``exact_forward`` walks each of them once."""
    global _walked
    before = _walked
    _walked = {} if before is None else before
    try:
        yield
    finally:
        _walked = before


def fixed(model: nn.Module, input_shape: Sequence[int]) -> nn.Module:
    """``materialised``, with an error that names the layer at fault."""
    check_walkable(model)
    try:
        return materialised(model, input_shape)
    except (HauberkError, RuntimeError, ValueError, TypeError, IndexError) as error:
        walk(model, input_shape)
        raise HauberkError(
            f"the weights of the model cannot be frozen: {reason(error)}",
            "call the model on two images to see the error",
        ) from error


def exact_forward(model: nn.Module, input_shape: Sequence[int]) -> tuple[ModelBounds, FrozenForward]:
    """The bounds of the frozen copy of a model (``materialised``), and its forward pass in float64.

    Args:
        model: a classifier in eval mode.
        input_shape: shape of one image, (C, H, W).

    Raises:
        HauberkError: if the walk refuses it.
    """
    key = (id(model), tuple(input_shape))
    if _walked is not None and key in _walked:
        return _walked[key][1:]
    frozen = fixed(model, input_shape)
    bounds = walk(frozen, input_shape)
    forward = FrozenForward(bounds, frozen)
    if _walked is not None:
        _walked[key] = (model, bounds, forward)  # with the model, whose id is its own while it lives
    return bounds, forward


_Inner = Callable[[nn.Module, Tensor, float], Tensor]


def _inner(layer: nn.Module, shape: Sequence[int]) -> _Inner:
    """How to find what a layer adds up inside, from the layer, its input and its Lipschitz constant.

    Of a random one it may be that of any draw: constants inside are taken from the draw that is given here.
    """
    if isinstance(layer, Branches):
        branches = [branch for _, branch in layer.weighted_branches()]
        if isinstance(layer, FixesDraws):  # draws of one body, of which one shows what there is to add up
            runs = [ExactForward(walk(branches[0], shape))] * len(branches)
        else:
            runs = [ExactForward(walk(branch, shape)) for branch in branches]
        return lambda layer, features, _: _inside(layer, runs, features)
    if isinstance(layer, SumsInside):
        return lambda layer, features, constant: layer.inner_size(features, constant)  # type: ignore[operator]
    return lambda _, features, __: features.new_zeros(len(features))


def _inside(layer: nn.Module, runs: Sequence[ExactForward], features: Tensor) -> Tensor:
    """The weighted sizes inside the branches."""
    total = features.new_zeros(len(features))
    for (weight, branch), run in zip(layer.weighted_branches(), runs, strict=True):  # type: ignore[operator]
        total = total + weight * run._run(features.clone(), [leaf for _, leaf in leaves(branch)])[1]
    return total


def _lengths(features: Tensor) -> Tensor:
    """The L2 norm of each row, more by what underflow may have hidden."""
    rows = features.flatten(1)
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1) + TINY / SHARE * math.sqrt(rows.shape[1])
    return lengths


def _watched(layer: nn.Module, features: Tensor) -> tuple[Tensor, Tensor]:
    """What a layer returns, and for each row the size of what the modules inside it return."""
    inside = features.new_zeros(len(features))

    def add(_: nn.Module, __: object, made: object) -> None:
        if isinstance(made, Tensor) and made.dim() and len(made) == len(features):
            inside.add_(_lengths(made))

    handles = [module.register_forward_hook(add) for module in layer.modules() if module is not layer]
    try:
        made: Tensor = layer(features)
    finally:
        for handle in handles:
            handle.remove()
    return made, inside
