"""``hauberk export RUN -o FILE.npz``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hauberk import registry
from hauberk.cli import options
from hauberk.cli.console import emit
from hauberk.later import Later

if TYPE_CHECKING:
    from hauberk import runs
    from hauberk.verbs import export as exporting
else:
    runs, exporting = Later("hauberk.runs"), Later("hauberk.verbs.export")


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory whose attacks kept images.")],
    threat: Annotated[
        str | None, typer.Option(help="Of which the images are, where several kept some: linf:8/255.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of which the images are, where several kept some.")] = None,
    predictor: Annotated[str | None, typer.Option(help="Of which classifier, where several kept some.")] = None,
    target: Annotated[str | None, typer.Option(help="Of attacks towards this class, by its name or number.")] = None,
    out: options.Out = None,
    json: options.Json = False,
) -> None:
    """Write the kept adversarial images: as arrays with -o FILE.npz, else as PNG files into a folder."""
    ball = None if threat is None else registry.build(threat, "threat")
    found = exporting.kept(runs.Run.open(run), ball, split, predictor, target)
    where = out or Path(f"{run.name}-images")
    path = exporting.arrays(found, where) if where.suffix == ".npz" else exporting.pictures(found, where)
    broken = sum(bool(row["success"]) for row in found)
    lines = [f"exported {len(found)} images, {broken} of them broken: {path}"]
    following = f"next: hauberk report {shlex.quote(str(run))}"
    emit({"export": str(path), "images": len(found), "broken": broken}, json, [*lines, following])
