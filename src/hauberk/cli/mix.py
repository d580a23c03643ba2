"""``hauberk mix --accurate RUN --robust RUN --alpha 0.84``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hauberk import api
from hauberk.cli import options
from hauberk.cli.console import Reporter, emit


def mix(
    accurate: Annotated[Path, typer.Option(help="Run of the accurate model.")],
    robust: Annotated[Path, typer.Option(help="Run of the robust model.")],
    alpha: Annotated[float, typer.Option(help="Weight of the robust model, in [0, 1].")],
    accurate_scale: Annotated[float, typer.Option(help="Factor on the accurate model's logits.")] = 1.0,
    robust_scale: Annotated[float, typer.Option(help="Factor on the robust model's logits.")] = 1.0,
    out: options.Out = None,
    split: options.Split = "test",
    images: options.Images = None,
    seed: options.Seed = 0,
    tile: options.Tile = 64,
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Mix an accurate and a robust model into one, with its certificate where the robust one has one."""
    options.threads(threads)
    run = api.mix(
        api.subject(accurate),
        api.subject(robust),
        api.Mixture(alpha, accurate_scale, robust_scale),
        out,
        options.plan(split, images, seed, tile),
        Reporter(json).evaluating,
    )
    emit(
        {"run": str(run.path), "predictor": run.info["predictor"], "alpha": alpha},
        json,
        [f"mixed {run.path}  {run.info['predictor']}", f"next: hauberk attack {run.path} --threat linf:8/255"],
    )
