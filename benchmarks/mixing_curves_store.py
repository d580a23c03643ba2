"""What the curves of the adaptive-smoothing paper share: nets, images, verdicts, one resumable JSON file a result."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hauberk.attacks import PGD
from hauberk.batch import Batch
from hauberk.classifier import TILE, logits_of
from hauberk.data import load
from hauberk.runs import Run, environment
from hauberk.statistics import Interval, wilson
from hauberk.threats import Linf

RUNS = Path("runs/small_cifar10")
OUT = Path("results/adaptive_smoothing/paper")
SUFFIX = "_cifar10_small-seed0"
DRAWS = 10_000
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

PGD20 = PGD(Linf(8 / 255), steps=20, step_size=0.0027, early_stop=False)


@dataclass
class Store:
    """One result: what was run, the verdict of every image in every cell, and the summary computed from them.

    Args:
        name: the file's stem.
        smoke: a trial on few images, which is written elsewhere.
    """

    name: str
    smoke: bool = False
    data: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path.exists():
            self.data = json.loads(self.path.read_text())
        self.data.setdefault("cells", {})

    @property
    def path(self) -> Path:
        """The JSON file."""
        return (Path("runs/smoke") if self.smoke else OUT) / f"{self.name}.json"

    def describe(self, what: str, models: Sequence[str], images: str, **setting: Any) -> None:
        """Put down what is run before it is."""
        self.data |= {"what": what, "images": images, "setting": setting, "environment": environment()}
        self.data.setdefault("models", {}).update({name: facts(name) for name in models})

    def cell(self, key: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A cell's values: those on file, or computed now and written."""
        cells = self.data["cells"]
        if key not in cells:
            cells[key] = compute()
            self.write()
            print(f"{self.name}: {key}", flush=True)
        found: dict[str, Any] = cells[key]
        return found

    def write(self) -> None:
        """The JSON file, whole or not at all."""
        order = ("what", "images", "setting", "models", "environment", "labels", "summary")
        lines = [f"{json.dumps(k)}: {compact(self.data[k])}" for k in order if k in self.data]
        rest = sorted(set(self.data) - {*order, "cells"})
        lines += [f"{json.dumps(k)}: {compact(self.data[k])}" for k in rest]
        cells = ",\n".join(f" {json.dumps(k)}: {compact(v)}" for k, v in self.data["cells"].items())
        self.put(".json", "{\n" + ",\n".join([*lines, f'"cells": {{\n{cells}\n}}']) + "\n}\n")

    def put(self, suffix: str, text: str) -> None:
        """Write a file of this result under a temporary name, then rename it."""
        path = self.path.parent / f"{self.name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".part")
        temporary.write_text(text)
        temporary.rename(path)


def compact(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"))


# --- nets and images ------------------------------------------------------------------------------------------


def run_of(name: str) -> Run:
    return Run.open(RUNS / f"{name}{SUFFIX}")


def facts(name: str) -> dict[str, Any]:
    """Where a net comes from, and the hash of its weights."""
    run = run_of(name)
    return {"recipe": run.recipe["name"], "run": run.path.name, "weights": run.info["hashes"]["weights"]}


def net(name: str) -> nn.Module:
    """A trained net in eval mode."""
    return run_of(name).load_model().eval()


def images(split: str, count: int) -> Batch:
    """The first images of a split of CIFAR-10."""
    dataset = load({"name": "cifar10"})
    return getattr(dataset, split).batch(slice(0, count))  # type: ignore[no-any-return]


def has(name: str) -> bool:
    """Whether a net is trained."""
    return (RUNS / f"{name}{SUFFIX}").is_dir() and run_of(name).has_model


# --- verdicts -------------------------------------------------------------------------------------------------


def bits(values: Tensor | Bools) -> str:
    """Booleans as a string of 0 and 1."""
    return "".join("1" if v else "0" for v in values.tolist())


def unbits(text: str) -> Bools:
    """The booleans of a string of 0 and 1."""
    return np.array([c == "1" for c in text], dtype=np.bool_)


def right(model: nn.Module, points: Tensor, batch: Batch) -> Tensor:
    """Whether the model's class at the points is the label, (B,)."""
    return predicted(model, points, batch) == batch.labels


@torch.no_grad()
def predicted(model: nn.Module, points: Tensor, batch: Batch) -> Tensor:
    """The model's class at the points, (B,)."""
    return logits_of(model, Batch(points, batch.labels, batch.ids), TILE).argmax(1)


def share(verdicts: str | Bools) -> Interval:
    """Accuracy with Wilson's interval."""
    values = unbits(verdicts) if isinstance(verdicts, str) else verdicts
    return wilson(int(values.sum()), len(values))


# --- curves in the plane of clean and robust accuracy -----------------------------------------------------------


def above(listed: Sequence[tuple[Bools, Bools]], curve: Sequence[tuple[Bools, Bools]]) -> Interval:
    """Mean robust accuracy of points beyond that of a curve at the same clean accuracies, paired over images.

    The curve joins its models by straight lines, which tossing a coin between two neighbours reaches; beyond its ends
    it is level.  All models are resampled on the same images.
    """
    columns = np.stack([c for pair in (*listed, *curve) for c in pair], 1).astype(np.float64)
    n, k = len(columns), 2 * len(listed)
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1.0 / n), DRAWS)
    means = np.concatenate([columns.mean(0, keepdims=True), counts @ columns / n])
    lifts = np.array([(row[1:k:2] - _height(row[:k:2], row[k::2], row[k + 1 :: 2])).mean() for row in means])
    low, high = np.quantile(lifts[1:], [0.025, 0.975])
    return Interval(float(lifts[0]), float(low), float(high), n)


def _height(x: Floats, clean: Floats, robust: Floats) -> Floats:
    order = np.argsort(clean, kind="stable")
    height: Floats = np.interp(x, clean[order], robust[order])
    return height


def plain(interval: Interval, digits: int = 4) -> list[float]:
    """Value and ends, for JSON."""
    return [round(v, digits) for v in (interval.value, interval.low, interval.high)]


def percent(values: Sequence[float]) -> str:
    """An interval as text, in percent."""
    value, low, high = (100.0 * v for v in values)
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def points(values: Sequence[float]) -> str:
    """A difference as text, in points, with its sign."""
    value, low, high = (100.0 * v for v in values)
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]
