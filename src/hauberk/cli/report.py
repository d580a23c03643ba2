"""``hauberk report RUN... -o report.html``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hauberk.cli import options
from hauberk.cli.console import emit
from hauberk.report import summary, write_report


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")],
    out: options.Out = None,
    json: options.Json = False,
) -> None:
    """Write one self-contained HTML page about one or more runs."""
    path = write_report(runs, out or runs[-1] / "report.html")
    emit({"report": str(path), "summary": summary(runs)} if json else {}, json, [f"report: {path}"])
