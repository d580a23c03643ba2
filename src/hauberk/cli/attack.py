"""``hauberk attack RUN``."""

from __future__ import annotations

import math
from typing import Annotated, cast

import typer

from hauberk import api, registry
from hauberk.attacks import APGD, Attack
from hauberk.attacks.autoattack import Version
from hauberk.cli import options, results
from hauberk.cli.console import Reporter, emit
from hauberk.errors import HauberkError
from hauberk.threats import counterpart

OTHER_STEPS = 50  # of the attack in another norm


def attack(
    target: Annotated[str, typer.Argument(metavar="RUN", help="A run directory, or module:factory.")],
    threat: Annotated[str | None, typer.Option(help="For example linf:8/255, l2:0.5 or l1:12.")] = None,
    attacks: Annotated[
        list[str] | None, typer.Option("--attack", help="For example apgd,steps=50; may be repeated.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="AutoAttack's version instead: fast, standard, plus or rand.")
    ] = None,
    one_norm: Annotated[
        bool, typer.Option("--one-norm", help="Do not attack in another norm as well.")
    ] = False,
    data: options.Data = None,
    split: options.Split = "test",
    images: options.Images = None,
    seed: options.Seed = 0,
    tile: options.Tile = 64,
    shard: options.Shard = "0/1",
    out: options.Out = None,
    trust_code: options.TrustCode = False,
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Attack a model: with its recipe's attacks, or AutoAttack in a threat. The same command again resumes."""
    options.trust_code(trust_code, target)
    options.threads(threads)
    subject = api.subject(target, out, data)
    planned = _attacks(subject, threat, attacks, suite)
    if threat is not None and not (one_norm or attacks):
        planned += _other_norm(subject, planned)
    plan = options.plan(split, images or subject.run.recipe.get("evaluation", {}).get("images"), seed, tile)
    run = api.attack(subject, planned, plan, options.shard(shard), Reporter(json).evaluating)
    emit(
        results.numbers(run.path) if json else {},
        json,
        [*results.lines(run.path), f"next: hauberk certify {run.path}, or hauberk report {run.path}"],
    )


def _attacks(
    subject: api.Subject, threat: str | None, names: list[str] | None, suite: str | None
) -> list[Attack]:
    if threat is None:
        planned = subject.run.recipe.get("evaluation", {}).get("attacks", [])
        if names or suite or not planned:
            raise HauberkError("which threat?", "for example --threat linf:8/255")
        return [registry.build(spec, "attack") for spec in planned]
    ball = registry.build(threat, "threat")
    found = [options.method(name, "attack", threat=ball) for name in names or ()]
    if suite is not None or not found:
        found += api.suite(subject, ball, cast("Version", suite or "fast"))
    return found


def _other_norm(subject: api.Subject, planned: list[Attack]) -> list[Attack]:
    """A look at a norm the model was perhaps not trained for, where only one is planned."""
    if len({a.threat.norm for a in planned}) > 1:
        return []
    largest = max((a.threat for a in planned), key=lambda t: t.eps)
    return [APGD(counterpart(largest, math.prod(subject.dataset.input_shape)), steps=OTHER_STEPS)]
