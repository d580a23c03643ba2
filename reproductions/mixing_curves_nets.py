"""The nets and images of the curves of the adaptive-smoothing paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hauberk.attacks import PGD
from hauberk.batch import Batch
from hauberk.classifier import TILE, logits_of
from hauberk.comparison import above
from hauberk.data import load
from hauberk.evaluation.metrics import Bools
from hauberk.runs import Run
from hauberk.statistics import Interval, student
from hauberk.threats import Linf
from store import Store

RUNS = Path("runs/small_cifar10")
OUT = Path("results/adaptive_smoothing/paper")
SUFFIX = "_cifar10_small-seed0"
PGD20 = PGD(Linf(8 / 255), steps=20, step_size=0.0027, early_stop=False)


class Curve(Store):
    """A figure or table that is made of runs in ``runs/small_cifar10``.

    Args:
        name: the file's stem.
        smoke: a trial on few images, which is written elsewhere.
    """

    def __init__(self, name: str, smoke: bool = False) -> None:
        super().__init__((Path("runs/smoke") if smoke else OUT) / f"{name}.json")
        self.name, self.smoke = name, smoke

    def begin(self, what: str, models: Sequence[str], images: str, **setting: Any) -> None:
        """Put down what is run before it is."""
        self.describe(what=what, images=images, setting=setting)
        for name in models:
            self.model(name, **facts(name))


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


def right(model: nn.Module, points: Tensor, batch: Batch) -> Tensor:
    """Whether the model's class at the points is the label, (B,)."""
    return predicted(model, points, batch) == batch.labels


@torch.no_grad()
def predicted(model: nn.Module, points: Tensor, batch: Batch) -> Tensor:
    """The model's class at the points, (B,)."""
    return logits_of(model, Batch(points, batch.labels, batch.ids), TILE).argmax(1)


def lift(listed: Sequence[tuple[Bools, Bools]], curve: Sequence[tuple[Bools, Bools]]) -> Interval:
    """Mean robust accuracy of points beyond that of a curve at the same clean accuracies, paired over images."""
    points, ends = ([(c.astype(float), r.astype(float)) for c, r in models] for models in (listed, curve))
    return student(above(points, ends))[0]
