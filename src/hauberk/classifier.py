"""The classifier contract: images in [0, 1] of shape (B, C, H, W) go in, logits of shape (B, K) come out.

Normalisation is a layer inside the model, so that every budget and radius is in pixel units.  The checks here
stand at the boundary and say what was expected, what came, and what to do.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from hauberk.batch import Batch
from hauberk.boundary import answer, called, check_batch, check_labels, check_logits, check_weights
from hauberk.boundary import check_images as check_images  # the certificates ask for it here
from hauberk.capabilities import Baked, Gradient, NamedOutputs, NamesItself, Polled, Random, ScoresOnly
from hauberk.capabilities import Decides as Decides
from hauberk.capabilities import Traits as Traits
from hauberk.draws import PROBES, drawn, draws_by_key
from hauberk.draws import is_random as is_random
from hauberk.errors import HauberkError
from hauberk.identity import altered, architecture, bytes_of
from hauberk.randomness import Key

TILE = 64
ABSTAIN = -1
FEW = 8  # images on which a model is probed at each call of an attack
APART = 0.05  # of probabilities, which rounding in any precision does not move so far


class Normalize(nn.Module):
    """Standardise each channel: ``(x - mean) / std``.

    Args:
        mean: one value a channel, [0, 1] pixel scale.
        std: one positive value a channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, C, H, W) to the same shape."""
        return (images - self.mean) / self.std


# --- traits ---------------------------------------------------------------------------------------------------


_WORST: dict[Gradient, int] = {"exact": 0, "bpda": 1, "none": 2}


def traits(model: nn.Module) -> Traits:
    """Fold the traits of all modules; the worst wins.

    Modules of torch and of Hauberk are known to be deterministic and differentiable in eval mode.  Any other module
    may do anything in its ``forward``, whatever its children are, so it is undeclared.
    """
    gradient: Gradient = "exact"
    stochastic, declared = draws_by_key(model), True
    for module in model.modules():
        own = getattr(module, "traits", None)
        if isinstance(own, Traits):
            stochastic |= own.stochastic and not isinstance(module, Random)  # whose draws may be fixed
            gradient = max(gradient, own.gradient, key=_WORST.__getitem__)
            declared &= own.declared
        else:
            declared &= type(module).__module__.startswith(("hauberk.", "torch.nn."))
    return Traits(stochastic, gradient, declared)


# --- checks at the boundary -----------------------------------------------------------------------------------


def check_eval(model: nn.Module) -> None:
    """Raise if this is no module, or any part of it is in train mode."""
    if not isinstance(model, nn.Module):
        raise HauberkError(
            f"expected a torch.nn.Module, got {type(model).__name__}",
            "wrap a function: class Mine(nn.Module) with a forward that calls it",
        )
    if any(m.training for m in model.modules()):
        raise HauberkError("the model is in train mode", "call model.eval(): batch norm and dropout change the answer")


@torch.no_grad()
def check_separate(model: nn.Module, images: Tensor, rows: int = FEW) -> None:
    """Raise if the answer for one image depends on the other images of its batch, probed on the first of so many."""
    few = images[:1].expand(rows, *images.shape[1:]).clone()
    few[: len(images)] = images[:rows]
    # the others differ, and the first stays: of the same shape and at the same place, so every bit stays too
    companies = [1.0 - few[1:], torch.zeros_like(few[1:]), torch.ones_like(few[1:])]
    first, *others = [called(model, torch.cat([few[:1], company]))[0] for company in (few[1:], *companies)]
    moved = any(not torch.equal(first.nan_to_num(), other.nan_to_num()) for other in others)
    if moved and not traits(model).stochastic and not is_random(model, few):
        raise HauberkError(
            "the model's answer for one image depends on the other images of the batch",
            "normalise with fixed statistics: a batch is not part of the threat",
        )


@torch.no_grad()
def check_followed(model: nn.Module, images: Tensor) -> None:
    """Raise if a model of the user's own answers otherwise where gradients are wanted, probed on the first few images.

    An attack would follow one function, and another would be judged.
    """
    few, known = images[:FEW], traits(model)
    if known.declared or known.stochastic or isinstance(model, ScoresOnly):
        return
    try:
        with torch.enable_grad():
            followed = called(model, few.clone().requires_grad_(True)).detach()
    except Exception:  # whatever the user's code raises: an attack that asks for gradients says it
        return
    apart = (followed.softmax(1) - called(model, few).softmax(1)).abs().amax()
    if bool(apart > APART) and not is_random(model, few, PROBES):
        raise HauberkError(
            f"the model answers otherwise where gradients are wanted (probabilities move by {float(apart):.2g}), so "
            "that an attack follows another function than the one that is judged",
            "let its forward pass not depend on requires_grad or torch.is_grad_enabled()",
        )


def check_mode(model: nn.Module, images: Tensor) -> None:
    """Raise if a file computes what its model computed in train mode, by its answers on a few images."""
    if not isinstance(model, Baked):
        return
    said = "the file was saved in train mode: call model.eval() before it is traced, scripted or exported"
    if is_random(model, images[:8]):
        raise HauberkError(
            "the file gives different answers to the same images in two calls, as with dropout",
            f"{said}; give a model that is random by design as module:factory",
        )
    try:
        check_separate(model, images)
    except HauberkError as error:
        raise HauberkError(error.message, said) from error


@torch.no_grad()
def check_classifier(model: nn.Module, batch: Batch) -> int:
    """Check model, images and labels together on a first tile and return the number of classes.

    Raises:
        HauberkError: on train mode, bad images, bad labels, an output that is not logits, or one that mixes images.
    """
    check_eval(model)
    check_weights(model)
    check_batch(batch)
    tile = next(batch.tiles(min(TILE, len(batch))))[0]
    logits = answer(model, tile.images)
    check_logits(logits, len(tile), tile.images.dtype)
    check_labels(batch.labels, logits.shape[1], len(batch))
    check_mode(model, batch.images)
    check_separate(model, batch.images)
    check_followed(model, batch.images)
    return int(logits.shape[1])


# --- calling a model ------------------------------------------------------------------------------------------


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Parameters need no gradient and do not change inside.

    A backward pass to the input alone costs about half of a full one, and a parametrised weight (AOL, say) is computed
    once and not at every call.
    """
    wanted = [p for p in model.parameters() if p.requires_grad]
    # not by parametrize.cached(), which takes a layer and its deep copies for one
    lists = [m for m in model.modules() if isinstance(m, ParametrizationList) and "forward" not in vars(m)]
    for p in wanted:
        p.requires_grad_(False)
    for weight in lists:
        vars(weight)["forward"] = functools.cache(weight.forward)
    try:
        yield
    finally:
        for weight in lists:
            del vars(weight)["forward"]
        for p in wanted:
            p.requires_grad_(True)


