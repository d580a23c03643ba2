"""Cost of adversarial training on the CPU: each method against standard training, and against a textbook loop.

PGD-10 (Linf 8/255, step 2/255) and one-step training (N-FGSM) on 32x32 colour images.  Sides take turns, each from
its own copy of the same weights, so that a disturbance of the machine meets all of them.  Hauberk's time is that of
the whole ``fit`` (loading, attack, step and checkpoint) over a few steps.  Seconds are those of the processor.  The
textbook loop is what a tutorial shows: ``loss.backward()`` inside the attack, so that gradients of the weights are
computed and thrown away, the model in train mode, default memory format.  All sides run in float32, but for one with
bfloat16 autocast.

With u the cost of a forward pass, and of either backward pass, standard training takes 3 u, one step 5 u (1.7 times)
and PGD-10 23 u (7.7 times).

    python benchmarks/training_throughput.py [--models small_cnn resnet18] [--repeats 5] [--steps 2] [--threads 1]
        [--batch 128] [--output results]
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
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hauberk import registry
from hauberk.attacks.n_fgsm import NFGSM
from hauberk.attacks.pgd import PGD
from hauberk.data import Dataset, Split
from hauberk.objectives.base import Objective
from hauberk.objectives.pgd_adversarial import PGDAdversarial
from hauberk.objectives.standard import Standard
from hauberk.runs import Run, environment
from hauberk.threats import Linf
from hauberk.training.config import Training
from hauberk.training.loop import fit

EPS, STEP, STEPS = 8 / 255, 2 / 255, 10
STANDARD, TEXTBOOK = "standard", "PGD-10, textbook"
METHODS: dict[str, Objective] = {
    STANDARD: Standard(),
    "one step": PGDAdversarial(NFGSM(Linf(EPS))),
    "PGD-10": PGDAdversarial(PGD(Linf(EPS), steps=STEPS, step_size=STEP)),
}


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


def textbook(model: nn.Module, dataset: Dataset, batch: int) -> Callable[[], None]:
    images, labels = dataset.train.images.float() / 255, dataset.train.labels
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def epoch() -> None:
        for own, told in zip(images.split(batch), labels.split(batch), strict=True):
            textbook_step(model, own, told, optimizer)

    return epoch


def hauberk(
    model: nn.Module, dataset: Dataset, batch: int, objective: Objective, precision: Literal["float32", "bfloat16"]
) -> Callable[[], None]:
    config = Training(epochs=1, batch_size=batch, lr=0.01, precision=precision, validate_every=0)

    def epoch() -> None:
        with tempfile.TemporaryDirectory() as folder:
            fit(model, objective, dataset, config, Run.create(Path(folder) / "run", {}))

    return epoch


def noise(count: int) -> Dataset:
    """Random images: the time does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)

    def split(name: str, count: int, first: int) -> Split:
        images = torch.randint(0, 256, (count, 3, 32, 32), generator=generator).to(torch.uint8)
        return Split(name, images, torch.arange(count) % 10, torch.arange(first, first + count))

    classes = tuple(str(k) for k in range(10))
    return Dataset("noise", classes, split("train", count, 0), split("val", 10, count), split("test", 10, 0))


def measure(sides: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Processor seconds of every repeat; the sides take turns, so that a disturbance meets all of them."""
    for step in sides.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, step in sides.items():
            began = time.process_time()
            step()
            seconds[name].append(time.process_time() - began)
    return seconds


def sides(name: str, dataset: Dataset, batch: int) -> dict[str, Callable[[], None]]:
    """What is timed on one model, an epoch each."""
    torch.manual_seed(0)
    task = {"input_shape": dataset.input_shape, "num_classes": dataset.num_classes}
    model: nn.Module = registry.build(name, "model", **task, mean=dataset.mean, std=dataset.std)
    found = {
        method: hauberk(copy.deepcopy(model), dataset, batch, objective, "float32")
        for method, objective in METHODS.items()
    }
    found["PGD-10, bfloat16"] = hauberk(copy.deepcopy(model), dataset, batch, METHODS["PGD-10"], "bfloat16")
    return found | {TEXTBOOK: textbook(copy.deepcopy(model), dataset, batch)}


def line(seconds: dict[str, list[float]], side: str, images: int) -> dict[str, Any]:
    """The figures of one side, and how many times those of standard training and of a textbook loop they are."""
    own = seconds[side]

    def ratio(other: str) -> float:
        return statistics.median(own) / statistics.median(seconds[other])

    return {
        "images_per_second": images / statistics.median(own),
        "times_standard": ratio(STANDARD),
        "times_standard_of_each_round": [a / b for a, b in zip(own, seconds[STANDARD], strict=True)],
        "times_textbook_pgd": ratio(TEXTBOOK),
        "seconds": own,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["small_cnn", "resnet18"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--output", type=Path, default=Path("results"))
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    images = options.batch * options.steps
    dataset, load, models = noise(images), os.getloadavg()[0], {}
    print(f"32x32 images, batch {options.batch}, {options.threads} threads, {options.repeats} rounds")
    print(f"{'':10} {'':18} {'images/s':>9}  {'times standard':>14}  (range over the rounds)")
    for name in options.models:
        seconds = measure(sides(name, dataset, options.batch), options.repeats)
        models[name] = {side: line(seconds, side, images) for side in seconds}
        for side, found in models[name].items():
            rounds = found["times_standard_of_each_round"]
            print(
                f"{name:10} {side:18} {found['images_per_second']:9.1f}  {found['times_standard']:14.2f}  "
                f"({min(rounds):.2f} to {max(rounds):.2f})"
            )
    options.output.mkdir(parents=True, exist_ok=True)
    setting = {"attack": f"pgd-{STEPS} linf 8/255 step 2/255", "one_step": "n-fgsm linf 8/255"} | {
        "image": [3, 32, 32], "batch": options.batch, "steps": options.steps, "threads": options.threads,
        "repeats": options.repeats, "clock": "processor seconds",
    }  # fmt: skip
    result = {"setting": setting, "environment": environment(), "load_before": load, "models": models}
    (options.output / "training_throughput.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
