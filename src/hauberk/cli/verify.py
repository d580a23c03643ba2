"""``hauberk verify RUN``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hauberk import api
from hauberk.cli import options
from hauberk.cli.console import emit
from hauberk.runs import Run
from hauberk.verify import verify_folder, verify_hashes


def verify(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")],
    weights: Annotated[bool, typer.Option(help="Also load the model and certify 32 sampled rows again.")] = False,
    rows: Annotated[int, typer.Option(help="How many rows --weights samples from each evaluation.")] = 32,
    trust_code: options.TrustCode = False,
    json: options.Json = False,
) -> None:
    """Derive every certificate again from its evidence, with numpy and scipy alone, and check the records' hashes."""
    options.trust_code(trust_code)
    results = []
    for path in runs:
        Run.open(path)
        verdicts = [verify_hashes(path), *verify_folder(path / "records")]
        if weights:
            verdicts += api.recompute(api.subject(path), rows)
        results += [(path, verdict) for verdict in verdicts]
    broken = sum(bool(v.problems) for _, v in results)
    lines = []
    for path, verdict in results:
        lines.append(f"{'FAIL' if verdict.problems else 'ok  '} {path}  {verdict.method}: {verdict.rows} rows")
        lines += [f"       {problem}" for problem in verdict.problems[:10]]
    emit(
        {
            "ok": not broken,
            "evaluations": [
                {"run": str(path), "predictor": v.predictor, "method": v.method, "rows": v.rows, "problems": v.problems}
                for path, v in results
            ],
        },
        json,
        [*lines, f"{sum(v.rows for _, v in results)} rows, {broken} evaluations with problems"],
    )
    if broken:
        raise typer.Exit(1)
