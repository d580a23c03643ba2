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
    json: options.Json = False,
) -> None:
    """Copy a run without its weights, small enough to commit: records, recipe, environment, hashes."""
    path = bundles.write_bundle(runs.Run.open(run), out or run.with_name(f"{run.name}-bundle"))
    emit({"bundle": str(path)}, json, [f"bundle: {path}", f"next: hauberk verify {shlex.quote(str(path))}"])
