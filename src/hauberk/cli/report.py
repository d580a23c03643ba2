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
from hauberk.cli.console import emit, notes
from hauberk.errors import HauberkError
from hauberk.later import Later

if TYPE_CHECKING:
    from hauberk.report import collect, logs, page
else:
    collect, logs, page = (Later(f"hauberk.report.{name}") for name in ("collect", "logs", "page"))


def report(
    runs: Annotated[list[Path] | None, typer.Argument(metavar="RUN...", help="Run directories.")] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(help="A certification log, on trust: sigma_0.25,n=100000,alpha=0.001. Repeat for more."),
    ] = None,
    out: options.Out = None,
    json: options.Json = False,
) -> None:
    """Write one self-contained HTML page about one or more runs, by default report.html in the current folder."""
    runs = runs or []
    if not runs and not log:
        raise HauberkError("expected a run or a log to report", "hauberk report RUN, or hauberk report --log FILE")
    twice = next((run for i, run in enumerate(runs) if run.resolve() in [r.resolve() for r in runs[:i]]), None)
    if twice is not None:
        raise HauberkError(f"{twice} is named twice", "name each run once")
    if out is not None and (out.is_dir() or out.suffix not in ("", ".html", ".htm")):
        raise HauberkError(f"-o expects an HTML file, got {out}", f"for example -o {out.with_suffix('')}.html")
    given = [logs.load_log(options.log(text)) for text in log or []]
    notes(said for item in given for said in item.notes)
    path = page.write_report(runs, out or _new(), given)
    emit(
        {"report": str(path), "summary": page.summary(runs, given)} if json else {},
        json,
        [f"report: {path}", *([f"next: {_following(runs)}"] if runs else [])],
    )


def _following(runs: Sequence[Path]) -> str:
    """The command that requires the clean accuracy of the first run that has one; else the command that verifies."""
    for run, facts in zip(runs, collect.load(runs), strict=True):
        number = max((math.floor(100 * s.clean.low) for s in collect.subjects(facts.parts)[:1]), default=0)
        if number:
            return shlex.join(["hauberk", "gate", str(run), "--require", f"lower(clean)>={number}%"])
    return shlex.join(["hauberk", "verify", *map(str, runs)])


def _new() -> Path:
    """``report.html`` in the current folder, with a number if needed, so that no file is overwritten."""
    names = (Path(f"report{'' if n == 1 else f'-{n}'}.html") for n in count(1))
    return next(name for name in names if not name.exists())
