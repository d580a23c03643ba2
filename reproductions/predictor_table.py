"""A table of predictors from bundles, one run a network and seed: table.json and tradeoff.md beside them.

    python reproductions/predictor_table.py results/hycas/pneumonia

A row is one predictor of one kind of network: what was certified and what was attacked under one name stand together.
A radius counts where the certified class is right.  Of each row it is the mean over seeds, image by image; intervals
are over images.  Minutes are those of training, by the clock of a machine that may have had other work.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hauberk.records import Part, group, read_all
from hauberk.report import markdown
from hauberk.report.outcomes import at_budget, best_proof, correct
from hauberk.statistics import Interval, mean_interval

RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
COMPARED = (0.25, 0.5, 1.0)
Floats = NDArray[np.float64]
Row = dict[str, Floats]


def predictors(run: Path) -> dict[str, list[Part]]:
    """The certificates and attacks of a bundle by the predictor that they are about."""
    found: dict[str, list[Part]] = defaultdict(list)
    for kind in ("certificate", "attack"):
        for part in group(read_all(run / "records", kind)):
            found[str(part.unit["predictor"])].append(part)
    return dict(found)


def row_of(parts: list[Part]) -> tuple[str, Row, NDArray[np.int64]]:
    """The name of what was proved, what became of each image, and the images' labels."""
    proof, attacks = best_proof(parts, "l2"), [p for p in parts if p.kind == "attack"]
    row: Row = {}
    first = proof or max(attacks, key=lambda part: part.table.num_rows)  # later stages see survivors alone
    order = np.argsort(first.column("id"))
    labels = first.column("label")[order]
    row["clean"] = correct(first)[order].astype(np.float64)
    if proof is not None:
        row["radius"] = np.where(correct(proof), proof.column("radius"), -1.0)[order]
    for norm, eps in sorted({(p.unit["threat"]["name"], float(p.unit["threat"]["eps"])) for p in attacks}):
        left = at_budget(attacks, norm, eps)
        if left is not None:
            row[f"{norm}:{eps:.6g}"] = left.survived.astype(np.float64)
    return ("attacked alone" if proof is None else str(proof.unit["method"]["name"])), row, labels


def measured(folder: Path) -> list[dict[str, Any]]:
    """A line for each kind of network and predictor."""
    runs: dict[tuple[str, str], dict[str, Row]] = defaultdict(dict)
    minutes: dict[str, list[float]] = defaultdict(list)
    labels: NDArray[np.int64] | None = None
    for path in sorted(folder.glob("*-seed*")):
        label, _, seed = path.name.rpartition("-seed")
        minutes[label].append(json.loads((path / "run.json").read_text())["timings"].get("train_seconds", 0.0) / 60.0)
        for parts in predictors(path).values():
            kind, row, own = row_of(parts)
            if labels is not None and not np.array_equal(labels, own):
                raise SystemExit(f"{path}: other images than those of the runs before it")
            labels = own
            runs[label, kind][seed] = row
    assert labels is not None, f"{folder} holds no bundle"
    return [
        line(label, kind, list(rows.values()), labels)
        | {"training_minutes": round(float(np.mean(minutes[label])), 2)}
        | {"against_smoothing": differences(rows, runs.get((f"smoothing_{label.rpartition('_')[2]}", "smoothing"), {}))}
        for (label, kind), rows in sorted(runs.items())
    ]


def differences(own: dict[str, Row], plain: dict[str, Row]) -> dict[str, Any]:
    """Of what both measure, how much more than plain smoothing at the same sigma, image by image, in the same seeds."""
    seeds = sorted(own.keys() & plain.keys())
    if own is plain or not seeds:
        return {}
    pairs = [(measures(own[seed]), measures(plain[seed])) for seed in seeds]
    both = [name for name in pairs[0][0] if name in pairs[0][1]]
    return {name: asdict(mean_interval(np.mean([a[name] - b[name] for a, b in pairs], 0))) for name in both}


def measures(row: Row) -> Row:
    """What a table compares, as one number an image."""
    found = {name: values for name, values in row.items() if name != "radius"}
    if "radius" in row:
        found |= {f"L2 {r:g}": (row["radius"] >= r).astype(np.float64) for r in COMPARED}
    return found


