"""``hauberk report RUN... -o report.html``."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hauberk.cli import options
from hauberk.cli.console import emit
from hauberk.errors import HauberkError
from hauberk.later import Later

if TYPE_CHECKING:
    from hauberk.report import collect, page
else:
    collect, page = Later("hauberk.report.collect"), Later("hauberk.report.page")


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")],
    out: options.Out = None,
    json: options.Json = False,
) -> None:
    """Write one self-contained HTML page about one or more runs, by default report.html in the current folder."""
    twice = next((run for i, run in enumerate(runs) if run.resolve() in [r.resolve() for r in runs[:i]]), None)
    if twice is not None:
        raise HauberkError(f"{twice} is named twice", "name each run once")
    if out is not None and (out.is_dir() or out.suffix not in ("", ".html", ".htm")):
        raise HauberkError(f"-o expects an HTML file, got {out}", f"for example -o {out.with_suffix('')}.html")
    path = page.write_report(runs, out or _new())
    emit(
        {"report": str(path), "summary": page.summary(runs)} if json else {},
        json,
        [f"report: {path}", f"next: {_following(runs)}"],
    )


def _following(runs: Sequence[Path]) -> str:
    """The command that holds a run like the first one to what that has, its clean accuracy; or checks the records."""
    for run, facts in zip(runs, collect.load(runs), strict=True):
        number = max((math.floor(100 * s.clean.low) for s in collect.subjects(facts.parts)[:1]), default=0)
        if number:
            return shlex.join(["hauberk", "gate", str(run), "--require", f"lower(clean)>={number}%"])
    return shlex.join(["hauberk", "verify", *map(str, runs)])


def _new() -> Path:
    """``report.html`` here, or with a number behind it: what is there already stays."""
    names = (Path(f"report{'' if n == 1 else f'-{n}'}.html") for n in count(1))
    return next(name for name in names if not name.exists())
