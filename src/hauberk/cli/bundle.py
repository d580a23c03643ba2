"""``hauberk bundle RUN -o FOLDER``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hauberk.cli import options
from hauberk.cli.console import emit
from hauberk.later import Later

if TYPE_CHECKING:
    from hauberk import runs
    from hauberk.report import bundle as bundles
else:
    runs, bundles = Later("hauberk.runs"), Later("hauberk.report.bundle")


def bundle(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    out: options.Out = None,
    weights: Annotated[
        bool, typer.Option("--weights", help="Take weights of at most 1 MB along, for: hauberk verify --weights.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Copy a run, small enough to commit: records, recipe, environment, hashes; a small model with --weights."""
    path = bundles.write_bundle(runs.Run.open(run), out or run.with_name(f"{run.name}-bundle"), weights)
    following = shlex.join(["hauberk", "verify", str(path), *(["--weights"] if weights else [])])
    emit({"bundle": str(path)}, json, [f"bundle: {path}", f"next: {following}"])
