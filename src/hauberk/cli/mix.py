"""``hauberk mix --accurate RUN --robust RUN --alpha 0.84``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from hauberk import api, mixing, registry
from hauberk.cli import options
from hauberk.cli.console import Reporter, emit, say
from hauberk.errors import HauberkError
from hauberk.evaluation.units import Report
from hauberk.recipes import Evaluation
from hauberk.runs import Run


def mix(
    accurate: Annotated[str | None, typer.Option(help="The accurate model: a run, or module:factory.")] = None,
    robust: Annotated[str | None, typer.Option(help="The robust model: a run, or module:factory.")] = None,
    network: Annotated[Path | None, typer.Option(help="Instead of both: the run of a trained mixing network.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Weight of the robust model, in [0, 1].")] = None,
    clean: Annotated[float | None, typer.Option(help="Instead of a weight: the wanted clean accuracy.")] = None,
    robust_accuracy: Annotated[
        float | None, typer.Option(help="Instead of a weight: the wanted robust accuracy, as estimated.")
    ] = None,
    choose: Annotated[
        str, typer.Option(help="What a wish decides: alpha, scales, nuts (MixedNUTS) or range (of --network).")
    ] = "alpha",
    width: Annotated[float, typer.Option(help="Of a mixing network's range of weights.")] = 0.1,
    accurate_scale: Annotated[float, typer.Option(help="Factor on the accurate model's logits.")] = 1.0,
    robust_scale: Annotated[float, typer.Option(help="Factor on the robust model's logits.")] = 1.0,
    threat: Annotated[str, typer.Option(help="Under which both are attacked on validation images.")] = "linf:8/255",
    calibration_images: Annotated[int, typer.Option(help="Validation images that a wish is judged on.")] = 1000,
    data: options.Data = None,
    out: options.Out = None,
    split: options.Split = "test",
    images: options.Images = None,
    seed: options.Seed = 0,
    tile: options.Tile = 64,
    trust_code: options.TrustCode = False,
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Mix an accurate and a robust model into one, with a given weight or with what a wish needs on validation data."""
    options.trust_code(trust_code, accurate, robust)
    options.threads(threads)
    wish = {"clean": clean, "robust": robust_accuracy}
    wanted = any(v is not None for v in wish.values())
    if (alpha is not None) == wanted:
        raise HauberkError("a mix needs a weight or a wish", "give --alpha, --clean or --robust-accuracy")
    first, second, net = _subjects(accurate, robust, network, data)
    how: registry.Spec
    promise: dict[str, Any] = {}
    if alpha is not None:
        how = mixing.Mixture(alpha, accurate_scale, robust_scale).spec
    else:
        attack = mixing.default_attack(registry.build(threat, "threat"))
        say(f"attacking both models on {calibration_images} validation images")
        plan = options.plan("val", calibration_images, seed, tile)
        logits = mixing.gather(first, second, attack, plan, net)
        helps = mixing.mixability(logits)
        say(helps.sentence)
        kind = "range" if net is not None else choose
        scales = (accurate_scale, robust_scale)
        if scales != (1.0, 1.0) and kind != "alpha":
            raise HauberkError(f"{kind} has scales of its own", "leave out --accurate-scale and --robust-scale")
        if net is not None:
            scales = mixing.scales_of(net)
        how, choice = mixing.choose(logits, kind, **wish, scales=scales, width=width)  # type: ignore[arg-type]
        promise = {"mixability": helps.sentence, "on_validation": asdict(choice)}
    run = _write(first, second, net, how, out, options.plan(split, images, seed, tile), Reporter(json).evaluating)
    settings = ", ".join(f"{key} {value:.6g}" for key, value in how.items() if key != "name")
    emit(
        {"run": str(run.path), "predictor": run.info["predictor"], "mix": how} | promise,
        json,
        [f"mixed {run.path}: {settings}", *_promised(promise), f"next: hauberk attack {run.path} --threat {threat}"],
    )


def _subjects(
    accurate: str | None, robust: str | None, network: Path | None, data: str | None
) -> tuple[api.Subject, api.Subject, api.Subject | None]:
    if network is not None:
        net = api.subject(network)
        return *mixing.bases(net), net
    if accurate is None or robust is None:
        raise HauberkError("which models?", "give --accurate RUN and --robust RUN, or --network RUN")
    return api.subject(accurate, data=data), api.subject(robust, data=data), None


def _write(
    first: api.Subject, second: api.Subject, net: api.Subject | None, how: registry.Spec, out: Path | None,
    plan: Evaluation, report: Report,
) -> Run:  # fmt: skip
    if net is None:
        return mixing.mix(first, second, how, out, plan, report)
    if "alpha_min" not in how:
        raise HauberkError("a mixing network has a range of weights", "wish for a clean accuracy: --clean 0.8")
    return mixing.narrow(net, how["alpha_min"], how["alpha_max"], out, plan)


def _promised(promise: dict[str, Any]) -> list[str]:
    """What was seen on validation images, one line each."""
    found = promise.get("on_validation", {})
    intervals = {name: value for name, value in found.items() if isinstance(value, dict) and "low" in value}
    return [
        f"  on {found['n']} validation images: {name.replace('_', ' ')} {value['value']:.1%} "
        f"({value['low']:.1%} to {value['high']:.1%})"
        for name, value in intervals.items()
    ]
