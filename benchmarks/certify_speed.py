"""How long votes take beside the loop that the field uses, on the same nets, images, numbers of votes and threads.

    python benchmarks/certify_speed.py --output results

The loop draws its noise by torch for one image at a time, adds it to copies of the image, takes the largest logit of
each, and counts the votes one by one in Python, as the published certify does.  Its time is that of its best batch
size.  Ours votes once with noise of each image and once with noise that the images share.
``passes`` are as many forward passes on tiles that are there already, below which nobody can come.
Processor seconds, medians of rounds in which the four take turns; the look at the black box, which comes once for each
tile of images, is timed apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hauberk.batch import Batch
from hauberk.certificates import SmoothingCertificate
from hauberk.models.resnet import resnet18
from hauberk.models.small_cnn import small_cnn
from hauberk.noises import Gaussian
from hauberk.runs import environment

SIGMA, CLASSES, N0 = 0.25, 10, 128
BATCHES = (50, 100, 256, 400, 1000)
TASK = {"input_shape": (3, 32, 32), "num_classes": CLASSES, "mean": (0.5,) * 3, "std": (0.25,) * 3}
# a net, how many images, and how many votes bound the probability of each
NETS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "small_cnn": (lambda: small_cnn(**TASK), 8, 512),
    "small_cnn, three layers": (lambda: small_cnn(**TASK, widths=(32, 64, 128), strides=(2, 2, 2)), 8, 1024),
    "resnet18": (lambda: resnet18(**TASK), 2, 128),
}


@torch.no_grad()
def loop(model: nn.Module, image: Tensor, votes: int, rows: int) -> np.ndarray:
    """The counts of one image."""
    counts = np.zeros(CLASSES, dtype=int)
    left = votes
    while left > 0:
        now = min(rows, left)
        left -= now
        copies = image.repeat((now, 1, 1, 1))
        answers = model(copies + torch.randn_like(copies) * SIGMA).argmax(1)
        for answer in answers.cpu().numpy():
            counts[answer] += 1
    return counts


def clock(work: Callable[[], object]) -> float:
    """Processor seconds."""
    began = time.process_time()
    work()
    return time.process_time() - began


def measure(model: nn.Module, images: int, votes: int, rounds: int, tile: int) -> dict[str, Any]:
    """Votes a second of the loop and of ours, with noise of each image and with shared noise, and paired ratios."""
    pictures = torch.rand(images, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    batch = Batch(pictures, torch.zeros(images, dtype=torch.int64), torch.arange(images))
    own = SmoothingCertificate(Gaussian(SIGMA), n0=N0, n=votes)
    polls = {name: replace(own, draws=name).poll(model) for name in ("own", "shared")}
    each = N0 + votes

    def looped(rows: int) -> None:
        for image in pictures:
            loop(model, image, each, rows)

    best = min(BATCHES, key=lambda rows: clock(lambda: loop(model, pictures[0], each, rows)))
    look = clock(lambda: SmoothingCertificate(Gaussian(SIGMA), n0=1, n=1)(model, batch))
    tiles = [torch.rand(tile, 3, 32, 32) for _ in range(images * each // tile)]

    @torch.no_grad()
    def passes() -> None:
        for copies in tiles:
            model(copies)

    sides: dict[str, Callable[[], object]] = {
        "loop": lambda: looped(best),
        "passes": passes,
        **{name: (lambda poll=poll: poll.all(batch, 0, tile)) for name, poll in polls.items()},
    }
    found = []
    for number in range(rounds + 1):  # the first one warms up
        order = list(sides)[number % 4 :] + list(sides)[: number % 4]
        found.append({side: clock(sides[side]) for side in order})
    ratios = {side: [round(one[side] / one["loop"], 3) for one in found[1:]] for side in list(sides)[1:]}
    return {
        "images": images, "votes": each, "tile": tile, "best_batch": best, "black_box_seconds": round(look, 2),
        "ratio": {name: round(statistics.median(values), 3) for name, values in ratios.items()}, "ratios": ratios,
        "votes_per_second": {
            side: round(images * each / statistics.median(one[side] for one in found[1:])) for side in sides
        },
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--net", default="")
    parser.add_argument("--tile", type=int, default=64)
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for name, (build, images, votes) in NETS.items():
        if options.net in ("", name):
            torch.manual_seed(0)
            found[name] = measure(build().eval(), images, votes, options.rounds, options.tile)
            print(name, found[name], flush=True)
    if options.output is not None:
        path = options.output / "certify_speed.json"  # nets that are measured alone join the others
        known = json.loads(path.read_text())["nets"] if path.exists() else {}
        setting = {"sigma": SIGMA, "image": [3, 32, 32], "n0": N0, "threads": 1}
        result = {"setting": setting, "environment": environment(), "nets": known | found}
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
