"""Hauberk's AutoAttack beside the published one (pyautoattack 0.2.0): verdicts image by image, and time.

    python benchmarks/autoattack_peer.py reference RUN --threat linf:8/255 --images 1000 --seed 0 --out FILE.json
    python benchmarks/autoattack_peer.py compare FILE.json ...    # with the records of the same runs, committed here
    python benchmarks/autoattack_peer.py speed RUN --threat linf:8/255 --images 128 --out FILE.json

``reference`` keeps every image's verdict; ``compare`` holds them against the records of the same weights.  ``speed``
alternates both, with the same threads and precision, each at the best of a few batch sizes.  ``model-of-cost`` does so
with walks a twentieth as long on a net and a budget where nothing falls, so that every pass is paid for.  Times are of
the processor.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyautoattack import AutoAttack as Published

import hauberk
from attack_overhead import plain_cnn
from hauberk import registry
from hauberk.attacks import AutoAttack
from hauberk.batch import Batch
from hauberk.records import group, read_all
from hauberk.runs import Run, environment
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
    subject = hauberk.subject(options.run)
    threat = registry.build(options.threat, "threat")
    batch = hauberk.evaluation_batch(subject.dataset, "test", options.images)
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
    """Hold the records of the runs against the reference's verdicts on the same weights and images."""
    for path in options.files:
        there = json.loads(path.read_text())
        run = Run(options.runs / there["run"])
        if run.info["hashes"]["weights"] != there["weights"]:
            raise SystemExit(f"{run.path} has other weights than {path}")
        stages = suite(run, registry.build(there["threat"], "threat"))
        left = [stage["left"] for stage in stages]
        ours = ~np.isin(there["ids"], list(set().union(*(stage["broken"] for stage in stages))))
        theirs = np.array(there["right"], dtype=bool)
        print(json.dumps({
            "run": there["run"], "threat": there["threat"], "images": len(ours),
            "reference": share(theirs), "reference's stages": there["log"],
            "hauberk": share(ours), "left after each stage": left,
            "difference in points": round(100 * float(ours.mean() - theirs.mean()), 2),
            "verdicts equal, percent": round(100 * float((ours == theirs).mean()), 2),
            "only hauberk broke": [i for i, a, b in zip(there["ids"], ours, theirs, strict=True) if b and not a],
            "only the reference broke": [i for i, a, b in zip(there["ids"], ours, theirs, strict=True) if a and not b],
        }, indent=1))  # fmt: skip


def suite(run: Run, threat: Any) -> list[dict[str, Any]]:
    """What each stage of AutoAttack standard broke, by id, and how many images it left right."""
    wanted = {"name": threat.norm, "eps": threat.eps}
    found = [f for f in group(read_all(run.records, "attack"))
             if f.unit.get("suite") and f.unit["threat"] == wanted and f.unit["suite"]["version"] == "standard"]
    stages = []
    for part in sorted(found, key=lambda f: f.unit["stage"]):
        success, ids = part.table["success"].to_numpy(zero_copy_only=False), part.table["id"].to_pylist()
        stages.append({"broken": {i for i, broke in zip(ids, success, strict=True) if broke},
                       "left": int((~success).sum())})
    return stages


def speed(options: argparse.Namespace) -> None:
    """Both in turn, at the best batch size of each on a few images."""
    subject = hauberk.subject(options.run)
    threat = registry.build(options.threat, "threat")
    batch = hauberk.evaluation_batch(subject.dataset, "test", options.images)
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


def cost(options: argparse.Namespace) -> None:
    """Both on a net with random weights, labelled by itself, at a budget where nothing falls."""
    torch.manual_seed(options.seed)
    colours = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    if options.model == "plain":
        model = plain_cnn().eval()
    else:
        model = registry.build(options.model, "model", input_shape=(3, 32, 32), num_classes=10, **colours).eval()
    images = torch.rand(options.images, 3, 32, 32)
    with torch.no_grad():
        batch = Batch(images, model(images).argmax(1), torch.arange(options.images))
    threat = registry.build("linf:1e-6", "threat")
    shorter = [shortened(stage, options.part) for stage in AutoAttack(threat, version="standard").stages()]
    short = AutoAttack(threat, version="custom", attacks=shorter)

    def theirs(size: int) -> int:
        attack = Published(model, norm="Linf", eps=threat.eps, version="standard", seed=options.seed)
        steps = dict.fromkeys(("apgd", "apgd_targeted", "fab"), "n_iter")
        for name, field in (steps | {"square": "n_queries"}).items():
            part = getattr(attack, name)
            setattr(part, field, getattr(part, field) // options.part)
        attack.run_standard_evaluation(batch.images, batch.labels, batch_size=size)
        return len(batch)

    def ours(tile: int) -> int:
        return int((~short(model, batch, options.seed, tile).success).sum())

    times: dict[str, list[float]] = {"reference": [], "hauberk": []}
    for _ in range(options.repeats):
        for name, work in (("reference", theirs), ("hauberk", ours)):
            seconds, left = clock(lambda run=work: run(len(batch)))  # type: ignore[misc]
            times[name].append(round(seconds, 2))
            print(f"{name}: {seconds:.1f} s, {left} of {len(batch)} left", flush=True)
    medians = {name: statistics.median(values) for name, values in times.items()}
    write(options.out, {
        "model": options.model, "images": len(batch), "walks": f"1/{options.part} of standard",
        "threads": options.threads, "seconds": times, "ratio": round(medians["hauberk"] / medians["reference"], 3),
        "environment": environment(),
    })  # fmt: skip


def shortened(stage: Any, part: int) -> Any:
    name = "queries" if hasattr(stage, "queries") else "steps"
    return replace(stage, **{name: getattr(stage, name) // part})


def clock(work: Callable[[], int]) -> tuple[float, int]:
    """Processor seconds, which the load of the machine hardly moves, and what the work returns."""
    started = time.process_time()
    left = work()
    return time.process_time() - started, left


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
    for name, work in (("reference", reference), ("speed", speed), ("model-of-cost", cost)):
        verb = verbs.add_parser(name)
        verb.set_defaults(work=work)
        if name == "model-of-cost":
            verb.add_argument("model")
            verb.add_argument("--part", type=int, default=20)
        else:
            verb.add_argument("run")
            verb.add_argument("--threat", default="linf:8/255")
        verb.add_argument("--images", type=int, default={"reference": 1000, "speed": 128}.get(name, 16))
        verb.add_argument("--seed", type=int, default=0)
        verb.add_argument("--batch", type=int, default=250)
        verb.add_argument("--probe", type=int, default=16)
        verb.add_argument("--repeats", type=int, default=3)
        verb.add_argument("--threads", type=int, default=2)
        verb.add_argument("--out", type=Path, required=True)
    verb = verbs.add_parser("compare")
    verb.set_defaults(work=compare, threads=1)
    verb.add_argument("files", nargs="+", type=Path)
    verb.add_argument("--runs", type=Path, default=Path("results/cifar10"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.work(options)


if __name__ == "__main__":
    main()
