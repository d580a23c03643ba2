r"""Lipschitz constants of logit differences for training, :math:`L \|w_i - w_j\|`: differentiable, not certified.

Objectives for certified training weigh logit differences by their Lipschitz constants, which are computed here once in
each step.  The numbers are those that training aims at, or estimates by power iteration, which approaches a norm from
below; whatever is certified later comes from ``hauberk.layers.lipschitz`` and the weights as they then are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from hauberk.classifier import Normalize, evaluating
from hauberk.errors import HauberkError
from hauberk.layers.lipschitz import model_bound
from hauberk.objectives.base import Context

MEMORY = "lipschitz"  # the place in a context's state: constant factors and singular vectors
COLD_STEPS, WARM_STEPS = 50, 3  # power iterations from a random start, and from the last step's vector

Lipschitz = Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["walk"]


class Measured(NamedTuple):
    """Logits and how fast they can change.

    Args:
        logits: shape (B, K).
        pairwise: speed of every logit difference, (K, K), logits per pixel unit, zero on the diagonal.
        speed: L, that of the features before the last linear layer (of the logits if there is none), a scalar.
    """

    logits: Tensor
    pairwise: Tensor
    speed: Tensor


def measure(model: nn.Module, images: Tensor, lipschitz: Lipschitz, context: Context) -> Measured:
    """One forward pass, and ``training_pairwise``.

    Args:
        model: a (nested) ``nn.Sequential``, in train mode.
        images: shape (B, C, H, W).
        lipschitz: as in ``training_pairwise``.
        context: memory and randomness of the training.

    Raises:
        HauberkError: as ``training_pairwise``.
    """
    speed = _speed(model, images.shape[1:], lipschitz, context)
    with parametrize.cached():
        logits: Tensor = model(images)
        return Measured(logits, speed * _apart(model, logits.shape[1], speed), speed)


def training_pairwise(
    model: nn.Module,
    input_shape: Sequence[int],
    classes: int,
    lipschitz: Lipschitz = 1.0,
    context: Context | None = None,
) -> Tensor:
    r"""How fast the difference of two logits can change, for training only.

    .. math:: K_{ij} = L\,\|w_i - w_j\|_2, \qquad L = \prod_l \sigma_l

    :math:`w_i` are the rows of the last linear layer and L belongs to all before it (:math:`K_{ij} = \sqrt 2 L` with
    all layers in L if the model does not end in one).  Gradients flow into the rows.

    With a number, L is that number times :math:`1/\min(\mathrm{std})` of every ``Normalize``: what a network of
    1-Lipschitz layers is built to have.  With ``walk``, gradients flow into L as well: the factor of a convolution or
    linear layer is :math:`\sigma = \|W v\|` with v the top right singular vector, whose gradient :math:`u v^\top` is
    that of the norm.  v comes from power iteration and is kept in the context's state from step to step.  Any other
    layer counts with its certified bound, taken once an epoch, as a constant.

    Args:
        model: a (nested) ``nn.Sequential``.
        input_shape: shape of one image, (C, H, W).
        classes: number of logits K.
        lipschitz: L of the 1-Lipschitz part, or ``walk``.
        context: memory and randomness of the training; with None nothing is kept.

    Returns:
        shape (K, K), logits per pixel unit, with a gradient.

    Raises:
        HauberkError: if the model is not an ``nn.Sequential``, or in a walk, if a layer offers no bound.

    Source: Leino et al. 2021; Miyato et al. 2018 (gradient of a spectral norm).
    """
    speed = _speed(model, input_shape, lipschitz, context or Context(torch.Generator().manual_seed(0)))
    return speed * _apart(model, classes, speed)


def rivals(labels: Tensor, classes: int) -> Tensor:
    """True where a class is not the label, (B, K): by index, so that equal logits stay apart."""
    return functional.one_hot(labels, classes) == 0


# --- the factors of the product -------------------------------------------------------------------------------


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    if type(module) is nn.Sequential:
        for child in module:
            yield from _layers(child)
    else:
        yield module


def _split(model: nn.Module) -> tuple[list[nn.Module], nn.Linear | None]:
    """The layers whose constants multiply, and the last linear layer, if the model ends in one."""
    layers = list(_layers(model)) if type(model) is nn.Sequential else []
    if not layers:
        raise HauberkError(
            f"expected an nn.Sequential of layers, got {type(model).__name__}",
            "build the model as one (lip_convnet, say), and train in float32",
        )
    last = layers[-1]
    if isinstance(last, nn.Linear) and type(last).forward is nn.Linear.forward:
        return layers[:-1], last
    return layers, None


def _apart(model: nn.Module, classes: int, like: Tensor) -> Tensor:
    r"""Distances of the last layer's rows, (K, K); :math:`\sqrt 2` for all pairs if it has none."""
    _, last = _split(model)
    if last is None:
        return math.sqrt(2.0) * (1.0 - torch.eye(classes, dtype=like.dtype, device=like.device))
    # the quick way by matrix products loses all digits of near rows
    return torch.cdist(last.weight, last.weight, compute_mode="donot_use_mm_for_euclid_dist")


