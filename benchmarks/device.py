"""What a device does: the demo, AutoAttack, votes of smoothing and PGD training, each timed.

Attacks and votes are those of an untrained ``small_cnn`` on noise of 32x32 colour pixels, in a budget so small that no
image falls, so that every image costs the whole suite.  Training is PGD-10 on the same net.  The demo is the whole of
``hauberk demo``.  Votes and training are timed in a second call, after one that warms up; AutoAttack is long enough.

    python benchmarks/device.py [--device auto] [--precision float32] [--suite standard] [--images 512] [--no-demo]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from hauberk.attacks import PGD, AutoAttack
from hauberk.attacks.autoattack import Version
from hauberk.batch import Batch
from hauberk.defences.smoothed import noisy_votes
from hauberk.devices import Device, Precision, arithmetic, place, resolved, said
from hauberk.models.small_cnn import small_cnn
from hauberk.noises import Gaussian
from hauberk.objectives.base import Context
from hauberk.objectives.pgd_adversarial import PGDAdversarial
from hauberk.runs import environment
from hauberk.threats import Linf
from hauberk.verbs.demo import run_demo

CLASSES, TILE = 10, 256
VOTED, VOTES = 4, 1000  # images, and votes of each
STEPS = 5  # of training


def net(device: Device) -> nn.Module:
    torch.manual_seed(0)
    model = small_cnn((3, 32, 32), CLASSES, (0.5,) * 3, (0.25,) * 3)
    place(model, device)
    return model


def noise(rows: int, model: nn.Module, device: torch.device) -> Batch:
    """Images with the labels that the model gives them."""
    images = torch.rand(rows, 3, 32, 32, generator=torch.Generator().manual_seed(1)).to(device)
    with torch.no_grad():
        labels = torch.cat([model(part).argmax(1) for part in images.split(TILE)])
    return Batch(images, labels, torch.arange(rows, device=device))


def timed(work: Callable[[], Any], warm: bool = True) -> float:
    """Seconds of a call, all kernels included."""

    def settled() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    if warm:
        work()
    settled()
    started = time.perf_counter()
    work()
    settled()
    return time.perf_counter() - started


def autoattack(device: Device, version: Version, images: int) -> dict[str, float]:
    model = net(device).eval()
    batch, suite = noise(images, model, resolved(device)), AutoAttack(Linf(1e-6), version=version)
    seconds = timed(lambda: suite(model, batch, 0, TILE), warm=False)
    return {"images": images, "seconds": seconds, "images_per_second": images / seconds}


def votes(device: Device) -> dict[str, float]:
    model = net(device).eval()
    images = noise(VOTED, model, resolved(device)).images

    def vote() -> None:
        for number, image in enumerate(images):  # as a certificate does, one image after another
            noisy_votes(model, image, Gaussian(0.25), VOTES, (0, number, "benchmark"), TILE)

    seconds = timed(vote)
    return {"votes": VOTED * VOTES, "seconds": seconds, "votes_per_second": VOTED * VOTES / seconds}


def training(device: Device, batch_size: int) -> dict[str, float]:
    model = net(device).train()
    where = resolved(device)
    batch = noise(batch_size, model, where)
    objective = PGDAdversarial(PGD(Linf(8 / 255), steps=10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    context = Context(torch.Generator(where).manual_seed(0))

    def steps() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            objective(model, batch, context).total.backward()
            optimizer.step()

    seconds = timed(steps)
    return {"batch": batch_size, "seconds_a_step": seconds / STEPS, "images_per_second": STEPS * batch_size / seconds}


def demo(device: Device) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        found = run_demo(Path(folder), lambda _: None, lambda _: None, lambda _: None, device)
    return {"seconds": found.seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="auto", choices=get_args(Device))
    parser.add_argument("--precision", default="float32", choices=get_args(Precision))
    parser.add_argument("--suite", default="standard", choices=["fast", "standard"])
    parser.add_argument("--images", type=int, default=512, help="of AutoAttack")
    parser.add_argument("--batch", type=int, default=256, help="of training")
    parser.add_argument("--no-demo", action="store_true")
    parser.add_argument("--output", type=Path, help="folder for device-NAME.json")
    asked = parser.parse_args()
    where = said(asked.device, asked.precision)
    print(where)
    found: dict[str, Any] = {"suite": asked.suite, "device": where, "environment": environment()}
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "autoattack": lambda: autoattack(asked.device, asked.suite, asked.images),
        "votes": lambda: votes(asked.device),
        "training": lambda: training(asked.device, asked.batch),
    }
    parts |= {} if asked.no_demo else {"demo": lambda: demo(asked.device)}
    for name, part in parts.items():
        with arithmetic(asked.precision):
            found[name] = part()
        print(name, "  ".join(f"{key} {value:.4g}" for key, value in found[name].items()), flush=True)
    if asked.output is not None:
        asked.output.mkdir(parents=True, exist_ok=True)
        name = f"device-{resolved(asked.device).type}-{asked.precision}.json"
        (asked.output / name).write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
