"""Speed of Lipschitz layers, norms and certificates, against plain convolutions, orthogonium 0.0.4 and power iteration.

    pip install --no-deps orthogonium==0.0.4 einops==0.8.2      # the peer; without it its columns stay empty
    python benchmarks/lipschitz_speed.py --out results/lipschitz_speed.json

One thread; layers take turns and the median of many rounds counts.  Times are processor seconds of the process, so
that neighbours on the machine disturb little.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hauberk.certificates import FrozenLipschitz
from hauberk.evaluation.lipschitz_report import lipschitz_report
from hauberk.layers import AOLConv2d, BCOPConv2d, SOCConv2d, gram_bound, power_iteration
from hauberk.layers.norms import conv_norm
from hauberk.models import lip_convnet, lip_convnet_n
from hauberk.runs import environment

SHAPES = ((16, 64, 16), (64, 32, 32), (16, 128, 8))  # images, channels, side
CIFAR = ((3, 32, 32), 10, (0.5,) * 3, (0.25,) * 3)


def in_turn(jobs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median processor seconds of each job."""
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds + 1):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            found[name].append(time.process_time() - start)
    return {name: statistics.median(values[1:]) for name, values in found.items()}


def step(layer: nn.Module, images: torch.Tensor) -> Callable[[], None]:
    """Forward and backward, with the gradient of the input."""
    leaf = images.clone().requires_grad_(True)

    def run() -> None:
        layer.zero_grad(set_to_none=True)
        leaf.grad = None
        layer(leaf).square().sum().backward()

    return run


def peers(channels: int) -> dict[str, nn.Module]:
    """The layers of orthogonium, if it is installed."""
    try:
        from orthogonium.layers.conv.adaptiveSOC import AdaptiveSOCConv2d
        from orthogonium.layers.conv.AOC import AdaptiveOrthoConv2d
        from orthogonium.layers.conv.AOL.aol import AOLConv2D
    except ImportError:
        return {}
    settings: dict[str, Any] = {"padding": 1, "padding_mode": "zeros"}
    circular: dict[str, Any] = {"padding": 1, "padding_mode": "circular"}
    return {
        "orthogonium AOL": AOLConv2D(channels, channels, 3, **settings),
        "orthogonium AOC": AdaptiveOrthoConv2d(channels, channels, 3, **circular),
        "orthogonium AdaptiveSOC": AdaptiveSOCConv2d(channels, channels, 3, **circular),
    }


def layers(rounds: int) -> list[dict[str, Any]]:
    """Forward and backward of each layer on each shape, and its ratio to the plain convolution of the same padding."""
    found = []
    for batch, channels, side in SHAPES:
        torch.manual_seed(0)
        images = torch.randn(batch, channels, side, side)
        made: dict[str, nn.Module] = {
            "plain zeros": nn.Conv2d(channels, channels, 3, padding=1),
            "plain circular": nn.Conv2d(channels, channels, 3, padding=1, padding_mode="circular"),
            "SOC 4": SOCConv2d(channels, channels, 3),
            "SOC 4 circular": SOCConv2d(channels, channels, 3, padding_mode="circular"),
            "SOC 5, published": SOCConv2d(channels, channels, 3, terms=5),
            "AOL": AOLConv2d(channels, channels, 3, padding=1),
            "BCOP circular": BCOPConv2d(channels, channels, 3, padding=1, padding_mode="circular"),
            **peers(channels),
        }
        seconds = in_turn({name: step(layer, images) for name, layer in made.items()}, rounds)
        found.append({"batch": batch, "channels": channels, "side": side, "seconds": seconds})
        print(found[-1], flush=True)
    return found


def norms(rounds: int) -> dict[str, Any]:
    """Norm of a 64-channel convolution of 32x32 maps: all singular values, Gram iteration, 500 power steps."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 64, 3, 3, generator=generator)
    padding = ((1, 1), (1, 1))
    grid = torch.fft.rfft2(weight.double(), s=(33, 33)).permute(2, 3, 0, 1).flatten(0, 1)
    jobs = {
        "singular values": lambda: conv_norm(weight, (32, 32), padding=padding).value,
        "Gram iteration": lambda: float(gram_bound(grid).max()),
        "500 power steps": lambda: power_iteration(weight, (32, 32), 500, 1, torch.Generator().manual_seed(0)),
    }
    values = {name: job() for name, job in jobs.items()}
    return {"seconds": in_turn(jobs, rounds), "values": values}


def certify(rounds: int, images: int) -> dict[str, Any]:
    """Certify images with a frozen bound, against the forward pass of the same exported net in the same dtype."""
    torch.manual_seed(0)
    net = lip_convnet(*CIFAR, widths=(24, 48, 96), depth=1).eval()
    frozen, batch = FrozenLipschitz(net, CIFAR[0]), torch.rand(images, 3, 32, 32)

    def forward() -> None:
        with torch.no_grad():
            for part in torch.split(batch, 64):
                frozen.model(part.double())

    return {"images": images, "seconds": in_turn({"forward": forward, "certify": lambda: frozen(batch)}, rounds)}


def report() -> dict[str, Any]:
    """The whole Lipschitz report of LipConvnet-20, wall seconds with all cores, and the memory it took."""
    torch.manual_seed(0)
    net = copy.deepcopy(lip_convnet_n(*CIFAR, layers=20)).eval()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = lipschitz_report(net, torch.rand(4, 3, 32, 32))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"wall_seconds": found.seconds, "bound": found.bound, "reached": found.reached,
            "peak_gib": peak / 2**20, "gib_before": before / 2**20, "threads": torch.get_num_threads()}  # fmt: skip


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/lipschitz_speed.json"))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--only", choices=["layers", "norms", "certify", "report"], help="measure this part again")
    options = parser.parse_args()
    found: dict[str, Any] = json.loads(options.out.read_text()) if options.only else {}
    if options.only in (None, "report"):
        found["report"] = report()  # before anything else has raised the peak of memory
    torch.set_num_threads(1)
    jobs: dict[str, Callable[[], Any]] = {
        "layers": lambda: layers(options.rounds),
        "norms": lambda: norms(options.rounds),
        "certify": lambda: certify(5, options.images),
    }
    found |= {name: job() for name, job in jobs.items() if options.only in (None, name)}
    found["environment"] = environment()
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    for name in ("norms", "certify", "report"):
        print(name, found[name])


if __name__ == "__main__":
    main()
