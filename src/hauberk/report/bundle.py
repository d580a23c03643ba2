"""A bundle: what an assessor needs of a run, small enough to commit or to send."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hauberk.records import BESIDE, MEASURED, group, read_all, write
from hauberk.runs import Run


def write_bundle(run: Run, out: Path) -> Path:
    """Copy a run without its weights, the units of each evaluation joined into one file.

    Recipe, environment, timings, hashes and metrics come along; ``hauberk report`` and ``hauberk verify`` work on a
    bundle as on the run itself.  The hash of the weights stays, so that they can be matched later.

    Args:
        run: a run with records.
        out: the bundle's folder.

    Returns:
        ``out``.

    Raises:
        HauberkError: if the folder holds another run, or the records contradict each other.
    """
    bundle = Run.prepare(out, run.recipe)
    parts = (part for kind in (*MEASURED, *BESIDE) for part in read_all(run.records, kind))
    paths = [write(bundle.records, part) for part in group(parts)]
    info = run.info
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    bundle.keep_metrics(run.metrics())
    # what makes it a bundle comes after all that it speaks of, and before an older one is taken away
    bundle.update(**info | {"hashes": info.get("hashes", {}) | {"records": dict(sorted(files.items()))}})
    for stale in set(bundle.records.glob("*.parquet")) - set(paths):
        stale.unlink()
    return out
