"""``hauberk certify RUN``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hauberk import api, registry
from hauberk.certificates import Certificate
from hauberk.cli import options, results
from hauberk.cli.console import Reporter, emit
from hauberk.errors import HauberkError


def certify(
    target: Annotated[str, typer.Argument(metavar="RUN", help="A run directory, or module:factory.")],
    method: Annotated[str | None, typer.Option(help="lipschitz, smoothing or mixed_margin.")] = None,
    sigma: Annotated[float | None, typer.Option(help="Noise level of smoothing, pixel units.")] = None,
    n: Annotated[int | None, typer.Option(help="Votes of smoothing.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Failure probability of smoothing.")] = None,
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
    """Certify a model; by default as its recipe says, or as its structure allows. The same command again resumes."""
    options.threads(threads)
    subject = api.subject(target, out, data)
    settings = {key: value for key, value in (("sigma", sigma), ("n", n), ("alpha", alpha)) if value is not None}
    planned = _certificates(subject, method, settings)
    plan = options.plan(split, images or subject.run.recipe.get("evaluation", {}).get("images"), seed, tile)
    run = api.certify(subject, planned, plan, options.shard(shard), Reporter(json).evaluating)
    emit(
        results.numbers(run.path) if json else {},
        json,
        [*results.lines(run.path), f"next: hauberk verify {run.path}, or hauberk report {run.path}"],
    )


def _certificates(subject: api.Subject, method: str | None, settings: dict[str, Any]) -> list[Certificate]:
    if method is not None:
        return [registry.build({"name": method} | settings, "certificate")]
    planned = subject.run.recipe.get("evaluation", {}).get("certificates", [])
    if planned:
        return [registry.build(spec | settings, "certificate") for spec in planned]
    fitting = api.default_certificate(subject)
    if fitting is None:
        raise HauberkError(
            "this model has no deterministic certificate: some layer has no Lipschitz bound",
            "smooth it instead: --method smoothing --sigma 0.25",
        )
    return [fitting]
