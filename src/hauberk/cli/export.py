"""``hauberk export RUN -o FILE.npz`` or ``FILE.tsv``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hauberk import registry
from hauberk.cli import options
from hauberk.cli.console import emit
from hauberk.errors import HauberkError
from hauberk.later import Later

if TYPE_CHECKING:
    from hauberk import runs
    from hauberk.verbs import export as exporting
    from hauberk.verbs import logs
else:
    runs, exporting, logs = (Later(f"hauberk.{name}") for name in ("runs", "verbs.export", "verbs.logs"))


def export(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run directory whose attacks kept images, or certified by votes.")
    ],
    threat: Annotated[
        str | None, typer.Option(help="Of which the images are, where several kept some: linf:8/255.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of which the images are, where several kept some.")] = None,
    predictor: Annotated[str | None, typer.Option(help="Of which classifier, where several kept some.")] = None,
    target: Annotated[str | None, typer.Option(help="Of attacks towards this class, by its name or number.")] = None,
    method: Annotated[
        str | None, typer.Option(help="Of a log: the certificate as it was asked for, smoothing,sigma=0.25,n=1000.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of a log: of which votes, where there are several.")] = None,
    out: options.Out = None,
    json: options.Json = False,
) -> None:
    """Write kept adversarial images as arrays (-o FILE.npz) or PNG files, or certificates by votes (-o FILE.tsv)."""
    if out is not None and out.suffix == ".tsv":
        if threat is not None or target is not None:
            raise HauberkError(
                "a log holds certificates, and --threat and --target choose attacks", "leave --threat and --target out"
            )
        _log(run, out, {"split": split, "predictor": predictor, "method": method, "seed": seed}, json)
        return
    if method is not None or seed is not None:
        raise HauberkError(
            "--method and --seed choose the certificate that is written to a log", "write one: -o FILE.tsv"
        )
    ball = None if threat is None else registry.build(threat, "threat")
    found = exporting.kept(runs.Run.open(run), ball, split, predictor, target)
    where = out or Path(f"{run.name}-images")
    path = exporting.arrays(found, where) if where.suffix == ".npz" else exporting.pictures(found, where)
    broken = sum(bool(row["success"]) for row in found)
    lines = [f"exported {len(found)} images, {broken} of them broken: {path}"]
    following = f"next: hauberk report {shlex.quote(str(run))}"
    emit({"export": str(path), "images": len(found), "broken": broken}, json, [*lines, following])


def _log(run: Path, out: Path, given: dict[str, Any], json: bool) -> None:
    wanted = {name: str(value) for name, value in given.items() if value is not None}
    if "method" in wanted:
        wanted["method"] = logs.typed(options.method(wanted["method"], "certificate"))
    found = logs.certified(runs.Run.open(run), wanted)
    path, method = logs.write_log(found, out), logs.method_of(found)
    stated = f"{path},noise={registry.spec(method.noise)['name']}:{method.noise.sigma}"
    if (method.rule, method.rival) == ("fixed", "rest"):  # under another bound n and alpha give other radii
        stated += f",n={method.n},alpha={method.alpha}"
    rows, how = found.table.num_rows, logs.typed(method)
    following = shlex.join(["hauberk", "report", "--log", stated])
    lines = [f"exported {rows} certificates by {how}: {path}", f"next: {following}"]
    emit({"export": str(path), "certificates": rows, "method": how}, json, lines)
