"""``hauberk verify RUN``."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from hauberk import api
from hauberk.cli import options
from hauberk.cli.console import emit
from hauberk.runs import Run
from hauberk.verify import Verdict, ledger, verify_run

SHOWN = 10  # problems of one evaluation


def verify(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")],
    weights: Annotated[bool, typer.Option(help="Also load the model and certify 32 sampled rows again.")] = False,
    rows: Annotated[int, typer.Option(help="How many rows --weights samples from each evaluation.")] = 32,
    trust_code: options.TrustCode = False,
    json: options.Json = False,
) -> None:
    """Check a run or a bundle: files, samples, facts, and every row against its own evidence."""
    options.trust_code(trust_code)
    results: list[tuple[Path, list[Verdict]]] = []
    for path in runs:
        Run.open(path)
        verdicts = verify_run(path)
        if weights:
            verdicts += api.recompute(api.subject(path), rows)
        results.append((path, verdicts))
    every = [(path, v) for path, verdicts in results for v in verdicts]
    broken = sum(bool(v.problems) for _, v in every)
    lines = [line for path, verdicts in results for line in _lines(path, verdicts)]
    emit(
        {
            "ok": not broken,
            "evaluations": [
                {"run": str(path), "predictor": v.predictor, "method": v.method, "rows": v.rows, "problems": v.problems}
                for path, v in every
            ],
            "runs": [{"run": str(path)} | _ledger(path, verdicts) for path, verdicts in results],
        },
        json,
        [*lines, f"{sum(v.rows for _, v in every)} rows, {broken} evaluations with problems"],
    )
    if broken:
        raise typer.Exit(1)


def _lines(path: Path, verdicts: list[Verdict]) -> list[str]:
    """One line for each verdict, its first problems, and the two lists."""
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
    checked, trusted = ledger(verdicts)
    digest = hashlib.sha256((path / "run.json").read_bytes()).hexdigest()
    return {"checked": checked, "taken_on_trust": trusted, "sha256": digest}
