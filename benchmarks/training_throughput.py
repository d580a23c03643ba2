"""Adversarial training throughput on the CPU: Hauberk's step against a textbook loop.

PGD-10 (Linf 8/255, step 2/255) on small_cnn, 32x32 colour images, batch 128.  The textbook loop is what a tutorial
shows: ``loss.backward()`` inside the attack, so that gradients of the weights are computed and thrown away, the model
in train mode, default memory format.  Both sides run in float32 and take turns, each from its own copy of the same
weights; a third line shows Hauberk with bfloat16 autocast.  Hauberk's time is that of the whole ``fit``: loading,
attack, step and checkpoint.

    python benchmarks/training_throughput.py [--repeats 5] [--threads 2] [--batch 128] [--output results]
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from hauberk.attacks.pgd import PGD
from hauberk.data import Dataset, Split
from hauberk.models.small_cnn import small_cnn
from hauberk.objectives.pgd_adversarial import PGDAdversarial
from hauberk.runs import Run, environment
from hauberk.threats import Linf
from hauberk.training.config import Training
from hauberk.training.loop import fit

EPS, STEP, STEPS = 8 / 255, 2 / 255, 10


def textbook_step(model: nn.Module, images: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """One step of adversarial training as tutorials write it."""
    model.train()
    delta = torch.empty_like(images).uniform_(-EPS, EPS)
    for _ in range(STEPS):
        delta = delta.detach().requires_grad_(True)
        loss = functional.cross_entropy(model((images + delta).clamp(0, 1)), labels)
        loss.backward()
        assert delta.grad is not None
        delta = (delta + STEP * delta.grad.sign()).clamp(-EPS, EPS)
    optimizer.zero_grad()
    functional.cross_entropy(model((images + delta.detach()).clamp(0, 1)), labels).backward()
    optimizer.step()


def textbook(model: nn.Module, dataset: Dataset) -> Callable[[], None]:
    images, labels = dataset.train.images.float() / 255, dataset.train.labels
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    return lambda: textbook_step(model, images, labels, optimizer)


def hauberk(model: nn.Module, dataset: Dataset, precision: str) -> Callable[[], None]:
    objective = PGDAdversarial(PGD(Linf(EPS), steps=STEPS, step_size=STEP))
    config = Training(epochs=1, batch_size=len(dataset.train), lr=0.01, precision=precision, validate_every=0)

    def step() -> None:
        with tempfile.TemporaryDirectory() as folder:
            fit(model, objective, dataset, config, Run.create(Path(folder) / "run", {}))

    return step


def noise(batch: int) -> Dataset:
    """One batch of random images: the time does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)

    def split(name: str, count: int, first: int) -> Split:
        images = torch.randint(0, 256, (count, 3, 32, 32), generator=generator).to(torch.uint8)
        return Split(name, images, torch.arange(count) % 10, torch.arange(first, first + count))

    classes = tuple(str(k) for k in range(10))
    return Dataset("noise", classes, split("train", batch, 0), split("val", 10, batch), split("test", 10, 0))


def measure(sides: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every repeat; the sides take turns, so that a disturbance of the machine meets all of them."""
    for step in sides.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, step in sides.items():
            began = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--output", type=Path, default=Path("results"))
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    dataset = noise(options.batch)
    model = small_cnn(dataset.input_shape, dataset.num_classes, dataset.mean, dataset.std)
    sides = {
        "textbook float32": textbook(copy.deepcopy(model), dataset),
        "hauberk float32": hauberk(copy.deepcopy(model), dataset, "float32"),
        "hauberk bfloat16": hauberk(copy.deepcopy(model), dataset, "bfloat16"),
    }
    load = os.getloadavg()[0]
    seconds = measure(sides, options.repeats)
    base = seconds["textbook float32"]
    lines = {
        name: {
            "median_seconds": statistics.median(values),
            "images_per_second": options.batch / statistics.median(values),
            "ratio_of_medians": statistics.median(base) / statistics.median(values),
            "paired_ratios": [b / v for b, v in zip(base, values, strict=True)],
            "seconds": values,
        }
        for name, values in seconds.items()
    }
    print(f"PGD-{STEPS} adversarial training, small_cnn, 32x32, batch {options.batch}, {options.threads} threads")
    print(f"{'':18}  {'s a step':>9}  {'images/s':>9}  {'ratio':>6}  (range over {options.repeats} rounds)")
    for name, line in lines.items():
        low, high = min(line["paired_ratios"]), max(line["paired_ratios"])
        print(
            f"{name:18}  {line['median_seconds']:9.3f}  {line['images_per_second']:9.1f}  "
            f"{line['ratio_of_medians']:6.2f}  ({low:.2f} to {high:.2f})"
        )
    options.output.mkdir(parents=True, exist_ok=True)
    setting = {"attack": f"pgd-{STEPS} linf 8/255 step 2/255", "model": "small_cnn", "image": [3, 32, 32]} | {
        "batch": options.batch, "threads": options.threads, "repeats": options.repeats,
    }  # fmt: skip
    result = {"setting": setting, "environment": environment(), "load_before": load, "lines": lines}
    (options.output / "training_throughput.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
