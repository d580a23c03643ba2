"""Hauberk's AutoAttack beside the published one (pyautoattack 0.2.0): verdicts image by image, and wall time.

    python benchmarks/autoattack_peer.py reference RUN --threat linf:8/255 --images 1000 --seed 0 --out FILE.json
    python benchmarks/autoattack_peer.py compare FILE.json [FILE.json]     # runs ours on the same images and model
    python benchmarks/autoattack_peer.py speed RUN --threat linf:8/255 --images 128 --out FILE.json

``reference`` keeps every image's verdict; `
and takes a second file of the same model at another seed as the reference's own spread.  ``speed`` alternates both,
with the same threads and precision, each at the best of a few batch sizes.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyautoattack import AutoAttack as Published

import hauberk
from hauberk import api, registry
from hauberk.attacks import AutoAttack
from hauberk.batch import Batch
from hauberk.runs import environment
from hauberk.statistics import wilson

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
BATCHES, TILES = (64, 250), (64, 128)


class Stages(logging.Handler):
    """The reference says how many images each attack left in its log alone."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the lines that say what each attack left."""
        text = record.getMessage()
        if text.startswith(("initial accuracy", "robust accuracy after")) or "WARNING" in text.upper():
            self.lines.append(text)


def published(model: torch.nn.Module, batch: Batch, threat: Any, version: str, seed: int, size: int) -> torch.Tensor:
    """Which images the reference leaves right, (N,) bool."""
    attack = Published(model, norm=NORMS[threat.norm], eps=threat.eps, version=version, seed=seed)
    found, _ = attack.run_standard_evaluation(batch.images, batch.labels, batch_size=size)
    with torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in found.split(250)]) == batch.labels


def reference(options: argparse.Namespace) -> None:
    subject = api.subject(options.run)
    threat = registry.build(options.threat, "threat")
    batch = api.evaluation_batch(subject.dataset, "test", options.images)
    stages, logger = Stages(), logging.getLogger("auto-attack")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(stages)
    started = time.perf_counter()
    right = published(subject.model, batch, threat, "standard", options.seed, options.batch)
    write(options.out, {
        "reference": "pyautoattack 0.2.0",
        "run": Path(options.run).name,
        "weights": subject.run.info["hashes"]["weights"],
        "threat": options.threat,
        "seed": options.seed,
        "batch": options.batch,
        "threads": options.threads,
        "seconds": round(time.perf_counter() - started, 1),
        "log": stages.lines,
        "ids": batch.ids.tolist(),
        "right": right.int().tolist(),
    })  # fmt: skip


def compare(options: argparse.Namespace) -> None:
    """Run ours on what the first file names; say how far the verdicts are apart."""
    first, *others = (json.loads(path.read_text()) for path in options.files)
    subject = api.subject(options.runs / Path(first["run"]).name)
    threat = registry.build(first["threat"], "threat")
    batch = api.evaluation_batch(subject.dataset, "test", len(first["ids"]))
    if subject.run.info["hashes"]["weights"] != first["weights"] or batch.ids.tolist() != first["ids"]:
        raise SystemExit(f"{first['run']} has other weights or images than {options.files[0]}")
    started = time.perf_counter()
    found = AutoAttack(threat, version="standard")(subject.model, batch, seed=options.seed, tile=options.tile)
    seconds = time.perf_counter() - started
    ours, theirs = (~found.success).numpy(), np.array(first["right"], dtype=bool)
    result = {
        "run": Path(first["run"]).name,
        "weights": first["weights"],
        "threat": first["threat"],
        "images": len(ours),
        "reference": {"accuracy": share(theirs), "seed": first["seed"], "log": first["log"]},
        "hauberk": {"accuracy": share(ours), "seed": options.seed, "version": hauberk.__version__,
                    "forwards": float(found.forwards.double().mean()), "seconds": round(seconds, 1)},
        "difference_points": round(100 * float(ours.mean() - theirs.mean()), 2),
        "verdicts_equal_percent": round(100 * float((ours == theirs).mean()), 2),
        "only_ours_broke": [int(i) for i in batch.ids[torch.from_numpy(theirs & ~ours)]],
        "only_theirs_broke": [int(i) for i in batch.ids[torch.from_numpy(ours & ~theirs)]],
        "environment": environment(),
    }  # fmt: skip
    for other in others:
        again = np.array(other["right"], dtype=bool)
        result["reference"]["equal_to_itself_percent"] = round(100 * float((again == theirs).mean()), 2)
    write(options.out, result)


def speed(options: argparse.Namespace) -> None:
    """Both in turn, at the best batch size of each on a few images."""
    subject = api.subject(options.run)
    threat = registry.build(options.threat, "threat")
    batch = api.evaluation_batch(subject.dataset, "test", options.images)
    model = subject.model

    def theirs(size: int, rows: Batch = batch) -> int:
        return int(published(model, rows, threat, "standard", options.seed, size).sum())

    def ours(tile: int, rows: Batch = batch) -> int:
        return int((~AutoAttack(threat, version="standard")(model, rows, options.seed, tile).success).sum())

    few = batch.select(slice(0, options.probe))
    size = min(BATCHES, key=lambda s: clock(lambda: theirs(s, few))[0])
    tile = min(TILES, key=lambda t: clock(lambda: ours(t, few))[0])
    times: dict[str, list[float]] = {"reference": [], "hauberk": []}
    left = {}
    for _ in range(options.repeats):
        for name, work in (("reference", lambda: theirs(size)), ("hauberk", lambda: ours(tile))):
            seconds, left[name] = clock(work)
            times[name].append(round(seconds, 2))
            print(f"{name}: {seconds:.1f} s, {left[name]} of {len(batch)} left", flush=True)
    medians = {name: statistics.median(values) for name, values in times.items()}
    write(options.out, {
        "run": Path(options.run).name, "threat": options.threat, "images": len(batch), "left": left,
        "batch": {"reference": size, "hauberk": tile}, "threads": options.threads, "seconds": times,
        "ratio": round(medians["hauberk"] / medians["reference"], 3), "environment": environment(),
    })  # fmt: skip


def clock(work: Callable[[], int]) -> tuple[float, int]:
    started = time.perf_counter()
    left = work()
    return time.perf_counter() - started, left


def share(right: np.ndarray) -> list[float]:
    found = wilson(int(right.sum()), len(right))
    return [round(100 * v, 2) for v in (found.value, found.low, found.high)]


def write(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result) + "\n")
    print(json.dumps({k: v for k, v in result.items() if k not in ("ids", "right", "environment", "log")}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    for name, work in (("reference", reference), ("compare", compare), ("speed", speed)):
        verb = verbs.add_parser(name)
        verb.set_defaults(work=work)
        if name == "compare":
            verb.add_argument("files", nargs="+", type=Path)
            verb.add_argument("--runs", type=Path, default=Path("runs/small_cifar10"))
        else:
            verb.add_argument("run")
            verb.add_argument("--threat", default="linf:8/255")
            verb.add_argument("--images", type=int, default=1000 if name == "reference" else 128)
        verb.add_argument("--seed", type=int, default=0)
        verb.add_argument("--batch", type=int, default=250)
        verb.add_argument("--tile", type=int, default=64)
        verb.add_argument("--probe", type=int, default=16)
        verb.add_argument("--repeats", type=int, default=3)
        verb.add_argument("--threads", type=int, default=2)
        verb.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.work(options)


if __name__ == "__main__":
    main()
