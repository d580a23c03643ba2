"""How tight a model's Lipschitz bound is, layer by layer: bound from above, search from below, gradients in between."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hauberk.boundary import check_gradient, check_images, check_uncompiled, check_weights
from hauberk.classifier import check_eval, predictor_name
from hauberk.draws import drawn
from hauberk.errors import HauberkError
from hauberk.layers.freezing import without_parametrisations
from hauberk.layers.lipschitz import ModelBounds, leaves, walk
from hauberk.randomness import PublicDraw
from hauberk.threats import Norm

STEPS = 8
STARTS, MEDIANS = 2, 4  # images from which searches start, and those that medians of gradients are over
SINGLE = 2.0**27  # rounding of single over that of double precision, a quarter of it
Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LayerReport:
    """What is known about one layer.

    Args:
        name: its dotted name in the model.
        kind: the name of its class.
        bound: upper bound on its Lipschitz constant.
        norm: of the bound.
        method: how it was computed.
        reached: the largest ratio that was found in L2, a lower bound; at most ``bound`` if that is in L2.
        preserved: norm of the gradient that leaves the layer towards the image over that which enters, median.
    """

    name: str
    kind: str
    bound: float
    norm: Norm
    method: str
    reached: float
    preserved: float

    @property
    def tightness(self) -> float | None:
        """The value found, divided by the bound; None where the two are in different norms or the layer is constant."""
        return self.reached / self.bound if self.norm == "l2" and self.bound > 0.0 else None


@dataclass(frozen=True)
class LipschitzReport:
    """What is known about a model.

    Args:
        predictor: which model, with the hash of its weights.
        norm: asked for.
        bound: of the whole model; NaN if the walk was refused.
        reached: the largest ratio found on the whole model, in L2.
        preserved: norm of the gradient of the margin at the image over that at the logits, median.
        layers: in the order in which they are applied; empty if the walk was refused.
        refused: why there is no bound, or empty.
        images: how many images the medians are over.
        starts: from how many of them the searches started.
        seconds: what it took.
    """

    predictor: str
    norm: Norm
    bound: float
    reached: float
    preserved: float
    layers: tuple[LayerReport, ...]
    refused: str
    images: int
    starts: int
    seconds: float


def lipschitz_report(model: nn.Module, images: Tensor, norm: Norm = "l2", steps: int = STEPS) -> LipschitzReport:
    r"""Bound every layer, search for a lower bound, and compute the gradient of the margin with respect to the image.

    Of a random model the bounds hold for every draw, and the searches look at one.

    Args:
        model: a classifier in eval mode.
        images: a few images in [0, 1], shape (B, C, H, W); medians are over the first four, searches start
            from the first two.
        norm: of the bounds; the searches are in L2.
        steps: of each search.

    Raises:
        HauberkError: on bad images, or a model in train mode.
    """
    started = time.perf_counter()
    check_eval(model)
    check_uncompiled(model)
    if len(images) == 0:
        raise HauberkError("there are no images for the searches to start from", "give at least one")
    check_weights(model)
    check_images(images)
    check_gradient(model, images)
    exact = copy.deepcopy(model).double().eval().requires_grad_(False)
    with torch.no_grad():
        exact = without_parametrisations(exact)  # weights are computed once, and not at every step of a search
    points = images[:MEDIANS].double()
    bounds, refused = None, ""
    try:
        bounds = walk(exact, tuple(images.shape[1:]))
    except HauberkError as error:
        refused = error.message
    one = drawn(exact, PublicDraw(0, 0)).eval()
    # in float32 they search at twice the speed, and are copied one by one: there is never a second net in float64
    frozen = [one] if bounds is None else [layer for _, layer in leaves(one)]
    quick = nn.Sequential(*(copy.deepcopy(layer).float() for layer in frozen))
    whole = nn.Sequential(*frozen)
    layers: tuple[LayerReport, ...] = ()
    if bounds is None:
        gradient, at_logits = margin_gradient(whole, points)
    else:
        layers, gradient, at_logits = _layers(bounds, whole, quick, points, norm, steps)
    reached = steepest_ratio(whole, points[:STARTS], steps, quick=quick)
    return LipschitzReport(
        predictor=predictor_name(model),
        norm=norm,
        bound=float("nan") if bounds is None else bounds.total(norm).value,
        reached=reached,
        preserved=_median_ratio(gradient, at_logits),
        layers=layers,
        refused=refused,
        images=len(points),
        starts=min(STARTS, len(points)),
        seconds=time.perf_counter() - started,
    )


def steepest_ratio(
    function: Function, points: Tensor, steps: int = STEPS, seed: int = 0, quick: Function | None = None
) -> float:
    r"""The largest :math:`\|f(x) - f(x + h v)\|_2 / h` that gradient ascent on x and on the unit vector v finds.

    For an affine map it is power iteration; the result is a lower bound on the Lipschitz constant of any map.  Each row
    is followed by itself, and its best place is measured again in the precision of ``points``, minus what rounding may
    have added.

    Args:
        function: acts on each row by itself.
        points: where to start, shape (B, ...), float64.
        steps: gradient steps.
        seed: of the first directions.
        quick: the same function in float32, to search with; by default the function itself.
    """
    size = 1e-4 * float(points.abs().max().clamp(min=1.0))
    for search in (function if quick is None else quick, function):
        place, moves = _climb(search, points if search is function else points.float(), steps, seed, size)
        with torch.no_grad():
            place, moves = place.to(points), _unit(moves.to(points))
            ratio, rounding = _ratios(function, place, moves, size), _rounding(function, place, size)
        # where large numbers drown the differences in single precision, the search is made again without it
        if search is function or bool((SINGLE * rounding < 0.1 * ratio).all()):
            break
    return max(0.0, float((ratio - rounding).max()))


def _climb(function: Function, place: Tensor, steps: int, seed: int, size: float) -> tuple[Tensor, Tensor]:
    """For each row the place and the direction of the steepest ratio on its way."""
    generator = torch.Generator().manual_seed(seed)
    moves = _unit(torch.randn(place.shape, generator=generator, dtype=torch.float64)).to(place)
    best, best_place, best_moves = place.new_zeros(len(place)), place, moves
    for _ in range(steps):
        place, moves = place.detach().requires_grad_(True), moves.detach().requires_grad_(True)
        ratio = _ratios(function, place, moves, size)
        better = ratio.detach() > best
        best = torch.where(better, ratio.detach(), best)
        rows = better.reshape(-1, *[1] * (place.dim() - 1))
        best_place, best_moves = torch.where(rows, place, best_place), torch.where(rows, moves, best_moves)
        uphill, turned = torch.autograd.grad(ratio.sum(), (place, moves))
        # the direction follows its gradient at once; the point follows by steps too small to leave a flat piece behind
        moves = torch.where(turned.flatten(1).any(1).reshape(-1, *[1] * (turned.dim() - 1)), _unit(turned), moves)
        place = place + 100.0 * size * _unit(uphill)
    return best_place.detach(), best_moves.detach()


def _ratios(function: Function, points: Tensor, moves: Tensor, size: float) -> Tensor:
    """How far each row's image moves for a move of that size, over the size."""
    moved, stayed = function(torch.cat([points + size * moves, points])).flatten(1).chunk(2)
    ratios: Tensor = torch.linalg.vector_norm(moved - stayed, dim=1) / size
    return ratios


