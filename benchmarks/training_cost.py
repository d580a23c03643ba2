"""Cost of each method of a table of training methods, as times standard training at the same number of passes.

Each side trains on random images through the whole ``fit`` (loading, attack, step, averages, checkpoint) with the
table's own settings, without validation; sides take turns.  Seconds are those of the processor, so that other work on
the machine hardly counts, and one thread is used.  ``times`` is a pass over the data against a pass of the first row;
``total`` counts that a row may make more or fewer passes.

    python benchmarks/training_cost.py recipes/tables/training_cifar10.yaml --out results/training_cost.json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from hauberk import registry
from hauberk.data import Dataset
from hauberk.recipes import Recipe
from hauberk.runs import Run, environment
from hauberk.training.loop import fit
from hauberk.verbs import sweep
from training_throughput import noise


def passes(recipe: Recipe, dataset: Dataset) -> Callable[[], float]:
    """Processor seconds of two passes over the data as a recipe trains; what starts late starts at once.

    Two, because an epoch-wise method attacks in every second one.  What stops early, such as the friendly attack, costs
    what it costs on a net that is not trained yet.
    """
    task = {"input_shape": dataset.input_shape, "num_classes": dataset.num_classes}
    config = dataclasses.replace(recipe.training, epochs=2, validate_every=0, swa=0.0, awp_start=0)

    def seconds() -> float:
        torch.manual_seed(0)
        model = registry.build(recipe.model, "model", **task, mean=dataset.mean, std=dataset.std)
        with tempfile.TemporaryDirectory() as folder:
            run = Run.create(Path(folder) / "run", {})
            began = time.process_time()
            fit(model, registry.build(recipe.objective, "objective"), dataset, config, run)
            return time.process_time() - began

    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/training_cost.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    cells = [cell for path in options.tables for cell in sweep.cells(sweep.read(path), Path("runs"))]
    first = {cell.label: cell.recipe for cell in reversed(cells)}
    recipes = {cell.label: first[cell.label] for cell in cells}
    dataset = noise(options.images)
    sides = {label: passes(recipe, dataset) for label, recipe in recipes.items()}
    seconds: dict[str, list[float]] = {label: [] for label in sides}
    next(iter(sides.values()))()  # the first pass of a process loads libraries
    for _ in range(options.rounds):
        for label, side in sides.items():
            seconds[label].append(side())
    standard = next(iter(recipes))
    base = statistics.median(seconds[standard])
    lines = {}
    for label, own in seconds.items():
        times = statistics.median(own) / base
        share = recipes[label].training.epochs / recipes[standard].training.epochs
        lines[label] = {"times": round(times, 2), "total": round(times * share, 2), "seconds": own}
        print(f"{label:20} {times:6.2f} a pass {times * share:6.2f} in all")
    setting = {"images": options.images, "rounds": options.rounds, "threads": 1, "clock": "processor seconds"}
    made = {"setting": setting, "environment": environment(), "methods": lines}
    options.out.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