def line(label: str, kind: str, rows: list[Row], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Means over seeds, and intervals over images; the balanced accuracy is the mean over classes."""

    def mean(values: Iterable[Floats]) -> Floats:
        found: Floats = np.stack(list(values)).mean(0)
        return found

    clean = mean(row["clean"] for row in rows)
    made: dict[str, Any] = {
        "network": label, "predictor": kind, "seeds": len(rows),
        "clean": asdict(mean_interval(clean)),
        "balanced": round(float(np.mean([clean[labels == c].mean() for c in np.unique(labels)])), 4),
    }  # fmt: skip
    if "radius" in rows[0]:
        made["mean_radius"] = asdict(mean_interval(mean(np.maximum(row["radius"], 0.0) for row in rows)))
        made["certified"] = {
            f"{r:g}": asdict(mean_interval(mean((row["radius"] >= r).astype(np.float64) for row in rows)))
            for r in RADII
        }
    threats = [name for name in rows[0] if name not in ("clean", "radius")]
    made["attacked"] = {name: asdict(mean_interval(mean(row[name] for row in rows))) for name in threats}
    return made


def page(lines: list[dict[str, Any]]) -> str:
    """The table of tradeoff.md."""
    threats = sorted({name for made in lines for name in made["attacked"]})
    certified = any("certified" in made for made in lines)
    radii = RADII[1:] if certified else ()
    columns = ("Network", "Predictor", "Seeds", "Minutes", "Clean", "Balanced", *(["Mean radius"] if certified else []),
               *(f"L2 {r:g}" for r in radii), *(f"attacked {shown(name)}" for name in threats))  # fmt: skip
    rows = []
    for made in lines:
        proved = made.get("certified", {})
        rows.append([
            made["network"], made["predictor"], str(made["seeds"]), f"{made['training_minutes']:.1f}",
            percent(made["clean"]), f"{100 * made['balanced']:.1f}",
            *([f"{made['mean_radius']['value']:.3f}" if proved else ""] if certified else []),
            *(percent(proved[f"{r:g}"]) if proved else "" for r in radii),
            *(percent(made["attacked"][name]) if name in made["attacked"] else "" for name in threats),
        ])  # fmt: skip
    count = lines[0]["clean"]["n"]
    return f"Per cent of {count} test images, with 95 % intervals over images.\n\n" + markdown.table(columns, rows)


def compared(lines: list[dict[str, Any]]) -> str:
    """The differences from plain smoothing."""
    given = [made for made in lines if made["against_smoothing"]]
    if not given:
        return ""
    names = sorted({name for made in given for name in made["against_smoothing"]})
    rows = [
        [made["network"], made["predictor"],
         *(points(made["against_smoothing"][n]) if n in made["against_smoothing"] else "" for n in names)]
        for made in given
    ]  # fmt: skip
    said = "\nPoints more than plain smoothing at the same sigma, paired by image and seed:\n\n"
    return said + markdown.table(("Network", "Predictor", *(shown(n) if ":" in n else n for n in names)), rows)


def points(found: dict[str, Any]) -> str:
    value = Interval(**found)
    return f"{100 * value.value:+.1f} ({100 * value.low:+.1f} to {100 * value.high:+.1f})"


def parts_of_nets(found: dict[str, dict[str, Any]]) -> str:
    """What training left of gates, masks and noise, from ``hycas_noise.py``: means over seeds."""
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name, facts in sorted(found.items()):
        runs[name.rpartition("-seed")[0]].append(facts)
    rows = []
    for label, each in runs.items():
        shares = {s: np.mean([facts["gate"][s] for facts in each]) for s in each[0]["gate"]}
        noise = float(np.mean([facts["noise_share"] for facts in each]))
        factor = "" if each[0]["factor"] is None else f"{np.mean([facts['factor'] for facts in each]):.2f}"
        still = sum(facts["deterministic"] for facts in each)
        said = "random" if not still else "deterministic" if still == len(each) else f"deterministic in {still}"
        gates = ", ".join(f"{stream} {share:.2f}" for stream, share in shares.items())
        rows.append([label, str(len(each)), gates, factor, f"{100 * noise:.1f} %", said])
    columns = ("Network", "Seeds", "Shares of the gates", "Mean factor of the masks", "Noise of the output", "Called")
    return "\nAfter training:\n\n" + markdown.table(columns, rows)


def shown(threat: str) -> str:
    """A threat by its norm and budget, in levels of 255 where it is a whole number of them."""
    norm, _, eps = threat.partition(":")
    levels = round(255.0 * float(eps), 3)
    return f"{norm} {levels:g}/255" if norm == "linf" and levels == round(levels) else f"{norm} {eps}"


def percent(found: dict[str, Any]) -> str:
    value = Interval(**found)
    return f"{100 * value.value:.1f} ({100 * value.low:.1f} to {100 * value.high:.1f})"


def files(folder: Path) -> dict[str, str]:
    """What is written into the folder, by its name."""
    table, noise = measured(folder), folder / "noise.json"
    more = parts_of_nets(json.loads(noise.read_text())) if noise.exists() else ""
    return {"table.json": json.dumps(table, indent=1) + "\n", "tradeoff.md": page(table) + compared(table) + more}


if __name__ == "__main__":
    place = Path(sys.argv[1])
    for name, text in files(place).items():
        (place / name).write_text(text)