def prefers_channels_last(model: nn.Module) -> bool:
    """Whether the model has convolutions whose weights are its own parameters, not computed from others."""
    return any(isinstance(m, nn.Conv2d) and "weight" in m._parameters for m in model.modules())


@contextmanager
def channels_last(model: nn.Module) -> Iterator[None]:
    """Inside, convolutions keep their weights with the channels last, as their inputs come from an attack.

    Values do not change, only their order in memory; sums are rounded in another order.
    """
    moved = []
    for module in model.modules():
        weight = module._parameters.get("weight") if isinstance(module, nn.Conv2d) else None
        if weight is not None and not weight.is_contiguous(memory_format=torch.channels_last):
            moved.append((weight, weight.data))
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    try:
        yield
    finally:
        for weight, before in moved:
            weight.data = before


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode inside, every module's own mode restored after."""
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def affine_norms(model: nn.Module) -> Iterator[None]:
    r"""Batch norm in eval mode, computed as what it is then: :math:`x \mapsto a x + b` for each channel.

    With :math:`a = \gamma / \sqrt{\sigma^2 + \epsilon}` and :math:`b = \beta - a \mu`.  Its backward pass is one
    product, which takes about a quarter off an attack on the CPU; results differ by rounding alone.  It is meant for
    training's attacks, on frozen parameters and in eval mode; an evaluation calls the model as it is.
    """
    swapped = []
    for module in model.modules():
        if not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            continue
        if module.running_var is None or module.running_mean is None:
            continue
        with torch.no_grad():
            scale = (module.running_var + module.eps).rsqrt()
            scale = scale * module.weight if module.affine else scale
            shift = -module.running_mean * scale
            shift = shift + module.bias if module.affine else shift
        vars(module)["forward"] = partial(_affine, scale, shift)
        swapped.append(module)
    try:
        yield
    finally:
        for module in swapped:
            del vars(module)["forward"]


