"""The claims of the Householder paper (Singla et al. 2022) on small nets: paired differences over three seeds.

    hauberk sweep recipes/tables/householder_cifar10.yaml     # into runs/householder_cifar10
    hauberk sweep recipes/tables/householder_cifar100.yaml
    python reproductions/householder.py --out results/householder          # from the records of both
    python reproductions/householder.py --out results/householder --render # the text again, from the JSON alone

For every test image and every net the JSON holds one digit: 0 if it is misclassified, else 1 plus the number of radii
36/255, 72/255 and 108/255 up to which it is certified.  Two intervals are given for each difference: one resamples
images (these nets, other images), one is Student's t over the three differences (other seeds, these images).  A claim
holds here only if both stay on its side of zero.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hauberk.records import group, read_all
from hauberk.report import markdown
from hauberk.runs import Run, environment
from hauberk.statistics import student

TABLES = ("householder_cifar10", "householder_cifar100")
LEVELS = ("clean", "36/255", "72/255", "108/255")
RADII = (36 / 255, 72 / 255, 108 / 255)
CLAIMS = (
    ("householder_cifar10", "householder", "maxmin", ("clean", "36/255", "72/255", "108/255"),
     "Householder activations instead of MaxMin"),
    ("householder_cifar10", "householder_cr", "householder", ("clean", "36/255", "72/255", "108/255"),
     "certificate regularisation, gamma 0.1"),
    ("householder_cifar100", "lln", "orthogonal", ("clean", "36/255", "72/255", "108/255"),
     "last-layer normalisation instead of an orthogonal last layer"),
    ("householder_cifar100", "lln_householder", "lln", ("clean", "36/255", "72/255", "108/255"),
     "Householder activations instead of MaxMin, with last-layer normalisation"),
    ("householder_cifar100", "lln_householder_cr", "lln_householder", ("clean", "36/255", "72/255", "108/255"),
     "certificate regularisation, gamma 0.1, with last-layer normalisation"),
)  # fmt: skip


def outcome(run: Run) -> dict[str, Any]:
    """One digit for each test image, in the order of ids, and what the run was."""
    parts = [p for p in group(read_all(run.records, "certificate")) if p.unit["method"]["name"] == "lipschitz"]
    if len(parts) != 1:
        raise SystemExit(f"{run.path}: expected one Lipschitz certificate, found {len(parts)}")
    rows = sorted(parts[0].table.select(["id", "label", "prediction", "radius"]).to_pylist(), key=lambda r: r["id"])
    digits = [
        str(1 + sum(row["radius"] >= r for r in RADII)) if row["prediction"] == row["label"] else "0" for row in rows
    ]
    return {
        "predictor": str(parts[0].unit["predictor"]),
        "first_id": rows[0]["id"], "last_id": rows[-1]["id"], "digits": "".join(digits),
        "train_minutes": round(run.info["timings"]["train_seconds"] / 60.0, 2),
    }  # fmt: skip


def collect(folder: Path) -> dict[str, Any]:
    """The outcomes of all finished nets, by table, row and seed."""
    found: dict[str, Any] = {}
    for table in TABLES:
        for path in sorted((folder / table).glob("*-seed*")):
            run = Run(path)
            if "evaluated" in run.info:
                label, _, seed = path.name.rpartition("-seed")
                found.setdefault(table, {}).setdefault(label, {})[seed] = outcome(run)
    return found


def reached(cells: Mapping[str, Any], level: str) -> NDArray[np.float64]:
    """Whether each image is right and certified that far, shape (seeds, images)."""
    least = 1 + LEVELS.index(level)
    return np.array([[float(int(d) >= least) for d in cells[seed]["digits"]] for seed in sorted(cells)])


def difference(one: Mapping[str, Any], other: Mapping[str, Any], level: str) -> dict[str, Any]:
    """Points by which one row of a table exceeds another, on the same images and seeds."""
    if sorted(one) != sorted(other):
        raise SystemExit(f"expected the same seeds, got {sorted(one)} and {sorted(other)}")
    gaps = 100.0 * (reached(one, level) - reached(other, level))
    images, seeds = student(gaps.mean(0))[0], student(gaps.mean(1))[0]
    return {"points": images.value, "images": [images.low, images.high], "over_seeds": [seeds.low, seeds.high]}


def verdict(found: Mapping[str, Any]) -> str:
    """What both intervals say about a gain."""
    lows, highs = zip(found["images"], found["over_seeds"], strict=True)
    if min(lows) > 0.0:
        return "gain"
    if max(highs) < 0.0:
        return "loss"
    if lows[0] > 0.0 or highs[0] < 0.0:
        return f"{'gain' if lows[0] > 0.0 else 'loss'} of these nets, not beyond their seeds"
    return "not told apart"


def text(content: Mapping[str, Any]) -> str:
    """Both tables and the claims, as Markdown."""
    nets = content["nets"]
    lines = [
        "# Householder activations, last-layer normalisation, certificate regularisation", "",
        "Written by `reproductions/householder.py` from `householder.json`. LipConvnet-5 of a quarter of the width (8 "
        "channels first), skew convolutions with four terms in training and evaluation, 5 epochs; recipes "
        "`householder_cifar10_small` and `householder_cifar100_small`, tables in `recipes/tables/`. CIFAR-100 has 300 "
        "training images a class here, so its numbers compare with each other and not with published ones. Nothing was "
        "chosen on test images.", "",
    ]  # fmt: skip
    for table, rows in nets.items():
        images = len(next(iter(next(iter(rows.values())).values()))["digits"])
        lines += [
            f"## {table}", "",
            f"Percent of {images} test images, mean over seeds, with the seeds' own numbers. Certified: L2 on [0, 1] "
            "pixels, deterministic.", "",
        ]  # fmt: skip
        shown = []
        for label, cells in rows.items():
            row = [label]
            for level in LEVELS:
                each = 100.0 * reached(cells, level).mean(1)
                whole = student(100.0 * reached(cells, level).mean(0))[0]
                parts = ", ".join(f"{v:.1f}" for v in each)
                row.append(f"{each.mean():.1f} ({whole.low:.1f} to {whole.high:.1f}; {parts})")
            minutes = np.mean([cell["train_minutes"] for cell in cells.values()])
            shown.append([*row, f"{minutes:.1f}"])
        lines += [markdown.table(("Net", "Clean", "Certified 36/255", "72/255", "108/255", "Minutes"), shown)]
    lines += [
        "## Claims", "",
        "Differences in points on the same images and seeds; 95 % intervals over images (these nets) and over seeds "
        "(Student's t with two degrees of freedom). A gain is said to be one only if both exclude zero; nothing "
        "corrects for the number of comparisons.", "",
    ]  # fmt: skip
    found = []
    for table, one, other, levels, what in CLAIMS:
        rows = nets.get(table, {})
        if one not in rows or other not in rows or sorted(rows[one]) != sorted(rows[other]):
            continue
        for level in levels:
            d = difference(rows[one], rows[other], level)
            spans = (f"{d[key][0]:+.1f} to {d[key][1]:+.1f}" for key in ("images", "over_seeds"))
            found.append([what, table.partition("_")[2], level, f"{d['points']:+.2f}", *spans, verdict(d)])
    heads = ("Change", "Data", "At", "Points", "Over images", "Over seeds", "Verdict")
    return "\n".join(lines) + "\n" + markdown.table(heads, found)


def main() -> None:
    """Collect, or read what was collected, and write the text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("results/householder"))
    parser.add_argument("--render", action="store_true", help="write the text again from the JSON alone")
    options = parser.parse_args()
    store = options.out / "householder.json"
    if options.render:
        content = json.loads(store.read_text())
    else:
        content = {"environment": environment(), "nets": collect(options.runs)}
        options.out.mkdir(parents=True, exist_ok=True)
        store.write_text(json.dumps(content, indent=1) + "\n")
    (options.out / "householder.md").write_text(text(content))
    print(text(content))


if __name__ == "__main__":
    main()
