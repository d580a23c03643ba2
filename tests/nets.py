"""Nets at random, and what can be done to them, harmless and harmful; used by ``test_fuzz_nets.py``."""

import copy
import random
from collections.abc import Callable
from contextlib import ExitStack
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from hauberk.classifier import Normalize
from hauberk.layers import (
    AffineResidual,
    AOLConv2d,
    AOLLinear,
    BCOPConv2d,
    BetaAbs,
    BjorckLinear,
    BROLinear,
    CayleyLinear,
    Concatenation,
    CPLLinear,
    FullSort,
    GroupSort,
    Householder1,
    LinearSpline,
    MaxMin,
    SandwichLinear,
    SLLLinear,
    SOCConv2d,
    UnitRowLinear,
)
from hauberk.layers.bound import Bound

CLASSES = 3
Deform = Callable[[nn.Sequential, random.Random, ExitStack], object]

# --- nets -------------------------------------------------------------------------------------------------------


def flat_layer(n: int, draw: random.Random) -> nn.Module:
    """A layer from n numbers to n numbers, n a multiple of 4."""
    return draw.choice([
        lambda: nn.Linear(n, n), lambda: AOLLinear(n, n), lambda: BjorckLinear(n, n), lambda: CayleyLinear(n, n),
        lambda: BROLinear(n, n, rank=n // 2), lambda: UnitRowLinear(n, n), lambda: SandwichLinear(n, n),
        lambda: SLLLinear(n), lambda: CPLLinear(n), lambda: AffineResidual(nn.Sequential(nn.Linear(n, n), nn.ReLU())),
        lambda: nn.BatchNorm1d(n), nn.ReLU, nn.Tanh, lambda: nn.LeakyReLU(0.1), MaxMin, lambda: GroupSort(2), FullSort,
        BetaAbs, lambda: Householder1(n), lambda: LinearSpline(n), nn.Identity,
        lambda: nn.Sequential(nn.Linear(n, n), nn.ReLU(inplace=True)),
    ])()  # fmt: skip


def image_layer(c: int, draw: random.Random) -> nn.Module:
    """A layer on images of c channels that keeps their shape."""
    return draw.choice([
        lambda: nn.Conv2d(c, c, 3, padding=1), lambda: AOLConv2d(c, c, 3, padding=1),
        lambda: BCOPConv2d(c, c, 3, padding=1), lambda: SOCConv2d(c, c, 3), nn.ReLU, MaxMin,
        lambda: nn.BatchNorm2d(c), nn.Identity,
        lambda: Concatenation(nn.Conv2d(c, c // 2, 1), nn.Conv2d(c, c - c // 2, 1)),
        lambda: nn.MaxPool2d(3, stride=1, padding=1), lambda: nn.Dropout2d(0.5),
    ])()  # fmt: skip


def built(draw: random.Random) -> nn.Sequential:
    """A net on images of shape (2, 2, 4) with three classes, in eval mode."""
    torch.manual_seed(draw.randrange(2**31))
    parts: list[nn.Module] = [Normalize((0.4, 0.5), (0.5, 0.7))] if draw.random() < 0.3 else []
    parts += [image_layer(2, draw) for _ in range(draw.randrange(3))]
    parts += [nn.Flatten(), nn.Linear(16, 16), *(flat_layer(16, draw) for _ in range(draw.randrange(1, 4)))]
    model = nn.Sequential(*parts, nn.Linear(16, CLASSES))
    model.train()(torch.rand(16, 2, 2, 4))  # statistics of batch norm
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.eval()


def linears(model: nn.Sequential) -> list[nn.Linear]:
    return [m for m in model.modules() if type(m) is nn.Linear]


# --- harmless deformations: to be accepted, with the radius of the same function in plain layers ------------------


class Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def old_spectral_norm(model: nn.Sequential, draw: random.Random, _: ExitStack) -> None:
    layer = nn.utils.spectral_norm(draw.choice(linears(model)))
    layer.train()(torch.rand(2, layer.in_features))
    layer.eval()


def pruned(model: nn.Sequential, draw: random.Random, _: ExitStack) -> None:
    prune.l1_unstructured(draw.choice(linears(model)), "weight", 0.3)


def shared(model: nn.Sequential, draw: random.Random, _: ExitStack) -> None:
    square = [i for i, m in enumerate(model) if isinstance(m, nn.Linear | nn.Tanh) and i < len(model) - 1]
    if square:
        at = draw.choice(square)
        model.insert(at + 1, nn.ReLU())
        model.insert(at + 2, model[at])


def twins(model: nn.Sequential, draw: random.Random, _: ExitStack) -> None:
    """Copies of a parametrised layer share a class, and with it torch's cache of weights."""
    layer = AOLLinear(16, 16).eval()
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.parametrizations.weight.original.copy_(torch.randn(16, 16))
    model.insert(len(model) - 1, layer)
    model.insert(len(model) - 1, other)


HARMLESS: dict[str, Deform] = {
    "plain": lambda m, d, s: None,
    "old weight norm": lambda m, d, s: nn.utils.weight_norm(d.choice(linears(m))),
    "old spectral norm": old_spectral_norm,
    "weight norm": lambda m, d, s: parametrizations.weight_norm(d.choice(linears(m))),
    "spectral norm": lambda m, d, s: parametrizations.spectral_norm(d.choice(linears(m))),
    "orthogonal": lambda m, d, s: parametrizations.orthogonal(d.choice(linears(m))),
    "own parametrisation": lambda m, d, s: parametrize.register_parametrization(
        d.choice(linears(m)), "weight", Halved(), unsafe=True
    ),
    "pruned": pruned,
    "dropout": lambda m, d, s: m.insert(len(m) - 1, nn.Dropout(0.5)),
    "shared": shared,
    "twins": twins,
    "nested": lambda m, d, s: m.insert(len(m) - 1, nn.Sequential(nn.Sequential(nn.Linear(16, 16)), nn.ReLU())),
    "in place": lambda m, d, s: m.insert(len(m) - 1, nn.ReLU(inplace=True)),
    "backward hook": lambda m, d, s: m.register_full_backward_hook(lambda *given: None),
    "precision": lambda m, d, s: m.double(),
}

# --- harmful ones: to be refused, or to hold ----------------------------------------------------------------------


class Tripled(nn.Linear):
    def forward(self, features: Tensor) -> Tensor:
        return 3 * super().forward(features)


class TripledBound(BjorckLinear):
    def forward(self, features: Tensor) -> Tensor:
        return 3 * super().forward(features)


class Honest(BjorckLinear):
    """Another map with a bound of its own."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) / 10

    def lipschitz_bound(self, input_shape: object, norm: str = "l2") -> Bound:
        bound = super().lipschitz_bound(input_shape, norm)
        return Bound(bound.value / 10 * (1 + 1e-9), bound.method, False)


class Centred(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features - 0.5 * features.mean(0)

    def lipschitz_bound(self, input_shape: object, norm: str = "l2") -> Bound:
        return Bound(1.0, "claimed", False)


class Noisy(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight + 0.5 * torch.randn_like(weight)


def patched_class(model: nn.Sequential, draw: random.Random, stack: ExitStack) -> None:
    cls = parametrize.type_before_parametrizations(draw.choice(list(model)))
    kept = cls.forward
    stack.enter_context(patch.object(cls, "forward", lambda self, x: 3 * kept(self, x)))


def patched_instance(model: nn.Sequential, draw: random.Random, _: ExitStack) -> None:
    layer = draw.choice(list(model))
    kept = layer.forward
    layer.forward = lambda x: 3 * kept(x)


def bent_property(model: nn.Sequential, draw: random.Random, _: ExitStack) -> None:
    layer = draw.choice(linears(model))
    calls = [0]

    def bias(self: nn.Module) -> Tensor:
        calls[0] += 1
        return layer._parameters["bias"] + calls[0] % 3

    layer.__class__ = type("Bent", (type(layer),), {"bias": property(bias)})


def scaled_rows(model: nn.Sequential, draw: random.Random, _: ExitStack) -> None:
    with torch.no_grad():
        for layer in linears(model):
            layer.weight[0] *= draw.choice([1e-30, 1e-12, 1e6])


def parallel_rows(model: nn.Sequential, draw: random.Random, _: ExitStack) -> None:
    with torch.no_grad():
        for module in model.modules():
            for p in module._parameters.values():
                if p is not None and p.dim() == 2 and len(p) > 1:
                    p[1] = p[0] * (1 + draw.choice([1e-7, 1e-5, 1e-3]))


def huge_biases(model: nn.Sequential, draw: random.Random, _: ExitStack) -> None:
    with torch.no_grad():
        for layer in linears(model):
            layer.bias += draw.choice([1e3, 1e6])


HARMFUL: dict[str, Deform] = {
    "hook": lambda m, d, s: d.choice(list(m)).register_forward_hook(lambda module, inputs, out: 3 * out),
    "pre-hook": lambda m, d, s: d.choice(list(m)).register_forward_pre_hook(lambda module, inputs: (3 * inputs[0],)),
    "patched class": patched_class,
    "patched instance": patched_instance,
    "subclass": lambda m, d, s: m.insert(len(m) - 1, Tripled(16, 16)),
    "subclass that inherits a bound": lambda m, d, s: m.insert(len(m) - 1, TripledBound(16, 16)),
    "subclass with its own bound": lambda m, d, s: m.insert(len(m) - 1, Honest(16, 16)),
    "property": bent_property,
    "random weights": lambda m, d, s: parametrize.register_parametrization(
        d.choice(linears(m)), "weight", Noisy(), unsafe=True
    ),
    "batch mixing": lambda m, d, s: m.insert(len(m) - 1, Centred()),
    "batch statistics": lambda m, d, s: m.insert(len(m) - 1, nn.BatchNorm1d(16, track_running_stats=False)),
    "half precision": lambda m, d, s: m.bfloat16(),
    "scaled rows": scaled_rows,
    "parallel rows": parallel_rows,
    "huge biases": huge_biases,
    "train mode": lambda m, d, s: m.insert(len(m) - 1, nn.Dropout(0.5).train()),
}  # fmt: skip


class Rude(nn.Module):
    """An accurate model, or a base under noise: any function."""

    def __init__(self, value: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.value = value

    def forward(self, images: Tensor) -> Tensor:
        return self.value(images)


def first(x: Tensor) -> Tensor:
    return x.flatten(1)[:, :CLASSES]


HONEST_BOXES: dict[str, Callable[[Tensor], Tensor]] = {
    "own forward": lambda x: 30 * first(x).sin(),
    "in place": lambda x: 30 * first(x.neg_().add_(1.0)),
    "one hot": lambda x: 1e4 * nn.functional.one_hot(first(x).argmax(1), CLASSES).to(x),
    "sorted rows": lambda x: x.flatten(1).sort(1).values[:, :CLASSES],
    "offset": lambda x: 30 * first(x) + 1e5,
    "overflow": lambda x: torch.exp(first(x) * 200),
    "dropout in eval mode": lambda x: nn.functional.dropout(30 * first(x), 0.5, training=False),
}
RUDE_BOXES: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: first(x) + x.mean(),
    "mean behind an offset": lambda x: 1e5 + first(x) + x.mean(),
    "max": lambda x: first(x) - x.max(0).values.flatten()[:CLASSES],
    "last row": lambda x: first(x) + first(x)[-1:],
    "place": lambda x: first(x) + torch.arange(len(x))[:, None] * torch.tensor([0.1, 0.0, 0.0]),
    "size": lambda x: first(x) if len(x) > 8 else -first(x),
    "random": lambda x: first(x) + torch.randn(len(x), CLASSES).to(x),
}

DEFORMED = {**HARMLESS, **HARMFUL}
BOXES = {**HONEST_BOXES, **RUDE_BOXES}
