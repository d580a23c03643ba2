"""``hauberk train RECIPE``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from hauberk.cli import options
from hauberk.cli.console import Reporter, emit
from hauberk.later import Later

if TYPE_CHECKING:
    from hauberk import recipes
    from hauberk.runs import Run
    from hauberk.training import distributed
    from hauberk.verbs import train as verb
else:
    recipes, distributed = Later("hauberk.recipes"), Later("hauberk.training.distributed")
    verb = Later("hauberk.verbs.train")


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of one that Hauberk brings along.")],
    out: options.Out = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Replace a value: training.epochs=5.")] = None,
    trust_code: options.TrustCode = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
    precision: options.Precision = "float32",
    json: options.Json = False,
) -> None:
    """Train a recipe's model. Repeat the command to resume."""
    trusted = options.trust_code(trust_code, *(set_ or []))
    options.threads(threads)
    where, products, line = options.device(device, precision)
    chosen = recipes.read(recipe, set_ or [])
    if distributed.is_main():
        options.check_speed(chosen.training.precision, where)
    report = Reporter(json or not distributed.is_main(), line, out.name if out else "").training
    run = verb.train(chosen, out, report, where, products)
    if distributed.is_main():
        _say(run, json, trusted)
    distributed.leave()


def _say(run: Run, json: bool, trusted: bool) -> None:
    threat = "" if run.recipe.get("evaluation", {}).get("attacks") else " --threat linf:8/255"
    threat += " --trust-code" if trusted else ""
    best = run.info.get("selected", {})
    emit(
        {"run": str(run.path), "predictor": run.info["predictor"], "timings": run.info["timings"], "selected": best},
        json,
        [f"trained {run.path}  {run.info['predictor']}", f"next: hauberk attack {shlex.quote(str(run.path))}{threat}"],
    )
