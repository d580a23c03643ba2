"""What hybrid convolutions cost beside the plain ones that they replace: numbers, products, a forward pass, a step.

    python benchmarks/hycas_cost.py --out results/hycas_cost.json

One thread, float32, one backbone of four convolutions on batches of 128 grey images of 28 x 28 pixels.  The networks
take turns; times are processor seconds, each over that of the plain network in the same round, as medians of rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hauberk.layers.kept import kept_weights
from hauberk.models import small_cnn
from hauberk.models.hycas_net import hycas_net
from hauberk.runs import environment

TASK = ((1, 28, 28), 10, (0.5,), (0.25,))
WIDTHS, STRIDES, BATCH = (16, 32, 32, 64), (1, 2, 1, 2), 128


def networks() -> dict[str, nn.Module]:
    """The plain backbone first, then the same with hybrid convolutions."""
    settings: dict[str, dict[str, Any]] = {
        "hycas, a mask value a channel": {},
        "hycas, a mask value an element": {"granularity": "element"},
        "hycas, filters of each draw": {"filters": "draw"},
        "hycas, no masks": {"noise": None},
        "one stream, no masks": {"noise": None, "streams": ["sncan"]},
    }
    made = {"plain": small_cnn(*TASK, widths=WIDTHS, strides=STRIDES)}
    for name, more in settings.items():
        made[name] = hycas_net(*TASK, widths=WIDTHS, strides=STRIDES, **more)
    return made


def products(net: nn.Module, images: torch.Tensor) -> int:
    """Floating-point operations of a forward pass, as torch counts them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(images)
    return int(counter.get_total_flops())


def main() -> None:
    """Measure, and write one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(BATCH, *TASK[0], generator=generator)
    labels = torch.randint(0, TASK[1], (BATCH,), generator=generator)
    nets = networks()
    optimisers = {name: torch.optim.SGD(net.parameters(), 0.01) for name, net in nets.items()}

    def forward(name: str) -> float:
        start = time.process_time()
        with torch.no_grad():
            nets[name].eval()(images)
        return time.process_time() - start

    def vote(name: str) -> float:
        """A forward pass as in votes and attacks, which normalise the kernels once a tile."""
        with torch.no_grad(), kept_weights(nets[name].eval()):
            nets[name](images)
            return forward(name)

    def step(name: str) -> float:
        start = time.process_time()
        optimisers[name].zero_grad()
        nn.functional.cross_entropy(nets[name].train()(images), labels).backward()
        optimisers[name].step()
        return time.process_time() - start

    ratios: dict[str, dict[str, list[float]]] = {name: {"forward": [], "vote": [], "step": []} for name in nets}
    for number in range(given.rounds + 1):
        times = {name: {"forward": forward(name), "vote": vote(name), "step": step(name)} for name in nets}
        for name, kinds in times.items() if number else ():  # the first round warms up
            for kind, seconds in kinds.items():
                ratios[name][kind].append(seconds / times["plain"][kind])
    found = {}
    for name, net in nets.items():
        one, two = (products(net, images[:rows]) for rows in (1, 2))
        found[name] = {
            "parameters": sum(p.numel() for p in net.parameters()),
            "fixed_numbers": sum(b.numel() for n, b in net.named_buffers() if n.endswith("weight")),
            "flops_an_image": two - one,
            "flops_a_call": 2 * one - two,  # what normalises the kernels, however many images there are
            **{kind: round(statistics.median(values), 3) for kind, values in ratios[name].items()},
        }
    rows = {"rounds": given.rounds, "batch": BATCH, "widths": WIDTHS, "strides": STRIDES, "networks": found}
    given.out.write_text(json.dumps({"environment": environment(), **rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
