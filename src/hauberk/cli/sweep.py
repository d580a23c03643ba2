"""``hauberk sweep TABLE``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hauberk.cli import options
from hauberk.cli.console import Reporter, emit, table
from hauberk.errors import HauberkError
from hauberk.later import Later

if TYPE_CHECKING:
    from hauberk.verbs import sweep as table_of_runs
else:
    table_of_runs = Later("hauberk.verbs.sweep")


def sweep(
    path: Annotated[Path, typer.Argument(metavar="TABLE", help="A YAML file with rows of recipes.")],
    out: options.Out = None,
    dry_run: Annotated[bool, typer.Option(help="Predict the minutes and stop.")] = False,
    budget: Annotated[float | None, typer.Option(help="Refuse to start above this many minutes.")] = None,
    shard: options.Shard = "0/1",
    trust_code: options.TrustCode = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Train and evaluate a table of recipes. The minutes are predicted first. Repeat the command to resume."""
    options.trust_code(trust_code)
    options.threads(threads)
    where, _, line = options.device(device)
    index, count = options.shard(shard)
    options.amount("--budget", budget, 0.0)
    plan = table_of_runs.read(path)
    folder = out or Path("runs") / plan.name
    cells = table_of_runs.cells(plan, folder)
    mine = [c for c in cells[index::count] if not c.done]
    options.check_speed(min([c.recipe.training.precision for c in mine], default="float32"), where)  # bfloat16 if any
    costs = table_of_runs.foretold(mine)
    total = sum(cost.total for cost in costs.values())
    if not json:
        table(
            f"{plan.name}: {len(mine)} of {len(cells)} cells to do, about {total:.0f} minutes on this machine",
            ["cell", "seed", "train min", "evaluate min"],
            [[c.label, str(c.seed), f"{costs[c.path].train:.1f}", f"{costs[c.path].evaluate:.1f}"] for c in mine],
        )
    if budget is not None and total > budget:
        raise HauberkError(
            f"this sweep takes about {total:.0f} minutes, more than the budget of {budget:g}",
            "reduce epochs, images or rows, or raise the budget",
        )
    predicted = {"predicted_minutes": round(total, 1), "cells": len(mine)}
    if dry_run:
        emit(predicted, json, [f"next: {shlex.join(['hauberk', 'sweep', str(path), '-o', str(folder)])}"])
        return
    reporter = Reporter(json, line)
    for cell in mine:
        reporter.name = f"{cell.label} seed {cell.seed}"
        table_of_runs.run_cell(cell, reporter.training, reporter.evaluating, where)
    done = [c for c in cells if c.done]
    table_of_runs.tidy(done)
    lines = table_of_runs.results(done)
    saved = table_of_runs.save(plan, lines, folder)
    following = f"next: {shlex.join(['hauberk', 'report', *(str(cell.path) for cell in done)])}"
    emit(
        predicted | {"table": str(saved), "lines": lines}, json,
        [*saved.read_text().splitlines(), *([following] if done else [])],
    )  # fmt: skip
