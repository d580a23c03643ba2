"""Ill-conditioned nets: neither the deployed model nor the frozen one changes its class just inside a radius.

``HAUBERK_SEARCH=2000 pytest`` on this file looks at as many nets.
"""

from __future__ import annotations

import math
import os

import pytest
import torch
from torch import Tensor, nn

from hauberk.batch import Batch
from hauberk.certificates import LipschitzCertificate, freeze
from hauberk.errors import HauberkError
from hauberk.layers import (
    AffineResidual,
    AOLConv2d,
    AOLLinear,
    BatchCentring,
    BCOPConv2d,
    BjorckLinear,
    BROConv2d,
    BROLinear,
    CayleyConv2d,
    CayleyLinear,
    ConvexResidual,
    CPLConv2d,
    CPLLinear,
    Householder1,
    Householder2,
    HouseholderActivation,
    L2NormPool2d,
    LinearSpline,
    LiResConv2d,
    LOTConv2d,
    MaxMin,
    NActivation,
    SandwichConv2d,
    SandwichLinear,
    SLLConv2d,
    SLLLinear,
    SOCConv2d,
    UnitRowLinear,
)

SEARCH = int(os.environ.get("HAUBERK_SEARCH", "40"))
VECTOR = [
    lambda: BROLinear(8, 8, rank=8), lambda: BROLinear(8, 8), lambda: BjorckLinear(8, 8), lambda: CayleyLinear(8, 8),
    lambda: AOLLinear(8, 8), lambda: CPLLinear(8), lambda: SLLLinear(8), lambda: SandwichLinear(8, 8),
    lambda: HouseholderActivation(8), lambda: Householder1(8), lambda: Householder2(8), lambda: LinearSpline(8),
    lambda: NActivation(8), lambda: nn.BatchNorm1d(8), lambda: BatchCentring(8), lambda: UnitRowLinear(8, 8),
    lambda: ConvexResidual(nn.Sequential(BjorckLinear(8, 8), MaxMin())), lambda: AffineResidual(BjorckLinear(8, 8)),
    lambda: nn.Linear(8, 8),
]  # fmt: skip
IMAGE = [
    lambda: BROConv2d(4, 4, 3), lambda: BROConv2d(4, 4, 3, rank=4), lambda: CayleyConv2d(4, 4, 3, 4),
    lambda: LOTConv2d(4, 4, 3, 4), lambda: SOCConv2d(4, 4), lambda: AOLConv2d(4, 4, 3, padding=1),
    lambda: BCOPConv2d(4, 4, 3, padding=1), lambda: CPLConv2d(4), lambda: SLLConv2d(4),
    lambda: SandwichConv2d(4, 4, 3), lambda: LiResConv2d(4), lambda: nn.BatchNorm2d(4), lambda: L2NormPool2d(1),
    lambda: nn.Conv2d(4, 4, 3, padding=1),
]  # fmt: skip
# for tensors by what their name says, else for any: from (values, random numbers of their shape, a random exponent)
SETTINGS = {
    "running_var": [lambda t, r, e: 10.0 ** (4.0 * r.clamp(-1, 1) - 1.0)],
    "running_mean": [lambda t, r, e: r, lambda t, r, e: 1e5 + r, lambda t, r, e: r * 1e6],
    "log": [lambda t, r, e: 0.1 * r, lambda t, r, e: 5.0 * r, lambda t, r, e: 30.0 * r],
    "angle": [lambda t, r, e: r, lambda t, r, e: 1e4 * r],
    "theta": [lambda t, r, e: r, lambda t, r, e: 10.0 * r],
    "": [
        lambda t, r, e: r,
        lambda t, r, e: t * 10.0 ** (38.0 * e - 30.0),  # from 1e-30 to 1e8
        lambda t, r, e: t[:1] + r * 10.0 ** (-7.0 * e - 2.0),  # nearly parallel rows
        lambda t, r, e: t * 10.0 ** (-30.0 * e * (r[..., :1] > 0)),  # some rows tiny
        lambda t, r, e: t * (torch.arange(len(t)).reshape(-1, *[1] * (t.dim() - 1)) > 0),  # a row of zeros
        lambda t, r, e: r * 1e-40,  # subnormal
        lambda t, r, e: t + 0.3 * r,
        lambda t, r, e: t * 1e20 if t.dim() == 1 else t * 1e10,
    ],
}


