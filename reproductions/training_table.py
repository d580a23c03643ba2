"""The table of training methods from bundles, one run a method and seed: table.json and tradeoff.md beside them.

    python reproductions/training_table.py results/training results/training_cost.json

Of a method with several seeds a value is the mean over seeds, image by image; intervals are over images.  Each attack
is a column; the worst case counts an image that any of them broke.  The difference of the worst case from that of plain
PGD training is paired by image and seed, over the seeds that both have.  Costs are times standard training.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hauberk.records import group, read_all
from hauberk.report import markdown
from hauberk.report.outcomes import at_budget, correct
from hauberk.statistics import Interval, mean_interval

PLAIN = "pgd_3"
Values = dict[str, NDArray[np.float64]]


def outcome(run: Path) -> Values:
    """What became of each image: clean, under each attack, and under all of them."""
    parts = group(read_all(run / "records", "attack"))
    first = min(parts, key=lambda part: len(part.column("id")) * -1)
    found: Values = {"clean": correct(first)[np.argsort(first.column("id"))].astype(np.float64)}
    named = defaultdict(list)
    for part in parts:
        named["autoattack" if part.unit.get("suite") else str(part.unit["method"]["name"])].append(part)
    threat = parts[0].unit["threat"]
    for name, own in [*sorted(named.items()), ("worst case", parts)]:
        left = at_budget(own, threat["name"], float(threat["eps"]))
        assert left is not None, f"{run}: {name} has no verdict on each image"
        found[name] = left.standing.astype(np.float64)
    return found


def measured(folder: Path, costs: Path) -> list[dict[str, Any]]:
    """A line for each method, the most robust first."""
    runs: dict[str, dict[str, Values]] = defaultdict(dict)
    for path in sorted(folder.glob("*-seed*")):
        label, _, seed = path.name.rpartition("-seed")
        runs[label][seed] = outcome(path)
    cost = json.loads(costs.read_text())["methods"]
    lines = []
    for label, by_seed in runs.items():
        rows = list(by_seed.values())
        names = list(rows[0])
        lines.append({"method": label, "seeds": len(rows), "times_standard": cost.get(label, {}).get("total")} | {
            name: asdict(mean_interval(np.mean([row[name] for row in rows], 0))) for name in names
        } | {
            "over_seeds": [round(float(row["worst case"].mean()), 4) for row in rows],
            "against_plain": None if label == PLAIN else difference(by_seed, runs[PLAIN]),
        })  # fmt: skip
    return sorted(lines, key=lambda made: -made["worst case"]["value"])


def difference(own: dict[str, Values], plain: dict[str, Values]) -> dict[str, Any]:
    """Of the worst case, how much more than plain PGD training."""
    apart = [own[seed]["worst case"] - plain[seed]["worst case"] for seed in sorted(own.keys() & plain.keys())]
    return asdict(mean_interval(np.mean(apart, 0)))


def page(lines: list[dict[str, Any]]) -> str:
    """The table of tradeoff.md."""
    names = [name for name, value in lines[0].items() if isinstance(value, dict) and name != "against_plain"]
    columns = ("Method", "Seeds", "Cost, times standard", *names, "worst case of each seed", f"points over {PLAIN}")
    rows = [
        [made["method"], str(made["seeds"]), "" if made["times_standard"] is None else f"{made['times_standard']:.1f}",
         *(percent(made[name]) for name in names), ", ".join(f"{100 * v:.1f}" for v in made["over_seeds"]),
         "" if made["against_plain"] is None else percent(made["against_plain"], "+")]
        for made in lines
    ]  # fmt: skip
    count = lines[0]["clean"]["n"]
    return f"Per cent of {count} test images, with 95 % intervals over images.\n\n" + markdown.table(columns, rows)


def percent(found: dict[str, Any], sign: str = "") -> str:
    value = Interval(**found)
    least, most = 100 * value.low, 100 * value.high
    return f"{100 * value.value:{sign}.1f} ({least:{sign}.1f} to {most:{sign}.1f})"


def files(folder: Path, costs: Path) -> dict[str, str]:
    """What is written into the folder, by its name."""
    lines = measured(folder, costs)
    return {"table.json": json.dumps(lines, indent=1) + "\n", "tradeoff.md": page(lines)}


if __name__ == "__main__":
    place = Path(sys.argv[1])
    for name, text in files(place, Path(sys.argv[2])).items():
        (place / name).write_text(text)
