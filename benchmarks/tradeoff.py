"""The trade of clean for robust accuracy: mixes against the straight line between their base models, from records.

    python benchmarks/tradeoff.py --accurate BUNDLE --robust BUNDLE MIX... --threat linf:8/255 --out results/tradeoff

A point on the line is what tossing a coin between the two models gives.  ``above the line`` is how much more robust
accuracy a mix has than the point of its own clean accuracy; its interval resamples images, all models on the same ones.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hauberk import registry
from hauberk.records import group, read_all
from hauberk.runs import Run
from hauberk.statistics import Interval, wilson

DRAWS = 10_000
Bools = NDArray[np.bool_]


def outcome(run: Run, threat: Any) -> tuple[dict[int, bool], dict[int, bool]]:
    """By id: right without an attack, and right under all attacks of that threat."""
    clean: dict[int, bool] = {}
    robust: dict[int, bool] = {}
    wanted = {"name": threat.norm, "eps": threat.eps}
    for part in group(read_all(run.records, "attack")):
        if part.unit["threat"] != wanted:
            continue
        for row in part.table.select(["id", "label", "clean_prediction", "success"]).to_pylist():
            sample = row["id"]
            clean[sample] = row["clean_prediction"] == row["label"]
            robust[sample] = robust.get(sample, clean[sample]) and not row["success"]
    return clean, robust


def lift(g: Bools, h: Bools, mix: Bools, g_robust: Bools, h_robust: Bools, mix_robust: Bools) -> NDArray[np.float64]:
    """Robust accuracy above the line at the mix's clean accuracy: sample first, then resamples, (DRAWS + 1,)."""
    columns = np.stack([g, h, mix, g_robust, h_robust, mix_robust], 1).astype(np.float64)
    generator, n = np.random.default_rng(0), len(g)
    means = [columns.mean(0), *(columns[generator.integers(0, n, n)].mean(0) for _ in range(DRAWS))]
    a, b, c, ra, rb, rc = np.array(means).T
    share = (c - b) / (a - b)
    found: NDArray[np.float64] = rc - (share * ra + (1.0 - share) * rb)
    return found


def text(value: Interval) -> str:
    return f"{100 * value.value:.1f} ({100 * value.low:.1f} to {100 * value.high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accurate", type=Path, required=True)
    parser.add_argument("--robust", type=Path, required=True)
    parser.add_argument("mixes", nargs="+", type=Path)
    parser.add_argument("--threat", default="linf:8/255")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    threat = registry.build(options.threat, "threat")
    found = {path.name: outcome(Run(path), threat) for path in (options.accurate, options.robust, *options.mixes)}
    ids = sorted(set.intersection(*(set(clean) for clean, _ in found.values())))
    tables = {name: [np.array([t[i] for i in ids]) for t in pair] for name, pair in found.items()}
    (g, g_robust), (h, h_robust) = tables[options.accurate.name], tables[options.robust.name]
    rows = []
    for name, (clean, robust) in tables.items():
        row: dict[str, Any] = {"run": name, "images": len(ids)}
        row |= {"clean": wilson(int(clean.sum()), len(ids)), "robust": wilson(int(robust.sum()), len(ids))}
        if name not in (options.accurate.name, options.robust.name):
            lifts = lift(g, h, clean, g_robust, h_robust, robust)
            low, high = np.quantile(lifts[1:], [0.025, 0.975])
            row["above the line"] = Interval(float(lifts[0]), float(low), float(high), len(ids))
            row["clean error cut"] = float(1.0 - (~clean).mean() / (~h).mean())
            row["robust accuracy kept"] = float(robust.mean() / h_robust.mean())
        rows.append(row)
    rows.sort(key=lambda r: -r["clean"].value)
    options.out.mkdir(parents=True, exist_ok=True)
    plain = [{k: vars(v) if isinstance(v, Interval) else v for k, v in row.items()} for row in rows]
    (options.out / "tradeoff.json").write_text(json.dumps({"threat": options.threat, "rows": plain}, indent=1) + "\n")
    lines = [
        f"Percent of {len(ids)} test images, 95 % intervals; robust: the worst over all attacks, {options.threat}.", "",
        "| Run | Clean | Robust | Above the line | Clean error cut | Robust accuracy kept |",
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for row in rows:
        rest = ["", "", ""]
        if "above the line" in row:
            shares = [f"{100 * row[k]:.1f} %" for k in ("clean error cut", "robust accuracy kept")]
            rest = [text(row["above the line"]), *shares]
        lines.append("| " + " | ".join([row["run"], text(row["clean"]), text(row["robust"]), *rest]) + " |")
    (options.out / "tradeoff.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
