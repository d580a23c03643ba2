"""Planted traps for Lipschitz certificates: what five ways of bounding a network say, and what is true.

    python benchmarks/lipschitz_traps.py [--out results/lipschitz_traps.json]
    python benchmarks/lipschitz_traps.py --render results/lipschitz_traps.json

A claim is a Lipschitz constant (false if the truth is larger) or a radius (false if the truth is smaller).  The truth
is the largest singular value of a dense float64 matrix, a Jacobian, a pair of points, or a calculation by hand.  Layers
of the libraries get the trap's weights through their own parametrisation, a few training forwards, and eval mode, in
float64 unless the trap is about another precision.  ``published style`` is a few own lines after code that papers
certified with: LiResNet's power iteration from ones, SOC's terms and 1 / max(std), GloRo's mask and its 1.0 for unknown
layers, and ``spectral_norm`` read as the Lipschitz constant of a convolution.

No library is a dependency: ``pip install --no-deps deel-torchlip==1.0.5 orthogonium==0.0.4 einops==0.8.2``
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import lipschitz_traps_norms as norms
from hauberk.classifier import Normalize
from hauberk.layers import Householder2, SOCConv2d
from hauberk.layers.spectral import normalise_spectral
from hauberk.runs import environment
from lipschitz_traps_judge import (
    Finding,
    Shape,
    claims,
    conv,
    dense,
    image,
    linear,
    markdown,
    none,
    our_radius,
    ours,
    plain,
    planted,
)

SEED = 0


@contextlib.contextmanager
def on_the_processor() -> Iterator[None]:
    """VRA of orthogonium moves its mask to a GPU; here the call does nothing, to see what it computes."""
    moves = torch.Tensor.cuda
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.Tensor.cuda = moves  # type: ignore[method-assign]


def vra(logits: Tensor) -> float:
    """The radius that orthogonium gives to class 0 of a network with an orthogonal last layer."""
    from orthogonium.losses import VRA

    with on_the_processor():
        return float(VRA(logits, torch.tensor([0]), "global", L=1.0, return_certs=True))


# --- layers ---------------------------------------------------------------------------------------------------


def series(weight: Tensor, terms: int) -> Callable[[Tensor], Tensor]:
    """The exponential of a circular convolution as published: a sum with so many powers."""

    def layer(features: Tensor) -> Tensor:
        total = power = features
        for i in range(1, terms + 1):
            padded = nn.functional.pad(power, (1, 1, 1, 1), mode="circular")
            power = nn.functional.conv2d(padded, weight) / i
            total = total + power
        return total

    return layer


def taylor(terms: int) -> Iterator[Finding]:
    shape = (2, 8, 8)
    layer = SOCConv2d(2, 2, terms=terms, padding_mode="circular", bias=False).eval()
    with torch.no_grad():  # the skew filter of largest norm: 0.7 times 3, as the published scaling allows
        layer.parametrizations.weight.original.zero_()[0, 1] = 1.0
    skew = layer.weight.detach()
    yield none("torch", "no layer by an exponential of a convolution")
    yield none("deel-torchlip", "no layer by an exponential")
    yield none("orthogonium", "its copy of SOC takes 5 and 12 terms and needs a GPU; see the exponential of 3 terms")
    note = "in training" if terms == 5 else "in the later evaluation; the first had 12, which is sound"
    yield claims("published style", f"SOC with K = {terms}", 1.0, dense(series(skew, terms), shape), note)
    yield ours("SOCConv2d", layer, shape, dense(layer, shape))


def stretched(layer: nn.Module, shape: Shape) -> nn.Module:
    """The layer after 40 steps that make its norm as large as its parametrisation lets it become."""
    size = math.prod(shape)
    eye = torch.eye(size).reshape(size, *shape)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(40):
        loss = -torch.linalg.matrix_norm(layer(eye).flatten(1), 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return layer.eval()


def exponential_of_three() -> Iterator[Finding]:
    from orthogonium.layers.conv.adaptiveSOC import AdaptiveSOCConv2d

    shape = (2, 8, 8)
    yield none("torch")
    yield none("deel-torchlip")
    theirs = AdaptiveSOCConv2d(2, 2, 3, bias=False)
    yield claims("orthogonium", "AdaptiveSOCConv2d, new", 1.08, dense(theirs, shape))
    note = "documented as 1.08-Lipschitz; a skew filter whose channels are rescaled is skew no longer"
    truth = dense(stretched(theirs, shape), shape)
    yield claims("orthogonium", "AdaptiveSOCConv2d, trained to stretch", 1.08, truth, note)
    yield none("published style")
    own = stretched(SOCConv2d(2, 2, terms=3, padding_mode="circular", bias=False), shape)
    yield ours("SOCConv2d with K = 3", own, shape, dense(own, shape))


def householder_wrap() -> Iterator[Finding]:
    from deel import torchlip
    from orthogonium.layers import HouseHolder_Order_2

    half = math.pi / 4  # of the first angle
    below = next(y for n in range(1, 20) if math.atan2(y := math.sin(half) - n * 2.0**-53, math.cos(half)) < half)
    points = torch.tensor([[math.cos(half), math.sin(half) + 2.0**-50], [math.cos(half), below]])[:, :, None, None]

    def stretch(layer: nn.Module) -> float:
        with torch.no_grad():
            first, second = layer(points)
        return float((first - second).norm() / (points[0] - points[1]).norm())

    def angled(layer: nn.Module) -> nn.Module:
        with torch.no_grad():
            for p, angle in zip((layer.theta0, layer.theta1, layer.theta2), (math.pi / 2, 1.0, 1.0), strict=True):
                p.fill_(angle)  # type: ignore[operator]
        return layer.eval()

    yield none("torch")
    order_1 = "order 1 alone, which has no angle to wrap"
    yield claims("deel-torchlip", "HouseHolder", 1.0, stretch(torchlip.HouseHolder(2)), order_1)
    theirs = stretch(angled(HouseHolder_Order_2(2)))
    yield claims("orthogonium", "HouseHolder_Order_2", 1.0, theirs, "as in SOC's code")
    undivided = theirs * math.sqrt(2.0)
    yield claims("published style", "order 2 of SOC's code", 1.0, undivided, "the same without the division by sqrt 2")
    own = angled(Householder2(2))
    around = torch.arange(4001) * (2 * math.pi / 4000)
    ring = torch.stack([around.cos(), around.sin()], 1)[:, :, None, None]
    with torch.no_grad():
        steps = own(ring).diff(dim=0).flatten(1).norm(dim=1) / ring.diff(dim=0).flatten(1).norm(dim=1)
    yield ours("Householder2", own, (2, 1, 1), max(float(steps.max()), stretch(own)))


def zero_filter() -> Iterator[Finding]:
    from deel import torchlip
    from orthogonium.layers import AdaptiveOrthoConv2d
    from orthogonium.layers.conv.AOL import AOLConv2D
    from orthogonium.layers.conv.singular_values import get_conv_sv

    shape, zeros = (2, 6, 6), torch.tensor(0.0)
    layers = {
        ("torch", "spectral_norm"): spectral_norm(nn.Conv2d(2, 2, 3, padding=1)),
        ("deel-torchlip", "SpectralConv2d"): torchlip.SpectralConv2d(2, 2, 3, padding=1),
        ("orthogonium", "AdaptiveOrthoConv2d"): AdaptiveOrthoConv2d(2, 2, 3, padding=1),
        ("orthogonium", "AOLConv2D"): AOLConv2D(2, 2, 3, padding=1),
    }
    for (library, name), layer in layers.items():
        yield claims(library, name, 1.0, dense(planted(layer, zeros, shape), shape))
    dead = conv(torch.zeros(2, 2, 3, 3), padding=1)
    yield claims("orthogonium", "get_conv_sv", float(get_conv_sv(dead, 4, return_stab_rank=False)), 0.0)
    yield none("published style", "divides by zero where it normalises, as torch does")
    own = nn.Sequential(conv(torch.zeros(2, 2, 3, 3), padding=1))
    normalise_spectral(own)
    yield ours("normalise_spectral", own.eval(), shape, dense(own, shape))


# --- certificates ---------------------------------------------------------------------------------------------


def ties() -> Iterator[Finding]:
    logits = torch.tensor([[0.0, 0.0]])
    yield none("torch")
    yield none("deel-torchlip", "no certificates")
    yield claims("orthogonium", "VRA", vra(logits), 0.0, "masks by index; needs a GPU as it is", "radius")
    gaps = torch.where(logits == logits.max(), torch.inf, logits.max() - logits)
    yield claims("published style", "mask by value", float(gaps.min() / math.sqrt(2)), 0.0, "GloRo", "radius")
    yield our_radius(linear(torch.eye(2), torch.zeros(2)).float(), image(0.5, 0.5), 0.0)


def unequal_std() -> Iterator[Finding]:
    std = [0.5, 0.1]
    layer = Normalize([0.0, 0.0], std).double().eval()
    truth = dense(layer, (2, 3, 3))
    yield none("torch")
    yield none("deel-torchlip", "leaves the input's scale to its user")
    yield none("orthogonium", "VRA takes the constant from its user")
    yield claims("published style", "1 / max(std)", 1 / max(std), truth, "SOC, where all deviations are equal")
    yield ours("Normalize", layer, (2, 3, 3), truth)


def half_mask() -> Iterator[Finding]:
    """Logits 3 and 1 of class 0 with an identity before them: the radius is 2 over the root of 2."""
    logits, truth = torch.tensor([[3.0, 1.0]]).half(), math.sqrt(2.0)
    yield none("torch")
    yield none("deel-torchlip", "no certificates")
    yield claims("orthogonium", "VRA", vra(logits), truth, "1e6 is a Python number there: zeros stay zeros", "radius")
    million = torch.tensor(1e6).half()
    rivals = (logits - torch.tensor([[1.0, 0.0]]).half() * million).amax(1)
    note = "0 times infinity, where 1e6 is a tensor of half precision too; SOC has a Python number, and is sound"
    claim = float((3.0 - rivals) / math.sqrt(2))
    yield claims("published style", "1e6 times the mask", claim, truth, note, "radius")
    yield our_radius(linear(torch.eye(2), torch.zeros(2)).half(), image(1.0, 0.0), truth)


def bfloat16() -> Iterator[Finding]:
    """Logits 128 + x: bfloat16 has no number between 128 and 129, and calls a lead of 0.51 a lead of 1."""
    model = linear(torch.eye(2), torch.full((2,), 128.0)).bfloat16()
    with torch.no_grad():
        logits = model(image(0.51, 0.0).images.bfloat16())
        moved = image(0.49, 0.52).images
        assert int(model(moved.bfloat16()).argmax()) == 1
    truth = float((moved - image(0.51, 0.0).images).norm())  # another class at this distance, in bfloat16 too
    yield none("torch")
    yield none("deel-torchlip", "no certificates")
    yield claims("orthogonium", "VRA", vra(logits), truth, "silent about precision", "radius")
    gap = float(logits[0, 0] - logits[0, 1]) / math.sqrt(2)
    yield claims("published style", "gap over sqrt 2 in bfloat16", gap, truth, "in no paper known to us", "radius")
    yield our_radius(model, image(0.51, 0.0), truth)


# --- what a layer does beyond its weights ---------------------------------------------------------------------


class SelfAttention(nn.Module):
    """Each value attends to all of them."""

    def forward(self, values: Tensor) -> Tensor:
        """Shape (B, N) to the same shape."""
        scores = values[:, :, None] * values[:, None, :]
        return (scores.softmax(-1) @ values[:, :, None]).squeeze(-1)


def in_a_network(layer: nn.Module, shape: Shape, truth: float, train: bool = False) -> Iterator[Finding]:
    """A layer of no known bound in a network that is otherwise bounded."""
    from deel import torchlip

    yield none("torch")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torchlip.Sequential(layer, nn.Flatten())
    warned = any("not a Lipschitz layer" in str(w.message) for w in said)
    yield Finding("", "deel-torchlip", "Sequential", "warns" if warned else "false certificate", None, truth)
    yield none("orthogonium", "bounds no models; VRA sees logits alone")
    if train:
        yield none("published style", "evaluates in eval mode")
    else:
        yield claims("published style", "1.0 for unknown layers", 1.0, truth, "GloRo, with a printed warning")
    yield ours("model_bound", nn.Sequential(layer).train(train), shape, truth)


def train_mode() -> Iterator[Finding]:
    yield none("torch")
    yield none("deel-torchlip", "no certificates")
    yield none("orthogonium", "bounds no models; VRA sees logits alone")
    yield none("published style", "evaluates in eval mode")
    yield our_radius(linear(torch.eye(2), torch.zeros(2)).float().train(), image(0.5, 0.2), 0.3 / math.sqrt(2))


def dropout() -> Iterator[Finding]:
    layer = nn.Dropout(0.5).train()
    answers = torch.stack([layer(torch.ones(8)) for _ in range(8)])
    assert bool((answers != answers[0]).any())  # the input did not move
    yield from in_a_network(layer, (8,), math.inf, train=True)


def attention() -> Iterator[Finding]:
    at = torch.tensor([0.0, 30.0, -30.0])
    jacobian = torch.autograd.functional.jacobian(lambda v: SelfAttention()(v[None])[0], at)
    yield from in_a_network(SelfAttention().eval(), (3,), float(torch.linalg.svdvals(jacobian)[0]))


def batch_norm_train() -> Iterator[Finding]:
    layer = nn.BatchNorm2d(1).train()
    before, after = (layer(torch.tensor([0.5, other]).reshape(2, 1, 1, 1))[0] for other in (0.6, 0.4))
    assert float((before - after).detach().abs()) > 1.0  # the first image did not move
    yield from in_a_network(layer, (1, 1, 1), math.inf, train=True)


def batch_norm_eval() -> Iterator[Finding]:
    layer = nn.BatchNorm2d(1).eval()
    layer.running_var.fill_(0.04)  # type: ignore[union-attr, operator]
    yield from in_a_network(layer, (1, 2, 2), dense(layer, (1, 2, 2)))


TRAPS: dict[str, Callable[[], Iterator[Finding]]] = {
    "kernel [5, -5], orthogonal to ones": norms.power_start,
    "grouped convolution": norms.grouped,
    "constant kernel": norms.constant_kernel,
    "FFT grid of the kernel's size": norms.kernel_grid,
    "kernel [1, -1]": norms.difference,
    "padding by reflection": norms.reflection,
    "exponential, K = 5": lambda: taylor(5),
    "exponential, K = 14": lambda: taylor(14),
    "exponential, K = 3, weights trained to stretch": exponential_of_three,
    "angle just below zero": householder_wrap,
    "filters of zeros": zero_filter,
    "tied logits": ties,
    "unequal deviations of channels": unequal_std,
    "mask of 1e6 in half precision": half_mask,
    "logits in bfloat16": bfloat16,
    "model in train mode": train_mode,
    "dropout in train mode": dropout,
    "attention": attention,
    "batch norm in train mode": batch_norm_train,
    "batch norm in eval mode": batch_norm_eval,
}


def measured() -> list[dict[str, Any]]:
    """All findings; the generator starts anew for each trap, so that none depends on another."""
    rows = []
    for trap, told in TRAPS.items():
        torch.manual_seed(SEED)
        rows += [plain(asdict(replace(finding, trap=trap))) for finding in told()]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", type=Path, help="print the table of such a file, and measure nothing")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.render:
        print(markdown(json.loads(options.render.read_text())["rows"]))
        return
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    rows = measured()
    print(markdown(rows))
    if options.out:
        packages = ("deel-torchlip", "orthogonium", "einops")
        versions = {name: importlib.metadata.version(name) for name in packages}
        found = {"setting": {"seed": SEED}, "environment": environment() | versions, "rows": rows}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