def _rounding(function: Function, points: Tensor, size: float) -> Tensor:
    """How much of a ratio may be the rounding of the two values."""
    lengths = torch.linalg.vector_norm(function(points).flatten(1), dim=1)
    rounding: Tensor = 4.0 * torch.finfo(points.dtype).eps * lengths / size
    return rounding


def margin_gradient(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the largest logit minus the second largest, at the images and at the logits.

    Args:
        model: a differentiable classifier in eval mode.
        images: shape (B, C, H, W).
    """
    leaf = images.detach().requires_grad_(True)
    logits = model(leaf.clone())  # a copy, because some layers work in place
    best = logits.topk(2, 1).values
    first, second = torch.autograd.grad((best[:, 0] - best[:, 1]).sum(), (leaf, logits))
    return first, second


def _layers(
    bounds: ModelBounds,
    frozen: nn.Module,
    quick: nn.Module,
    points: Tensor,
    norm: Norm,
    steps: int,
) -> tuple[tuple[LayerReport, ...], Tensor, Tensor]:
    """The layers, and the gradient of the margin at the image and at the logits."""
    exact, fast = ([_copying(layer) for layer in model.children()] for model in (frozen, quick))
    features = [points.detach().float().requires_grad_(True)]
    for layer in fast:
        features.append(layer(features[-1]))
    best = features[-1].topk(2, 1).values
    gradients = torch.autograd.grad((best[:, 0] - best[:, 1]).sum(), features)
    found = []
    for i, item in enumerate(bounds.layers(norm)):
        search = steepest_ratio(exact[i], features[i][:STARTS].detach().double(), steps, quick=fast[i])
        found.append(
            LayerReport(
                name=item.name,
                kind=item.kind,
                bound=item.bound.value,
                norm=item.norm,
                method=item.bound.method,
                reached=search,
                preserved=_median_ratio(gradients[i], gradients[i + 1]),
            )
        )
    return tuple(found), gradients[0], gradients[-1]


def _copying(layer: nn.Module) -> Function:
    """The layer applied to a copy of its input, because some layers work in place."""

    def apply(features: Tensor) -> Tensor:
        made: Tensor = layer(features.clone())
        return made

    return apply


def _median_ratio(inner: Tensor, outer: Tensor) -> float:
    """Median over images of one gradient's norm over another's."""
    below = torch.linalg.vector_norm(outer.flatten(1), dim=1)
    ratio = torch.linalg.vector_norm(inner.flatten(1), dim=1) / torch.where(below > 0, below, 1.0)
    return float(ratio.median())


def _unit(values: Tensor) -> Tensor:
    """Each row scaled to length 1; a row of zeros stays."""
    length = torch.linalg.vector_norm(values.flatten(1), dim=1).reshape(-1, *[1] * (values.dim() - 1))
    return values / torch.where(length > 0, length, 1.0)


def input_gradients(model: nn.Module, images: Tensor) -> Tensor:
    """The gradient of each image's margin, scaled for the eye: 0.5 is none, the 99th percentile of sizes is 0 or 1.

    Args:
        model: a differentiable classifier in eval mode.
        images: shape (B, C, H, W) in [0, 1].
    """
    gradient = margin_gradient(model, images)[0].detach()
    scale = gradient.abs().flatten(1).quantile(0.99, dim=1).reshape(-1, 1, 1, 1)
    return (0.5 + 0.5 * gradient / torch.where(scale > 0, scale, 1.0)).clamp(0.0, 1.0)


def worst_offence(layers: Sequence[LayerReport]) -> LayerReport | None:
    """A layer whose search went beyond its bound, which no sound bound allows; None if there is none."""
    return next((r for r in layers if r.norm == "l2" and r.reached > r.bound * (1.0 + 1e-6)), None)
