"""``hauberk verify RUN``."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hauberk.cli import options
from hauberk.cli.console import Reporter, emit
from hauberk.errors import HauberkError
from hauberk.later import Later

if TYPE_CHECKING:
    from hauberk import audit
    from hauberk import runs as directories
    from hauberk import verify as checks
    from hauberk.verify import Verdict
else:
    audit, directories, checks = (Later(f"hauberk.{name}") for name in ("audit", "runs", "verify"))

SHOWN = 10  # problems of one evaluation


def verify(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")],
    weights: Annotated[bool, typer.Option(help="Also load the model; certify and attack sampled rows again.")] = False,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Rows that --weights draws of each evaluation; by default 299, see below.")
    ] = None,
    every_row: Annotated[bool, typer.Option("--all", help="With --weights: every row.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the sample; without it a new one is drawn.")] = None,
    model: Annotated[
        str | None, typer.Option(help="module:factory or file of a model of your own, with --weights: code is run.")
    ] = None,
    arch: options.Arch = None,
    trust_code: options.TrustCode = False,
    json: options.Json = False,
) -> None:
    """Check a run or a bundle: files, samples, facts, every row against its own evidence, and the data if present.

    --weights draws rows at random, and certifies and attacks them again. If 1 % of all rows are forged, 299 drawn
    rows hold a forged one with probability 95 %. Votes are compared with fresh votes. An attack is a random search,
    so the survivors that a new attack breaks are counted.
    """
    options.trust_code(trust_code, model, arch)
    _check_options(weights, rows, every_row, seed, model or arch)
    drawn = audit.draw() if seed is None else seed
    count = None if every_row else rows or audit.ROWS
    results: list[tuple[Path, list[Verdict]]] = []
    for path in runs:
        directories.Run.open(path)
        with Reporter(json, name=path.name).counting("certifying and attacking again"):
            results.append((path, audit.audit(path, weights, count, drawn, model, arch)))
    every = [(path, v) for path, verdicts in results for v in verdicts]
    broken = sum(bool(v.problems) for _, v in every)
    lines = [line for path, verdicts in results for line in _lines(path, verdicts)]
    lines += [f"sample drawn with --seed {drawn}"] if weights else []
    following = [] if broken else [f"next: {shlex.join(['hauberk', 'report', *map(str, runs)])}"]
    emit(
        {
            "ok": not broken,
            "seed": drawn if weights else None,
            "evaluations": [
                {"run": str(path), "predictor": v.predictor, "method": v.method, "rows": v.rows, "problems": v.problems}
                for path, v in every
            ],
            "runs": [{"run": str(path)} | _ledger(path, verdicts) for path, verdicts in results],
        },
        json,
        [*lines, f"{sum(v.rows for _, v in every)} rows, {broken} evaluations with problems", *following],
    )
    if broken:
        raise typer.Exit(1)


def _check_options(
    weights: bool, rows: int | None, every_row: bool, seed: int | None, model: str | None
) -> None:
    if model is not None and not weights:
        raise HauberkError("--model names the code that --weights runs", "add --weights")
    if not weights and (rows is not None or every_row or seed is not None):
        raise HauberkError("--rows, --all and --seed choose the rows that --weights computes again", "add --weights")
    if rows is not None and every_row:
        raise HauberkError("--all chooses every row, and --rows a number of them", "leave one of them out")


def _lines(path: Path, verdicts: list[Verdict]) -> list[str]:
    """One line for each verdict, its first problems, and the lists of checked and trusted claims."""
    lines = []
    for verdict in verdicts:
        lines.append(f"{'FAIL' if verdict.problems else 'ok  '} {path}  {verdict.method}: {verdict.rows} rows")
        lines += [f"       {problem}" for problem in verdict.problems[:SHOWN]]
        if len(verdict.problems) > SHOWN:
            lines.append(f"       and {len(verdict.problems) - SHOWN} more problems")
    told = _ledger(path, verdicts)
    for name in ("checked", "taken on trust"):
        lines += [f"{name}:", *(f"  - {claim}" for claim in told[name.replace(" ", "_")])]
    return [*lines, f"run.json has SHA-256 {told['sha256']}"]


def _ledger(path: Path, verdicts: list[Verdict]) -> dict[str, list[str] | str]:
    checked, trusted = checks.ledger(verdicts)
    digest = hashlib.sha256((path / "run.json").read_bytes()).hexdigest()
    return {"checked": checked, "taken_on_trust": trusted, "sha256": digest}
