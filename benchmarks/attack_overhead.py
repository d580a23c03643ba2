"""What an attack and a vote cost beside the model's own passes, on one thread.

For each net and norm an attack walks on images of which none falls, and the same numbers of forward and backward
passes are made by a bare loop over the same tile.  Both are timed by the processor time of the process and take turns,
so that the load of the machine cancels; a line is the median of the ratios of the rounds.  Timed is the search alone:
the checks before it and the judgement after it are a few passes, once a call.

    python benchmarks/attack_overhead.py [--rounds 5] [--net plain] [--only fab,l1] [--output results]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from hauberk.attacks import APGD, FAB, Attack, Square
from hauberk.attacks.query import Query
from hauberk.batch import Batch
from hauberk.classifier import Normalize, channels_last, frozen, prefers_channels_last
from hauberk.defences.smoothed import noisy_votes
from hauberk.models.small_cnn import small_cnn
from hauberk.noises import Gaussian
from hauberk.randomness import PerSample
from hauberk.runs import environment
from hauberk.threats import L1, L2, Linf, Threat

ROWS, CLASSES = 64, 10
COLOURS = (0.5,) * 3, (0.25,) * 3
THREATS: tuple[Threat, ...] = (Linf(1e-6), L2(1e-5), L1(1e-4))  # so small that no image falls


def plain_cnn() -> nn.Module:
    """Two strided convolutions and three dense layers: the size of net that people check on a laptop."""
    return nn.Sequential(
        Normalize(*COLOURS),
        nn.Conv2d(3, 16, 4, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 8 * 8, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, CLASSES),
    )  # fmt: skip


NETS: dict[str, Callable[[], nn.Module]] = {
    "plain": plain_cnn,
    "small_cnn": lambda: small_cnn((3, 32, 32), CLASSES, *COLOURS),
}


@dataclass(frozen=True)
class Line:
    """One thing measured: the work, and the bare passes that it holds."""

    name: str
    work: Callable[[], object]
    forwards: int
    gradients: int
    as_attacks: bool = True  # in the memory layout that attacks use; votes leave the model's own


def self_labelled(model: nn.Module, rows: int = ROWS) -> Batch:
    """Images with pixels at both ends of the box, as photographs have them, each labelled by the model."""
    images = (1.4 * torch.rand(rows, 3, 32, 32) - 0.2).clamp_(0.0, 1.0)
    with torch.no_grad():
        return Batch(images, model(images).argmax(1), torch.arange(rows))


def bare(model: nn.Module, batch: Batch, forwards: int, gradients: int, as_attacks: bool = True) -> None:
    """So many forward passes, and forward passes with a gradient."""
    last = as_attacks and prefers_channels_last(model)
    images = batch.images.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    with frozen(model), channels_last(model) if last else nullcontext():
        with torch.no_grad():
            for _ in range(forwards):
                model(images)
        for _ in range(gradients):
            leaf = images.detach().requires_grad_(True)
            torch.autograd.grad(functional.cross_entropy(model(leaf), batch.labels, reduction="sum"), leaf)


def search(attack: Attack, model: nn.Module, batch: Batch) -> Query:
    """One search as an evaluation makes it."""
    with frozen(model), channels_last(model):
        query = attack.query(model, batch)
        query.value(query.images)
        attack.search(query, PerSample(0, batch.ids, "attack"))
    return query


def attacks(threat: Threat, steps: int) -> dict[str, Attack]:
    """The attacks of AutoAttack in a norm, each as one walk."""
    return {
        "apgd": APGD(threat, steps=steps),
        "apgd_targeted": APGD(threat, loss="dlr", steps=steps, targets=1),
        "fab": FAB(threat, steps=steps, targets=1),
        "square": Square(threat, queries=4 * steps, rescale_schedule=True),
    }


def lines(model: nn.Module, batch: Batch, steps: int, wanted: Sequence[str]) -> list[Line]:
    """All that is measured on one net, of what is wanted."""
    found = []
    for threat in THREATS:
        for name, attack in attacks(threat, steps).items():
            if not set(wanted) <= {name, threat.norm}:
                continue
            query = search(attack, model, batch)
            if bool(query.misclassified.any()):
                raise SystemExit(f"{name} in {threat} broke an image: the passes would not be comparable")
            both, gradients = (round(float(n.double().mean())) for n in (query.forwards, query.backwards))
            work = partial(search, attack, model, batch)
            found.append(Line(f"{name} {threat.norm}", work, both - gradients, gradients))
    tiles, noise = 3 * steps, Gaussian(0.25)
    image, key = batch.images[0], (0, 0, "smoothing-counts")

    def votes() -> Tensor:
        return noisy_votes(model, image, noise, tiles * ROWS, key, ROWS)

    return found if wanted else [*found, Line("votes", votes, tiles, 0, as_attacks=False)]


def clock(work: Callable[[], object]) -> float:
    """Processor seconds."""
    began = time.process_time()
    work()
    return time.process_time() - began


def measure(model: nn.Module, batch: Batch, line: Line, rounds: int) -> dict[str, float | list[float]]:
    """Ratios of paired runs, the first of which is a warming up."""
    pairs = []
    for number in range(rounds + 1):
        sides = {"bare": lambda: bare(model, batch, line.forwards, line.gradients, line.as_attacks), "work": line.work}
        order = ("bare", "work") if number % 2 else ("work", "bare")
        seconds = {side: clock(sides[side]) for side in order}
        pairs.append((seconds["work"], seconds["bare"]))
    ratios = [round(work / passes, 3) for work, passes in pairs[1:]]
    return {
        "ratio": statistics.median(ratios), "ratios": ratios,
        "seconds": round(statistics.median(p[0] for p in pairs[1:]), 3),
        "bare_seconds": round(statistics.median(p[1] for p in pairs[1:]), 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=None, help="50 for the plain net, 6 for small_cnn")
    parser.add_argument("--net", default="", help="of one net alone")
    parser.add_argument("--only", default="", help="of one attack, norm or both alone, for example fab,l1")
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [part for part in options.only.split(",") if part]
    results: dict[str, dict[str, float | list[float]]] = {}
    for net, build in NETS.items():
        if options.net not in ("", net):
            continue
        torch.manual_seed(0)
        model = build().eval()
        batch = self_labelled(model)
        for line in lines(model, batch, options.steps or {"plain": 50}.get(net, 6), wanted):
            name = f"{net} {line.name}"
            results[name] = measure(model, batch, line, options.rounds)
            print(f"{name:32} {results[name]['ratio']:6.2f}  {results[name]['ratios']}", flush=True)
    if options.output is not None:
        setting = {"rows": ROWS, "image": [3, 32, 32], "rounds": options.rounds, "threads": 1}
        path = options.output / "attack_overhead.json"
        before = json.loads(path.read_text())["lines"] if path.exists() else {}  # a part measured again leaves the rest
        options.output.mkdir(parents=True, exist_ok=True)
        result = {"setting": setting, "environment": environment(), "lines": before | results}
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
