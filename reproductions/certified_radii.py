"""Attack Lipschitz nets just inside their certified radii, where nothing may flip, and beyond, where something should.

    python reproductions/certified_radii.py RUN RUN RUN --images 2000 --most 800 --out results/certified_radii.json

Each image gets a budget of its own: 0.999 of its radius for APGD on cross-entropy, APGD towards the three likeliest
other classes, and DDN; 1.5 times the radius for the first ones again.  The label is the certified class, so every flip
counts.  Radii below 0.05 are left out.  Nets are exported to plain layers in float64, which is what the proof is about.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

import hauberk
from hauberk.attacks import APGD, DDN, Attack
from hauberk.batch import Batch
from hauberk.certificates import FrozenLipschitz
from hauberk.report import markdown, words
from hauberk.runs import environment
from hauberk.statistics import wilson
from hauberk.threats import L2

LEAST, INSIDE, BEYOND, STEPS = 0.05, 0.999, 1.5, 20


def attacks(eps: float) -> list[Attack]:
    """The three attacks at one budget."""
    threat = L2(eps)
    return [APGD(threat, steps=STEPS), APGD(threat, "dlr", steps=STEPS, targets=3), DDN(threat, steps=STEPS)]


def flips(model: torch.nn.Module, batch: Batch, radii: torch.Tensor, factor: float) -> str:
    """For each image 1 if some attack at ``factor`` times its radius changes the class, else 0."""
    found = []
    for i, radius in enumerate(radii.tolist()):
        row = batch.select(slice(i, i + 1))
        found.append("1" if any(bool(a(model, row, tile=1).success.any()) for a in attacks(factor * radius)) else "0")
    return "".join(found)


def judge(path: Path, images: int, most: int, beyond: int) -> dict[str, Any]:
    """Certify, then attack, one run."""
    subject = hauberk.subject(path)
    batch = hauberk.evaluation_batch(subject.dataset, "test", images)
    frozen = FrozenLipschitz(subject.model, subject.dataset.input_shape)
    classes, radii = frozen(batch.images)
    chosen = (radii > LEAST).nonzero().flatten()[:most]
    rows = Batch(batch.images[chosen].double(), classes[chosen], batch.ids[chosen])
    started = time.perf_counter()
    inside = flips(frozen.model, rows, radii[chosen], INSIDE)
    outside = flips(frozen.model, rows.select(slice(0, beyond)), radii[chosen][:beyond], BEYOND)
    return {
        "run": path.name, "recipe": subject.run.recipe["name"],
        "weights": subject.run.info["hashes"]["weights"], "predictor": subject.run.info["predictor"],
        "ids": batch.ids[chosen].tolist(), "radii": [round(r, 6) for r in radii[chosen].tolist()],
        "inside": inside, "beyond": outside, "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


def text(found: list[dict[str, Any]]) -> str:
    """A Markdown table of the counts."""
    rows = []
    for one in found:
        flipped, tried = one["beyond"].count("1"), len(one["beyond"])
        share = f"{flipped} of {tried}, {words.share(wilson(flipped, tried))} %"
        large = str(sum(r > 0.25 for r in one["radii"]))
        rows.append([one["run"], str(len(one["ids"])), large, str(one["inside"].count("1")), share])
    return markdown.table(
        ("Run", "Certified images", "of radius above 0.25", "flipped at 0.999", "flipped at 1.5"), rows
    ).rstrip()


def main() -> None:
    """Judge the runs that are not in the file yet, write after each, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--most", type=int, default=800)
    parser.add_argument("--beyond", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("results/certified_radii.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(options.out.read_text())["runs"] if options.out.exists() else []
    for path in options.runs:
        if path.name not in {one["run"] for one in known}:
            known.append(judge(path, options.images, options.most, options.beyond))
            options.out.write_text(json.dumps({"environment": environment(), "runs": known}) + "\n")
    print(text(known))


if __name__ == "__main__":
    main()
