"""The table of attacks that are made for random models, from bundles: table.json and tradeoff.md beside them.

    python reproductions/random_attacks.py results/hycas_attacks

A round of the sweep is two searches; each number counts the images that are right and fell in no search so far.
Chances of several tries are about the points that the attacks returned, and about the images themselves as a control.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hauberk.evaluation import metrics
from hauberk.records import Part, group, read_all
from hauberk.report import markdown
from hauberk.report.outcomes import correct
from hauberk.report.random_models import random_facts, standing_of
from hauberk.statistics import Interval


def left(parts: list[Part]) -> dict[str, Any]:
    """Of all images the share that is right and stands after these attacks."""
    return asdict(metrics.accuracy(np.array([*standing_of(parts).values()], dtype=np.bool_)))


def suite(parts: list[Part], name: str) -> list[Part]:
    """The attacks of one sequence."""
    return [part for part in parts if (part.unit.get("suite") or {}).get("name") == name]


def measured(folder: Path) -> list[dict[str, Any]]:
    """A line for each bundle."""
    lines = []
    for run in sorted(folder.glob("*-seed*")):
        parts = group(read_all(run / "records", "attack"))
        first = max(parts, key=lambda part: part.table.num_rows)
        facts = random_facts(parts)
        assert facts.sweep is not None and len(facts.transferred) == 1, f"{run} lacks an attack"
        sweep, rand = (suite(parts, name) for name in ("eot_sweep", "autoattack"))
        lines.append({
            "run": run.name, "threat": first.unit["threat"], "clean": asdict(metrics.accuracy(correct(first))),
            "rounds": [asdict(stage) for stage in facts.sweep.stages[1::2]], "settled": facts.sweep.settled,
            "sweep": left(sweep), "rand": left(rand), "all": left(parts),
            "transferred": asdict(facts.transferred[0]), "repeated": [asdict(tries) for tries in facts.repeated],
        })  # fmt: skip
    return lines


def page(lines: list[dict[str, Any]]) -> str:
    """The text of tradeoff.md."""
    longest = max((made["rounds"] for made in lines), key=len)
    rounds = [f"{stage['draws']} draw{'s' * (stage['draws'] > 1)}, {stage['steps']} steps" for stage in longest]
    rows = [
        [made["run"], percent(made["clean"]),
         *(percent(stage["accuracy"]) for stage in made["rounds"]), *[""] * (len(rounds) - len(made["rounds"])),
         "yes" if made["settled"] else "no", percent(made["rand"]), percent(made["all"])]
        for made in lines
    ]  # fmt: skip
    columns = ("Run", "Clean", *rounds, "Stopped falling", "AutoAttack rand", "All attacks")
    threat, count = lines[0]["threat"], lines[0]["clean"]["n"]
    shown = f"{threat['name']} {round(255.0 * float(threat['eps']), 3):g}/255"
    text = f"Per cent of {count} test images, attacked at {shown}, with 95 % intervals; after each round of the sweep."
    text += "\n\n" + markdown.table(columns, rows)
    kinds = ("own", "carried", "single")
    fixed = [
        [made["run"], str(made["transferred"]["draws"]), *(percent(made["transferred"][kind]) for kind in kinds)]
        for made in lines
    ]
    columns = ("Run", "Fixed draws", "Wrong on them", "Wrong on fresh ones", "Of single fresh draws")
    text += "\nOf the images that are right, attacked on fixed draws and tried on fresh ones:\n\n"
    text += markdown.table(columns, fixed)
    tries = [
        [made["run"], str(one["tries"]), percent(one["clean"]), percent(one["attacked"])]
        for made in lines for one in made["repeated"]
    ]  # fmt: skip
    text += "\nThe chance that all of several tries of one point are right:\n\n"
    return text + markdown.table(("Run", "Tries", "Of the images", "Of attacked points"), tries)


def percent(found: dict[str, Any]) -> str:
    value = Interval(**found)
    return f"{100 * value.value:.1f} ({100 * value.low:.1f} to {100 * value.high:.1f})"


def files(folder: Path) -> dict[str, str]:
    """What is written into the folder, by its name."""
    lines = measured(folder)
    return {"table.json": json.dumps(lines, indent=1) + "\n", "tradeoff.md": page(lines)}


if __name__ == "__main__":
    place = Path(sys.argv[1])
    for name, text in files(place).items():
        (place / name).write_text(text)
