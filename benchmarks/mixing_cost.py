"""Forward time of mixes against the sum of their bases: python benchmarks/mixing_cost.py NETWORK_RUN --out FILE."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import hauberk
from hauberk.defences import MixedClassifier
from hauberk.defences.activations import activations_of
from hauberk.defences.mixed_nuts import MixedNuts
from hauberk.runs import environment
from hauberk.verbs import mix as mixing

TRIALS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network")
    parser.add_argument("--tile", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    subject = hauberk.subject(options.network)
    accurate, robust = (s.model for s in mixing.bases(subject))
    images = hauberk.evaluation_batch(subject.dataset, "val", options.tile).images
    network = subject.model
    own, other = (
        activations_of(base, taps, images)[1]
        for base, taps in ((accurate, network.accurate_taps), (robust, network.robust_taps))
    )
    pairs = list(zip(own, other, strict=True))
    works: dict[str, Callable[[], Tensor]] = {
        "accurate": lambda: accurate(images),
        "robust": lambda: robust(images),
        "mixing network alone": lambda: network.mixing(*pairs),
        "one weight": lambda one=MixedClassifier(accurate, robust, 0.9, 1.0, 1.0).eval(): one(images),
        "MixedNUTS": lambda bent=MixedNuts(accurate, robust, 0.9, 2.0, -0.5, 4.0, 250, 0.85).eval(): bent(images),
        "adaptive": lambda: network(images),
    }
    best = dict.fromkeys(works, float("inf"))
    with torch.no_grad():
        for _ in range(TRIALS):  # in turn, so that a busy moment of the machine meets all of them
            for name, work in works.items():
                started = time.perf_counter()
                work()
                best[name] = min(best[name], time.perf_counter() - started)
    bases = best["accurate"] + best["robust"]
    ratios = {
        "one weight / bases": best["one weight"] / bases,
        "MixedNUTS / bases": best["MixedNUTS"] / bases,
        "adaptive / (bases + network)": best["adaptive"] / (bases + best["mixing network alone"]),
    }
    found = {
        "milliseconds an image": {name: round(1e3 * t / options.tile, 4) for name, t in best.items()},
        "ratios": {name: round(r, 3) for name, r in ratios.items()},
        "tile": options.tile, "threads": options.threads, "environment": environment(),
    }  # fmt: skip
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found["ratios"]), found["milliseconds an image"])


if __name__ == "__main__":
    main()
