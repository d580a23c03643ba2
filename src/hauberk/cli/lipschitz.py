"""``hauberk lipschitz MODEL``."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from hauberk.cli import options
from hauberk.cli.console import emit
from hauberk.later import Later

if TYPE_CHECKING:
    from hauberk import subjects, threats
    from hauberk.evaluation import lipschitz_report
    from hauberk.subjects import Subject
    from hauberk.verbs import lipschitz as verb
else:
    subjects, threats = Later("hauberk.subjects"), Later("hauberk.threats")
    lipschitz_report, verb = Later("hauberk.evaluation.lipschitz_report"), Later("hauberk.verbs.lipschitz")

USUAL = 8  # images


def lipschitz(
    target: Annotated[str, typer.Argument(metavar="MODEL", help=options.MODELS)],
    norm: Annotated[str, typer.Option(help="l1, l2 or linf: of the bounds.")] = "l2",
    images: Annotated[str | None, typer.Option(help="Test images whose gradients are shown; 8 by default.")] = None,
    arch: options.Arch = None,
    data: options.Data = None,
    out: options.Out = None,
    trust_code: options.TrustCode = False,
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Bound a model layer by layer, and show how tight each bound is; the report page shows the bounds too."""
    options.trust_code(trust_code, target, arch)
    options.threads(threads)
    options.choice("--norm", norm, get_args(threats.Norm))
    count = options.count("--images", images or str(USUAL))
    subject = subjects.subject(target, out, options.data(data), arch=arch)
    if images is None:
        count = min(USUAL, len(subject.dataset.test))
    report = verb.lipschitz(subject, cast("threats.Norm", norm), count)
    emit(asdict(report), json, [*_lines(report), f"next: {_attack(subject, target, trust_code)}"])


def _attack(subject: Subject, target: str, trusted: bool) -> str:
    """The report command if the run has records, which a page needs beside the bounds; else the attack command."""
    if any(subject.run.records.glob("*.parquet")):
        return f"hauberk report {shlex.quote(str(subject.run.path))}"
    threat = "" if subject.recipe.get("evaluation", {}).get("attacks") else " --threat linf:8/255"
    return f"hauberk attack {options.again(subject, target, trusted)}{threat}"


def _lines(report: lipschitz_report.LipschitzReport) -> list[str]:
    if report.refused:
        return [
            f"{report.predictor}: no bound: {report.refused}",
            f"  steepest ratio found from {report.starts} images: {report.reached:.4g} (L2)",
        ]
    width = max(len(f"{r.name} {r.kind}") for r in report.layers)
    lines = [
        f"{report.predictor}: Lipschitz constant at most {report.bound:.6g} in {report.norm}, "
        f"at least {report.reached:.4g} in l2; {report.seconds:.1f} s",
        f"  {'layer':{width}}  {'bound':>9}  {'found':>9}  {'kept':>5}  how",
    ]
    for r in report.layers:
        other = "" if r.norm == report.norm else f" ({r.norm})"
        lines.append(
            f"  {f'{r.name} {r.kind}':{width}}  {r.bound:9.6g}  {r.reached:9.6g}  {r.preserved:5.2f}  {r.method}{other}"
        )
    beyond = lipschitz_report.worst_offence(report.layers)
    if beyond is not None:
        lines.append(f"  ALARM: layer {beyond.name} is steeper than its bound; trust no certificate of this model")
    return [*lines, "  found: the steepest ratio in L2; kept: gradient norm on the way back, leaving over entering"]
