"""Traps in the norms of convolutions, see ``lipschitz_traps.py``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from hauberk.layers.spectral import normalise_spectral
from lipschitz_traps_judge import Finding, claims, conv, dense, none, ours, planted


def power_start() -> Iterator[Finding]:
    from deel import torchlip
    from orthogonium.layers import AdaptiveOrthoConv2d
    from orthogonium.layers.conv.singular_values import get_conv_sv

    weight, shape = torch.tensor([5.0, -5.0]).reshape(1, 2, 1, 1), (2, 4, 4)
    layer = conv(weight)
    yield claims("torch", "spectral_norm", 1.0, dense(planted(spectral_norm(nn.Conv2d(2, 1, 1)), weight, shape), shape),
                 "starts from random numbers; a kernel of one tap is a matrix")  # fmt: skip
    yield claims("deel-torchlip", "SpectralConv2d", 1.0,
                 dense(planted(torchlip.SpectralConv2d(2, 1, 1), weight, shape), shape))  # fmt: skip
    theirs = planted(AdaptiveOrthoConv2d(2, 1, 1), weight, shape)
    yield claims("orthogonium", "AdaptiveOrthoConv2d", 1.0, dense(theirs, shape))
    yield claims("orthogonium", "get_conv_sv", float(get_conv_sv(theirs, 4, return_stab_rank=False)),
                 dense(theirs, shape))  # fmt: skip
    start = torch.ones(1, *shape)
    with torch.no_grad():
        for _ in range(500):
            start = nn.functional.normalize(nn.functional.conv_transpose2d(layer(start), weight), dim=(1, 2, 3))
        reached = float(layer(start).norm())
    yield claims(
        "published style",
        "500 power steps from ones",
        reached,
        dense(layer, shape),
        "LiResNet and BRONet, which carry the iteration on from training",
    )
    yield ours("model_bound", layer, shape, dense(layer, shape))


def grouped() -> Iterator[Finding]:
    from deel import torchlip
    from orthogonium.layers.conv.AOL import AOLConv2D
    from orthogonium.layers.conv.singular_values import get_conv_sv

    shape = (4, 6, 6)
    weight = torch.randn(4, 2, 3, 3)
    settings: dict[str, Any] = {"padding": 1, "groups": 2}
    yield none("torch", "the norm of the reshaped kernel is not that of the convolution; see the constant kernel",
               dense(planted(spectral_norm(nn.Conv2d(4, 4, 3, **settings)), weight, shape), shape))  # fmt: skip
    yield claims("deel-torchlip", "SpectralConv2d", 1.0,
                 dense(planted(torchlip.SpectralConv2d(4, 4, 3, **settings), weight, shape), shape),
                 "documented for one group, works with more")  # fmt: skip
    theirs = planted(AOLConv2D(4, 4, 3, **settings), weight, shape)
    yield claims("orthogonium", "AOLConv2D", 1.0, dense(theirs, shape))
    yield claims("orthogonium", "get_conv_sv", float(get_conv_sv(theirs, 5, return_stab_rank=False)),
                 dense(theirs, shape), "multiplies the groups' norms")  # fmt: skip
    plain = conv(theirs.weight.detach(), **settings)
    yield none("published style")
    yield ours("model_bound", plain, shape, dense(plain, shape))


def constant_kernel() -> Iterator[Finding]:
    from deel import torchlip
    from orthogonium.layers import AdaptiveOrthoConv2d
    from orthogonium.layers.conv.AOL import AOLConv2D

    weight, shape = torch.ones(1, 1, 3, 3), (1, 8, 8)
    settings: dict[str, Any] = {"padding": 1, "padding_mode": "circular"}
    reshaped = dense(planted(spectral_norm(nn.Conv2d(1, 1, 3, **settings)), weight, shape), shape)
    yield none("torch", "documented: the kernel reshaped to a matrix has norm 1, approximately; that holds", reshaped)
    yield claims("deel-torchlip", "SpectralConv2d", 1.0,
                 dense(planted(torchlip.SpectralConv2d(1, 1, 3, **settings), weight, shape), shape))  # fmt: skip
    yield claims("orthogonium", "AOLConv2D", 1.0, dense(planted(AOLConv2D(1, 1, 3, **settings), weight, shape), shape))
    both = AdaptiveOrthoConv2d(2, 2, 3, padding_mode="circular")
    free = torch.ones_like(both.parametrizations.weight.original)
    yield claims("orthogonium", "AdaptiveOrthoConv2d", 1.0, dense(planted(both, free, (2, 8, 8)), (2, 8, 8)))
    yield claims("published style", "spectral_norm as a Lipschitz constant", 1.0, reshaped)
    layer = nn.Sequential(conv(weight, **settings)).eval()
    yield ours("model_bound", layer, shape, dense(layer, shape))
    normalise_spectral(layer)
    yield claims("hauberk", "normalise_spectral", 1.0, dense(layer, shape))


def kernel_grid() -> Iterator[Finding]:
    from orthogonium.layers.conv.singular_values import get_conv_sv

    shape = (1, 8, 8)
    found = []
    for _ in range(60):
        layer = conv(torch.randn(1, 1, 3, 3), padding=1, padding_mode="circular")
        own = float(torch.fft.fft2(layer.weight.detach()).abs().max())
        theirs = float(get_conv_sv(layer, 6, return_stab_rank=False))
        sized = float(get_conv_sv(layer, 6, return_stab_rank=False, imsize=8))
        found.append((dense(layer, shape), theirs, sized, own, layer))
    yield none("torch")
    yield none("deel-torchlip")
    truth, claim, *_ = max(found, key=lambda f: f[0] / f[1])
    yield claims("orthogonium", "get_conv_sv", claim, truth,
                 "imsize is documented as required for circular padding, and not asked for")  # fmt: skip
    truth, _, claim, *_ = max(found, key=lambda f: f[0] / f[2])
    yield claims("orthogonium", "get_conv_sv with imsize", claim, truth)
    truth, _, _, claim, _ = max(found, key=lambda f: f[0] / f[3])
    yield claims("published style", "FFT on the kernel's grid", claim, truth, "default of the Gram iteration of 2023")
    bounds = [(ours("model_bound", f[4], shape, f[0]).claim or math.nan, f[0]) for f in found]
    yield claims("hauberk", "model_bound", *max(bounds, key=lambda b: b[1] / b[0]))


def difference() -> Iterator[Finding]:
    from orthogonium.layers.conv.singular_values import get_conv_sv

    weight, shape = torch.tensor([[1.0, -1.0], [0.0, 0.0]]).reshape(1, 1, 2, 2), (1, 8, 8)
    layer = conv(weight, padding="same", padding_mode="circular")
    yield none("torch")
    yield none("deel-torchlip")
    for name, size in (("get_conv_sv", None), ("get_conv_sv with imsize", 8)):
        yield claims("orthogonium", name, float(get_conv_sv(layer, 4, return_stab_rank=False, imsize=size)),
                     dense(layer, shape), "documented as possibly too low for even kernels")  # fmt: skip
    values = torch.fft.fft2(weight).flatten()
    grown = (values / values.abs()).abs() * values.abs().log().exp()
    yield claims("published style", "Gram iteration on the kernel's grid", float(grown.max()), dense(layer, shape))
    yield ours("model_bound", layer, shape, dense(layer, shape))


def reflection() -> Iterator[Finding]:
    from deel import torchlip
    from orthogonium.layers.conv.AOL import AOLConv2D

    weight, shape = torch.ones(1, 1, 3, 3), (1, 4, 4)
    settings: dict[str, Any] = {"padding": 1, "padding_mode": "reflect"}
    yield none("torch")
    yield claims("deel-torchlip", "SpectralConv2d", 1.0,
                 dense(planted(torchlip.SpectralConv2d(1, 1, 3, **settings), weight, shape), shape),
                 "reflect is a documented padding mode")  # fmt: skip
    yield claims("orthogonium", "AOLConv2D", 1.0, dense(planted(AOLConv2D(1, 1, 3, **settings), weight, shape), shape),
                 "takes the padding modes of nn.Conv2d; get_conv_sv refuses this one")  # fmt: skip
    yield none("published style")
    layer = conv(weight / 9, **settings)
    yield ours("model_bound", layer, shape, dense(layer, shape))