def _speed(model: nn.Module, input_shape: Sequence[int], lipschitz: Lipschitz, context: Context) -> Tensor:
    """L, a scalar in the dtype and on the device of the weights."""
    layers, _ = _split(model)
    own = next(itertools.chain(model.parameters(), model.buffers()), torch.zeros(()))  # on the CPU
    speed = own.new_ones(())
    if lipschitz != "walk":
        for layer in layers:
            if isinstance(layer, Normalize):
                speed = speed / layer.std.abs().min().to(speed)
        return speed * lipschitz
    memory = _memory(context)
    if memory["epoch"] != context.epoch:
        memory["factors"] = _factors(model, layers, own.new_zeros(1, *input_shape).detach())
        memory["epoch"] = context.epoch
    for index, (layer, factor) in enumerate(zip(layers, memory["factors"], strict=True)):
        speed = speed * (factor if isinstance(factor, float) else _norm(layer, index, factor, memory, context))
    return speed


def _memory(context: Context) -> dict[str, Any]:
    """What is kept from step to step: it follows from weights and generator, so that every process has the same."""
    found: dict[str, Any] = context.state.setdefault(MEMORY, {"epoch": -1, "factors": [], "vectors": {}})
    return found


@torch.no_grad()
def _factors(model: nn.Module, layers: Sequence[nn.Module], features: Tensor) -> list[Any]:
    """For each layer a constant, or the shape of what enters it if its norm is to have a gradient."""
    found: list[Any] = []
    with evaluating(model):
        for layer in layers:
            shape = tuple(features.shape[1:])
            found.append(shape if _weighted(layer) else model_bound(layer, shape).value)
            features = layer(features)
    return found


def _weighted(layer: nn.Module) -> bool:
    """Whether the layer computes a convolution or product with its weight and nothing else."""
    forward = type(layer).forward
    return (isinstance(layer, nn.Conv2d) and forward is nn.Conv2d.forward) or (
        isinstance(layer, nn.Linear) and forward is nn.Linear.forward
    )


def _norm(layer: nn.Module, index: int, shape: tuple[int, ...], memory: dict[str, Any], context: Context) -> Tensor:
    """The largest singular value of a layer's linear part, with a gradient."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    vector, steps = memory["vectors"].get(str(index)), WARM_STEPS
    if vector is None:
        # a constant start may be orthogonal to the answer: ones are mapped to 0 by the weights (5, -5)
        generator, steps = context.generator, COLD_STEPS
        vector = torch.randn(1, *shape, generator=generator, device=generator.device)
    vector = vector.to(weight)
    for _ in range(steps):
        vector = _power_step(layer, weight.detach(), vector)
    memory["vectors"][str(index)] = vector
    norm: Tensor = torch.linalg.vector_norm(_linear_part(layer, weight, vector))
    return norm


def _linear_part(layer: nn.Module, weight: Tensor, features: Tensor) -> Tensor:
    product = layer._conv_forward if isinstance(layer, nn.Conv2d) else functional.linear
    found: Tensor = product(features, weight, None)
    return found


def _power_step(layer: nn.Module, weight: Tensor, vector: Tensor) -> Tensor:
    r""":math:`W^\top W v`, the gradient of :math:`\frac12\|W v\|^2`, at unit length; v itself where W is zero."""
    with torch.enable_grad():
        leaf = vector.detach().requires_grad_(True)
        (back,) = torch.autograd.grad(0.5 * _linear_part(layer, weight, leaf).square().sum(), leaf)
    length = torch.linalg.vector_norm(back)
    moved = torch.where(length > 0, back / length.clamp_min(torch.finfo(back.dtype).tiny), vector)
    return moved.detach()
