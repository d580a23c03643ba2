"""``hauberk compare RUN RUN...``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hauberk import registry
from hauberk.cli import options
from hauberk.cli.console import emit
from hauberk.later import Later

if TYPE_CHECKING:
    from hauberk import comparison
    from hauberk.comparison import tables
else:
    comparison, tables = Later("hauberk.comparison"), Later("hauberk.comparison.tables")


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories or bundles.")],
    threat: Annotated[
        list[str] | None,
        typer.Option(help="linf:8/255: budget of attacks, radius of certificates; by default all that were attacked."),
    ] = None,
    line: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Also: how far does each other run lie above the straight line from A to B?"),
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option(metavar="RUN", help="Compare with this run alone; may be given several times.")
    ] = None,
    level: Annotated[float, typer.Option(help="Of every interval, and of all verdicts together.")] = 0.95,
    unlike_attacks: Annotated[
        bool, typer.Option("--unlike-attacks", help="Compare without a verdict where runs met different attacks.")
    ] = False,
    format: Annotated[str, typer.Option(help="terminal, md or json.")] = "terminal",
) -> None:
    """Compare runs on the images they share: accuracies, paired differences, and which differences are beyond doubt.

    Runs whose names differ only in -seed0, -seed1 ... are pooled. P-values are corrected for all comparisons (Holm).
    """
    options.choice("--format", format, ("terminal", "md", "json"))
    threats = [registry.build(text, "threat") for text in threat or ()]
    found = comparison.compare(runs, threats, line, against or (), level, unlike_attacks)
    if format == "md":
        sys.stdout.write(tables.page(found))
    else:
        as_json = format == "json"
        following = f"next: {shlex.join(['hauberk', 'report', *map(str, runs)])}"
        emit(tables.plain(found) if as_json else {}, as_json, [*tables.lines(found), following])
