"""``hauberk gate RUN --require "certified@l2:0.25>=0.60" --against BASELINE``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from hauberk.cli import options
from hauberk.cli.console import emit
from hauberk.cli.failures import failed
from hauberk.later import Later

if TYPE_CHECKING:
    from hauberk.comparison import requirement
    from hauberk.comparison.requirement import Finding
    from hauberk.verbs import gate as verb
    from hauberk.verbs import junit as file
else:
    requirement = Later("hauberk.comparison.requirement")
    verb, file = Later("hauberk.verbs.gate"), Later("hauberk.verbs.junit")

CODES = {"pass": 0, "fail": 1, "cannot tell": 3}
NOT_APPLIED = 2  # nothing was judged: a mistyped requirement, or a missing run


def gate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory or a bundle.")],
    require: Annotated[
        list[str] | None,
        typer.Option(help="'clean>=0.8', 'lower(certified@l2:0.25)>=60%'; may be repeated. See docs/gate.md."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="BASELINE", help="A run on the same images, whose shares must not drop.")
    ] = None,
    drop: Annotated[float, typer.Option(help="With --against: how far a share may fall, 0.01 is one point.")] = 0.0,
    unseen: Annotated[
        float, typer.Option(help="With --against: what a drop may exceed that by and be missed; else: cannot tell.")
    ] = 0.05,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="undiagnosed, questionable or broken: let a robust accuracy pass with such a diagnosis."),
    ] = None,
    of: Annotated[
        str, typer.Option(help="A part of the predictor's name, where a run has several: smoothed.")
    ] = "",
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the findings as JUnit XML.")] = None,
    json: options.Json = False,
) -> None:
    """Judge a run by requirements: exit code 0 pass, 1 fail, 3 cannot tell; 2 if nothing could be judged."""
    try:
        wanted = [requirement.parse(text) for text in require or ()]
        allowed = [cast("verb.Lack", options.choice("--allow", name, verb.LACKS)) for name in allow or ()]
        findings = verb.gate(run, wanted, against, drop, unseen, allowed, of)
        if junit is not None:
            file.write(junit, f"hauberk gate {run}", findings)
    except Exception as error:
        failed(error)
        raise typer.Exit(NOT_APPLIED) from error
    verdict = verb.worst(findings)
    width = max(len(f.verdict) for f in findings)
    emit(
        {"run": str(run), "verdict": verdict, "findings": [asdict(f) for f in findings]},
        json,
        [*(f"{f.verdict:{width}}  {f.name}: {f.reason}" for f in findings), *_next(run, findings)],
    )
    if verdict != "pass":
        raise typer.Exit(CODES[verdict])


def _next(run: Path, findings: Sequence[Finding]) -> list[str]:
    """The command that would settle an open verdict, if there is one; the report command if no verdict is open."""
    doubts = [f for f in findings if f.verdict == "cannot tell"]
    missing = next((f.missing for f in doubts if f.missing), () if doubts else ("report", str(run)))
    return [f"next: {shlex.join(['hauberk', *missing])}"] if missing else []
