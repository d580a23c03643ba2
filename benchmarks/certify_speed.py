"""How long votes take beside the loop that the field uses, on the same nets, images, numbers of votes and threads.

    python benchmarks/certify_speed.py --output results

The loop draws its noise by torch for one image at a time, adds it to copies of the image, takes the largest logit of
each, and counts the votes one by one in Python, as the published certify does.  Its time is that of its best batch
size.
Processor seconds, medians of paired rounds; the look at the black box, which comes once for each net, is timed apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
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

SIGMA, CLASSES = 0.25, 10
BATCHES = (50, 100, 256, 400, 1000)
TASK = {"input_shape": (3, 32, 32), "num_classes": CLASSES, "mean": (0.5,) * 3, "std": (0.25,) * 3}
NETS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "small_cnn": (lambda: small_cnn(**TASK), 2000),
    "small_cnn, three layers": (lambda: small_cnn(**TASK, widths=(32, 64, 128), strides=(2, 2, 2)), 10_000),
    "resnet18": (lambda: resnet18(**TASK), 300),
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


def measure(model: nn.Module, votes: int, rounds: int) -> dict[str, Any]:
    """Seconds a vote of both, and the ratio of paired rounds."""
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    batch = Batch(image[None], torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    certificate = SmoothingCertificate(Gaussian(SIGMA), n0=100, n=votes)
    poll = certificate.poll(model)
    every = certificate.n0 + certificate.n
    best = min(BATCHES, key=lambda rows: min(clock(lambda: loop(model, image, every, rows)) for _ in range(2)))
    look = clock(lambda: SmoothingCertificate(Gaussian(SIGMA), n0=1, n=1)(model, batch))

    pairs = []
    for number in range(rounds + 1):
        sides = {"ours": lambda: poll.all(batch, 0, 256), "loop": lambda: loop(model, image, every, best)}
        order = ("loop", "ours") if number % 2 else ("ours", "loop")
        pairs.append({side: clock(sides[side]) for side in order})
    ratios = [round(pair["ours"] / pair["loop"], 3) for pair in pairs[1:]]
    return {
        "ratio": statistics.median(ratios), "ratios": ratios, "votes": every, "best_batch": best,
        "ours_per_second": round(every / statistics.median(p["ours"] for p in pairs[1:])),
        "loop_per_second": round(every / statistics.median(p["loop"] for p in pairs[1:])),
        "black_box_seconds": round(look, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--net", default="")
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for name, (build, votes) in NETS.items():
        if options.net in ("", name):
            torch.manual_seed(0)
            found[name] = measure(build().eval(), votes, options.rounds)
            print(name, found[name], flush=True)
    if options.output is not None:
        setting = {"sigma": SIGMA, "image": [3, 32, 32], "rounds": options.rounds, "threads": 1, "tile": 256}
        result = {"setting": setting, "environment": environment(), "nets": found}
        (options.output / "certify_speed.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
