"""``hauberk mix --accurate RUN --robust RUN --alpha 0.84``."""

from __future__ import annotations

import math
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from hauberk import registry
from hauberk.cli import options
from hauberk.cli.console import Reporter, emit, notes, say
from hauberk.errors import HauberkError
from hauberk.later import Later

if TYPE_CHECKING:
    from hauberk import subjects
    from hauberk.evaluation.work import Report
    from hauberk.recipes import Evaluation
    from hauberk.runs import Run
    from hauberk.subjects import Subject
    from hauberk.verbs import known_images as knowing
    from hauberk.verbs import mix as mixing
    from hauberk.verbs import wishes as asking
else:
    subjects, mixing = Later("hauberk.subjects"), Later("hauberk.verbs.mix")
    knowing, asking = Later("hauberk.verbs.known_images"), Later("hauberk.verbs.wishes")

WIDTH = 0.1  # of a range of weights
USUAL = 1000  # validation images


def mix(
    accurate: Annotated[str | None, typer.Option(help="The accurate model: a run, or module:factory.")] = None,
    robust: Annotated[str | None, typer.Option(help="The robust model: a run, or module:factory.")] = None,
    network: Annotated[Path | None, typer.Option(help="Instead of both: the run of a trained mixing network.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Weight of the robust model, in [0, 1].")] = None,
    clean: Annotated[
        str | None, typer.Option(help="Instead of a weight: the wanted clean accuracy, 0.8 or 80%.")
    ] = None,
    robust_accuracy: Annotated[
        str | None, typer.Option(help="Instead of a weight: the wanted robust accuracy of all images, as estimated.")
    ] = None,
    keep: Annotated[
        str | None, typer.Option(help="Or which share of the robust model's own accuracy under attack stays, 93%.")
    ] = None,
    choose: Annotated[
        str | None,
        typer.Option(help="What a wish decides: alpha (default), scales, nuts (MixedNUTS) or range (of --network)."),
    ] = None,
    width: Annotated[float | None, typer.Option(help="Of a mixing network's range of weights; 0.1 by default.")] = None,
    accurate_scale: Annotated[float, typer.Option(help="Factor on the accurate model's logits.")] = 1.0,
    robust_scale: Annotated[float, typer.Option(help="Factor on the robust model's logits.")] = 1.0,
    threat: Annotated[str, typer.Option(help="Under which both are attacked on validation images.")] = "linf:8/255",
    calibration_images: Annotated[
        str | None, typer.Option(help="Validation images that a wish is judged on; 1000 by default, or all there are.")
    ] = None,
    data: options.Data = None,
    calibrate_on: options.CalibrateOn = None,
    out: options.Out = None,
    split: options.Split = None,
    images: options.Images = None,
    first_images: options.First = False,
    seed: options.Seed = None,
    tile: options.Tile = None,
    device: options.Device = "auto",
    precision: options.Precision = "float32",
    trust_code: options.TrustCode = False,
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Mix an accurate and a robust model, by a given weight or by settings chosen on validation data for a wish."""
    options.trust_code(trust_code, accurate, robust)
    options.threads(threads)
    placed = options.device(device, precision)
    wish = _wish(clean=clean, robust=robust_accuracy, keep=keep)
    scales = _scales(accurate_scale, robust_scale)
    kind = _kind(alpha, wish, choose, network, width, scales)
    ball = registry.build(threat, "threat")
    asked = options.count("--calibration-images", calibration_images or str(USUAL))
    first, second, net = _subjects(accurate, robust, network, options.calibrated(options.data(data), calibrate_on))
    notes(second.notes)
    how_many = {"split": split, "seed": seed, "tile": tile, "first": first_images}
    plan = options.plan({}, images, device=placed[0], precision=placed[1], **how_many)
    how: registry.Spec
    promise: dict[str, Any] = {}
    if alpha is not None:
        how = mixing.Mixture(alpha, *scales).spec
    else:
        there = len(second.dataset.val)
        asked = there if asked is None else asked if calibration_images else min(asked, there)
        say(f"attacking both models on {asked} validation images")
        calibration = plan.model_copy(update={"split": "val", "images": asked})
        with Reporter(json).counting("attacking both models"):
            logits = mixing.gather(first, second, mixing.default_attack(ball), calibration, net)
        helps = mixing.mixability(logits)
        say(helps.sentence)
        known = knowing.known_images((first, second), (logits.accurate, logits.robust), logits.labels, plan)
        for sentence in known:
            say(f"warning: {sentence}")
        if net is not None:
            scales = mixing.scales_of(net)
        width = WIDTH if width is None else width
        how, choice = mixing.choose(logits, kind, **wish, scales=scales, width=width)
        promise = {"mixability": helps.sentence, "on_validation": asdict(choice), "known_images": known}
    run = _write(first, second, net, how, out, plan, Reporter(json, placed[2]).evaluating)
    knowing.keep(run, promise.get("known_images", []))
    foreign = trust_code or any(subject.planned is not None for subject in (first, second))
    trusted = ["--trust-code"] if foreign else []
    settings = ", ".join(f"{key} {value:.6g}" for key, value in how.items() if key != "name")
    emit(
        {"run": str(run.path), "predictor": run.info["predictor"], "mix": how} | promise,
        json,
        [f"mixed {run.path}: {settings}", *_promised(promise),
         f"next: {shlex.join(['hauberk', 'attack', str(run.path), '--threat', threat, *trusted])}"],
    )  # fmt: skip


def _wish(**given: str | None) -> dict[str, float | None]:
    """The wished accuracies, or the wished share, as numbers."""
    names = {"clean": "--clean", "robust": "--robust-accuracy", "keep": "--keep"}
    return {key: None if text is None else options.share(names[key], text) for key, text in given.items()}


def _scales(accurate: float, robust: float) -> tuple[float, float]:
    for name, value in (("--accurate-scale", accurate), ("--robust-scale", robust)):
        if not (math.isfinite(value) and value > 0.0):
            raise HauberkError(f"{name} expects a number above 0, got {value:g}", f"for example {name} 2")
    return accurate, robust


def _kind(
    alpha: float | None, wish: dict[str, float | None], choose: str | None, network: Path | None, width: float | None,
    scales: tuple[float, float],
) -> mixing.Kind:  # fmt: skip
    """The kind of choice, after the check that no option contradicts another."""
    wishes = [name for name, value in wish.items() if value is not None]
    if (alpha is not None) + len(wishes) != 1:
        raise HauberkError(
            "a mix needs one weight or one target accuracy", "give --alpha, --clean, --robust-accuracy or --keep"
        )
    if alpha is not None:
        if not 0.0 <= alpha <= 1.0:
            raise HauberkError(f"--alpha expects a weight in [0, 1], got {alpha:g}", "for example --alpha 0.8")
        if choose is not None or network is not None:
            other = "--choose needs a target accuracy" if choose is not None else "a mixing network has a weight range"
            raise HauberkError(f"{other}, but --alpha gives one weight", "give --clean, --robust-accuracy or --keep")
    kind = options.choice("--choose", choose or ("range" if network else "alpha"), get_args(mixing.Kind))
    if (kind == "range") != (network is not None):
        raise HauberkError(f"--choose {kind} {'takes no' if network else 'needs a'} --network", "leave --choose out")
    if width is not None and (network is None or not 0.0 < width < 1.0):
        raise HauberkError(
            f"--width {width:g}: expected a width in (0, 1), and a mixing network, which alone has a range of weights",
            "for example --network RUN --clean 0.8 --width 0.1",
        )  # fmt: skip
    if scales != (1.0, 1.0) and kind != "alpha":
        raise HauberkError(f"{kind} finds the scales itself", "leave out --accurate-scale and --robust-scale")
    if alpha is None:
        asking.check(cast("mixing.Kind", kind), wishes)  # before minutes of attacks
    return cast("mixing.Kind", kind)


def _subjects(
    accurate: str | None, robust: str | None, network: Path | None, data: registry.Spec | None
) -> tuple[Subject, Subject, Subject | None]:
    if network is not None:
        if accurate is not None or robust is not None:
            raise HauberkError("--network holds both models already", "leave out --accurate and --robust")
        net = subjects.subject(network)
        net = net if data is None else subjects.judged_on(net, data)
        return *mixing.bases(net), net
    if accurate is None or robust is None:
        raise HauberkError("no models were given", "give --accurate RUN and --robust RUN, or --network RUN")
    return subjects.subject(accurate, data=data), subjects.subject(robust, data=data), None


def _write(
    first: Subject, second: Subject, net: Subject | None, how: registry.Spec, out: Path | None,
    plan: Evaluation, report: Report,
) -> Run:  # fmt: skip
    if net is None:
        return mixing.mix(first, second, how, out, plan, report)
    if "alpha_min" not in how:
        raise HauberkError("the range of a mixing network is chosen by a clean accuracy", "give one: --clean 0.8")
    return mixing.narrow(net, how["alpha_min"], how["alpha_max"], out, plan)


def _promised(promise: dict[str, Any]) -> list[str]:
    """The estimates on validation images with their intervals, one line each."""
    found = promise.get("on_validation", {})
    intervals = {name: value for name, value in found.items() if isinstance(value, dict) and "low" in value}
    return [
        f"  on {found['n']} validation images: {name.replace('_', ' ')} {value['value']:.1%} "
        f"({value['low']:.1%} to {value['high']:.1%})"
        for name, value in intervals.items()
    ]
