"""``hauberk generate RUN -o FILE.npz``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hauberk.cli import options
from hauberk.cli.console import emit
from hauberk.later import Later

if TYPE_CHECKING:
    from hauberk import runs
    from hauberk.verbs import generate as verb
else:
    runs, verb = Later("hauberk.runs"), Later("hauberk.verbs.generate")


def generate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory of a diffusion model.")],
    images: Annotated[int, typer.Option(min=1, max=10_000_000, help="How many images to make.")] = 1000,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Steps of DDIM: more are slower and better.")] = 50,
    eta: Annotated[float, typer.Option(min=0.0, max=1.0, help="0 is deterministic, 1 ancestral sampling.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise; image j depends on it and on j alone.")] = 0,
    judge: Annotated[
        Path | None, typer.Option(help="Run of a classifier that has learnt from real images: does it agree?")
    ] = None,
    out: options.Out = None,
    threads: options.Threads = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Sample images from a trained diffusion model into an .npz file that states their origin."""
    options.threads(threads)
    where, _, _ = options.device(device, "float32")
    path = out or Path(f"{run.name}.npz")
    asked = None if judge is None else runs.Run.open(judge).load_model()
    told = verb.generate(runs.Run.open(run), path, images, verb.Sampler(steps, eta, seed, where), asked)
    data = f"{{name: generated, of: {{name: {told.settings['data']}}}, file: {path}}}"
    emit(
        {"generated": str(path), **told.plain()},
        json,
        [*told.sentences(str(path)), f"next, in a recipe: extra: [{{data: {data}, share: 0.5}}]"],
    )
