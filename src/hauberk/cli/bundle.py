"""``hauberk bundle RUN -o FOLDER``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from hauberk.cli import options
from hauberk.cli.console import emit
from hauberk.report.bundle import write_bundle
from hauberk.runs import Run


def bundle(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    out: options.Out = None,
    json: options.Json = False,
) -> None:
    """Copy a run without its weights, small enough to commit: records, recipe, environment, hashes."""
    path = write_bundle(Run.open(run), out or run.with_name(f"{run.name}-bundle"))
    emit({"bundle": str(path)}, json, [f"bundle: {path}", f"next: hauberk verify {shlex.quote(str(path))}"])