@torch.no_grad()
def spoil(layer: nn.Module, generator: torch.Generator) -> None:
    """Set each parameter and buffer in one of the bad ways."""
    for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]:
        if not tensor.is_floating_point() or tensor.dim() == 0 or "identity" in name:
            continue
        ways = next(ways for key, ways in SETTINGS.items() if key in name)
        way = ways[int(torch.randint(len(ways), (1,), generator=generator))]
        exponent = float(torch.rand(1, generator=generator))
        tensor.copy_(way(tensor.clone(), torch.randn(tensor.shape, generator=generator), exponent))


def net_of(seed: int) -> tuple[nn.Sequential, tuple[int, ...]]:
    """Up to three random layers, some of them spoilt, and a last one whose classes are nearly level."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    known, shape, width = (VECTOR, (1, 2, 4), 8) if seed % 2 else (IMAGE, (4, 4, 4), 64)
    chosen = torch.randint(len(known), (1 + seed % 3,), generator=generator).tolist()
    layers = [known[i]() for i in chosen]
    for layer in layers:
        if float(torch.rand(1, generator=generator)) < 0.7:
            spoil(layer, generator)
    classes = (2, 3, 10)[seed % 7 % 3]
    head = UnitRowLinear(width, classes) if seed % 5 == 0 else nn.Linear(width, classes)
    if seed % 4 == 0:
        spoil(head, generator)
    net = nn.Sequential(*([nn.Flatten(), *layers] if seed % 2 else [*layers, nn.Flatten()]), head).eval()
    with torch.no_grad():
        middle = net(torch.full((1, *shape), 0.5))[0]
        if bool(middle.isfinite().all()) and seed % 3:
            head.bias.sub_(middle)
    return net, shape


def flipped(model: nn.Module, dtype: torch.dtype, images: Tensor, classes: Tensor, radii: Tensor) -> Tensor:
    """Which rows change their class somewhere within the radius, on lines along gradients of gaps."""
    found, start = torch.zeros(len(images), dtype=torch.bool), images.double()
    for step in range(4):
        leaf = start.to(dtype).requires_grad_(True)
        logits = model(leaf)
        rivals = logits.scatter(1, classes[:, None], -math.inf)
        rival = rivals.argmax(1) if step < 2 else rivals.topk(2, 1).indices[:, -1]
        gaps = logits.gather(1, classes[:, None]) - logits.gather(1, rival[:, None])
        slope = torch.autograd.grad(gaps.sum(), leaf)[0].double().flatten(1).nan_to_num()
        slope = slope / slope.abs().amax(1, keepdim=True).clamp_min(1e-300)
        slope = slope / slope.norm(dim=1, keepdim=True).clamp_min(1e-300)
        for share in (0.5, 0.9, 0.99, 0.999, 0.9995):
            moved = (images.double() - (share * radii[:, None] * slope).reshape(images.shape)).to(dtype)
            inside = (moved.double() - images.double()).flatten(1).norm(dim=1) < radii
            with torch.no_grad():
                logits = model(moved)
            found |= inside & (torch.where(logits.isfinite().all(1), logits.argmax(1), -1) != classes)
        start = images.double() - (0.7 * radii[:, None] * slope).reshape(images.shape)
    return found


@pytest.mark.parametrize("part", range(4))
def test_no_flip_inside_the_radius_of_an_ill_conditioned_net(part: int) -> None:
    certified = 0
    for seed in range(part, SEARCH, 4):
        net, shape = net_of(seed)
        images = torch.rand(12, *shape, generator=torch.Generator().manual_seed(seed))
        try:
            found = LipschitzCertificate()(net, Batch(images, torch.zeros(12).long(), torch.arange(12)))
        except HauberkError:  # NaN weights
            continue
        rows = (found.prediction >= 0) & (found.radius > 0)
        if not bool(rows.any()):
            continue
        certified += 1
        given = images[rows], found.prediction[rows], found.radius[rows].clamp_max(1e4)
        assert not bool(flipped(net, torch.float32, *given).any()), f"deployed, seed {seed}"
        assert not bool(flipped(freeze(net, shape), torch.float64, *given).any()), f"frozen, seed {seed}"
    assert certified >= SEARCH // 8
