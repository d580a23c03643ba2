"""A bundle: the part of a run that an assessor needs, small enough to commit or to send."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hauberk import reading
from hauberk.errors import HauberkError
from hauberk.records import BESIDE, MEASURED, group, read_all, write
from hauberk.runs import Run
from hauberk.storage import atomic_write

MOST_BYTES = 1_000_000  # of weights, so that a repository can hold them
MODEL = ("model.safetensors", "config.json")  # in this order: the second file shows that the model is complete


def write_bundle(run: Run, out: Path, weights: bool = False) -> Path:
    """Copy a run, with the units of each evaluation joined into one file, and on request with small weights.

    Recipe, environment, timings, hashes and metrics come along; ``hauberk report`` and ``hauberk verify`` work on a
    bundle as on the run itself.  The hash of the weights stays, so that they can be matched later.

    Args:
        run: a run with records.
        out: the bundle's folder.
        weights: take the weights along, so that ``hauberk verify --weights`` works too.

    Returns:
        ``out``.

    Raises:
        HauberkError: if the folder holds another run, the records contradict each other or differ from those that
            run.json lists, or the weights are missing or too large.
    """
    _check_signed(run)
    model = _model(run) if weights else {}
    bundle = Run.prepare(out, run.recipe)
    parts = (part for kind in (*MEASURED, *BESIDE) for part in read_all(run.records, kind))
    paths = [write(bundle.records, part) for part in group(parts)]
    info = run.info
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    bundle.keep_metrics(run.metrics())
    for name, content in model.items():
        atomic_write(bundle.checkpoints / name, content)
    # run.json is written after all files that it lists, and before files of an older bundle are removed
    bundle.update(**info | {"hashes": info.get("hashes", {}) | {"records": dict(sorted(files.items()))}})
    for stale in set(bundle.records.glob("*.parquet")) - set(paths):
        stale.unlink()
    return out


def _check_signed(run: Run) -> None:
    """Raise if a record has changed since run.json was written: a bundle's new hashes would hide the change."""
    for name, kept in run.info.get("hashes", {}).get("records", {}).items():
        path = run.records / name
        if not path.exists() or reading.sha256(path) != kept:
            what = "has changed since it was written" if path.exists() else "is missing"
            raise HauberkError(f"{path} {what}", "restore it, or remove it and measure again")


def _model(run: Run) -> dict[str, bytes]:
    """The files of a run's model, by name."""
    if not run.has_model:
        raise HauberkError(f"{run.path} has no weights", "leave --weights out, or bundle a run that has weights")
    files = {name: reading.inside(run.checkpoints, name) for name in MODEL}
    size = files[MODEL[0]].stat().st_size
    if size > MOST_BYTES:
        raise HauberkError(
            f"the weights have {size / 1e6:.1f} MB, a bundle takes at most {MOST_BYTES / 1e6:g}",
            "leave --weights out: the bundle keeps their hash, by which they can be identified",
        )
    return {name: path.read_bytes() for name, path in files.items()}
