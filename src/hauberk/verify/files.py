"""The files of a run, against the hashes that it keeps."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from hauberk.verify.verdict import Verdict


def verify_hashes(run: Path) -> Verdict:
    """Compare the SHA-256 of every record with the one kept in ``run.json``."""
    info = json.loads((run / "run.json").read_text())
    kept = info.get("hashes", {}).get("records", {})
    files = {p.name: p for p in sorted((run / "records").glob("*.parquet"))}
    problems = [f"{name} is missing" for name in kept if name not in files]
    problems += [f"{name} is not listed in run.json" for name in files if name not in kept]
    problems += [
        f"{name} has changed since it was written"
        for name, path in files.items()
        if name in kept and hashlib.sha256(path.read_bytes()).hexdigest() != kept[name]
    ]
    return Verdict(str(info.get("predictor", "")), "hashes", len(files), tuple(problems))
