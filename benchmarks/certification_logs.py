"""What published certification logs say: certified accuracy, mean radius, and whether n and alpha can be as stated.

    python benchmarks/certification_logs.py FOLDER --n 100000 --alpha 0.001 --out results/certification_logs.json

Every file below the folder with a name such as ``sigma_0.25`` is read, as locuslab/smoothing keeps its logs in
``data/certify``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from hauberk.report.logs import load_log
from hauberk.report.votes import voted
from hauberk.runs import environment


def measured(path: Path, folder: Path, n: int, alpha: float) -> dict[str, Any]:
    """The numbers of one log."""
    log = load_log({"name": str(path), "n": n, "alpha": alpha})
    (row,) = voted([], str, [log])
    held = log.ladder
    return {
        "log": str(path.relative_to(folder)), "sigma": log.noise.sigma, "images": row.curve.right.n,
        "notes": log.told.notes, "abstained": row.curve.abstained.value,
        "mean_radius": dataclasses.asdict(row.curve.mean_radius),
        "certified": {f"{eps:g}": row.curve.at(eps).value for eps in (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)},
        "sure": dataclasses.asdict(row.sure), "held": held and dataclasses.asdict(held),
    }  # fmt: skip


def main() -> None:
    """Read all logs and write what they say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--alpha", type=float, default=0.001)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    logs = sorted(path for path in asked.folder.rglob("sigma_*") if path.is_file())
    rows = [measured(path, asked.folder, asked.n, asked.alpha) for path in logs]
    about = {"n": asked.n, "alpha": asked.alpha, "logs": len(rows), "apart": sum(r["held"]["apart"] > 0 for r in rows)}
    asked.out.write_text(json.dumps({"about": about, "environment": environment(), "rows": rows}, indent=1) + "\n")
    print(json.dumps(about))


if __name__ == "__main__":
    main()