def _affine(scale: Tensor, shift: Tensor, values: Tensor) -> Tensor:
    shape = (1, -1, *[1] * (values.dim() - 2))
    return torch.addcmul(shift.to(values).reshape(shape), values, scale.to(values).reshape(shape))


def named_outputs(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """The model's named outputs, ``logits`` (B, K) among them; see ``NamedOutputs``."""
    if isinstance(model, NamedOutputs):
        return dict(model.outputs(images.clone()))
    return {"logits": called(model, images)}


@torch.no_grad()
def logits_of(
    model: nn.Module, batch: Batch, tile: int = TILE, draw: tuple[int, int, str] = (0, 0, "logits")
) -> Tensor:
    """Logits of a batch, computed on padded tiles, shape (B, K).

    Args:
        model: in eval mode.
        batch: images and ids.
        tile: rows of every call.
        draw: seed, number and purpose of the noise of a model that takes it as an argument.
    """
    seed, number, purpose = draw
    found = []
    for part, used in batch.tiles(tile):
        net = drawn(model, Key(seed, number, tuple(part.ids.tolist()), purpose))
        found.append(called(net, part.images)[:used])
    return torch.cat(found)


@torch.no_grad()
def decide(model: nn.Module, batch: Batch, seed: int = 0, tile: int = TILE) -> Tensor:
    """The classifier's decisions on a batch, shape (B,), int64; -1 for none."""
    if isinstance(model, Polled):
        every = [logits_of(model, batch, tile, (seed, n, "decide")) for n in range(model.poll.draws)]
        if model.poll.rule == "mean":
            return classes(torch.stack(every).mean(0))
        return torch.stack([classes(logits) for logits in every], 1).mode(1).values
    if not isinstance(model, Decides):
        return classes(logits_of(model, batch, tile, (seed, 0, "decide")))
    found = []
    for part, used in batch.tiles(tile):
        key = Key(seed, 0, tuple(part.ids.tolist()), "decide")
        net = drawn(model, key)  # a vote or a detector around a random net
        found.append((net if isinstance(net, Decides) else model).decide(part.images.clone(), key)[:used])
    return torch.cat(found)


def classes(logits: Tensor) -> Tensor:
    """The class of the largest logit of each row, (B,); -1 where a logit is NaN or infinite, which is nobody's win."""
    return torch.where(logits.isfinite().all(1), logits.argmax(1), ABSTAIN)


# --- names ----------------------------------------------------------------------------------------------------


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of parameters and buffers: 16 hexadecimal digits."""
    return state_hash(model.state_dict())


def state_hash(state: Mapping[str, Tensor]) -> str:
    """The hash of a model with that state, before there is a model."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        if isinstance(value, Tensor):  # anything else (a quantised layer's packed weights) is part of the structure
            digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
            digest.update(bytes_of(value))
    return digest.hexdigest()[:16]


def predictor_name(model: nn.Module) -> str:
    """What a record calls the function that decides: rows of different predictors never share an axis.

    The name holds a hash of the weights and of all else that the answers depend on, as far as it can be known, see
    ``hauberk.identity``.
    """
    if _names is None:
        return _name(model)
    if id(model) not in _names:
        _names[id(model)] = model, _name(model)  # with the model, whose id is its own while it lives
    return _names[id(model)][1]


_names: dict[int, tuple[nn.Module, str]] | None = None


@contextmanager
def names_once() -> Iterator[None]:
    """Inside, models do not change, so that each is named once."""
    global _names
    before, _names = _names, {} if _names is None else _names
    try:
        yield
    finally:
        _names = before


def _name(model: nn.Module) -> str:
    if isinstance(model, NamesItself) and not altered(model):
        return model.predictor
    spec = getattr(model, "spec", None)
    name = str(spec["name"]) if isinstance(spec, dict) and "name" in spec else type(model).__name__
    digest = hashlib.sha256(f"{weights_hash(model)}|{architecture(model)}".encode())
    return f"{name}[{digest.hexdigest()[:16]}]"


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Logit margin :math:`z_y - \max_{j\ne y} z_j`, shape (B,); positive where the label wins."""
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -math.inf)
    return own.squeeze(1) - others.amax(1)
