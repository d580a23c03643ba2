"""``hauberk attack RUN``."""

from __future__ import annotations

from typing import Annotated

import typer

from hauberk import api, registry
from hauberk.attacks import Attack
from hauberk.cli import options, results
from hauberk.cli.console import Reporter, emit
from hauberk.errors import HauberkError


def attack(
    target: Annotated[str, typer.Argument(metavar="RUN", help="A run directory, or module:factory.")],
    threat: Annotated[str | None, typer.Option(help="For example linf:8/255, l2:0.5 or l1:12.")] = None,
    attacks: Annotated[
        list[str] | None, typer.Option("--attack", help="For example apgd,steps=50; may be repeated.")
    ] = None,
    data: options.Data = None,
    split: options.Split = "test",
    images: options.Images = None,
    seed: options.Seed = 0,
    tile: options.Tile = 64,
    shard: options.Shard = "0/1",
    out: options.Out = None,
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Attack a model; by default with the attacks of its recipe. The same command again resumes."""
    options.threads(threads)
    subject = api.subject(target, out, data)
    planned = _attacks(subject, threat, attacks)
    plan = options.plan(split, images or subject.run.recipe.get("evaluation", {}).get("images"), seed, tile)
    run = api.attack(subject, planned, plan, options.shard(shard), Reporter(json).evaluating)
    emit(
        results.numbers(run.path) if json else {},
        json,
        [*results.lines(run.path), f"next: hauberk certify {run.path}, or hauberk report {run.path}"],
    )


def _attacks(subject: api.Subject, threat: str | None, names: list[str] | None) -> list[Attack]:
    if threat is None:
        planned = subject.run.recipe.get("evaluation", {}).get("attacks", [])
        if names or not planned:
            raise HauberkError("which threat?", "for example --threat linf:8/255")
        return [registry.build(spec, "attack") for spec in planned]
    ball = registry.build(threat, "threat")
    default = ["apgd"] if ball.norm in ("linf", "l2") else ["pgd,steps=100"]
    return [options.method(name, "attack", threat=ball) for name in names or default]
