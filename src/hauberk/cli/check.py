"""``hauberk check MODEL``."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hauberk import registry
from hauberk.cli import options, results
from hauberk.cli.console import Reporter, clock, emit, notes
from hauberk.errors import HauberkError
from hauberk.later import Later

if TYPE_CHECKING:
    from hauberk import subjects
    from hauberk.attacks import apgd
    from hauberk.verbs import attack, evaluate, samples
    from hauberk.verbs import check as verb
else:
    subjects, apgd = Later("hauberk.subjects"), Later("hauberk.attacks.apgd")
    attack, evaluate = Later("hauberk.verbs.attack"), Later("hauberk.verbs.evaluate")
    samples, verb = Later("hauberk.verbs.samples"), Later("hauberk.verbs.check")

USUAL = 1000  # images of an evaluation


def check(
    target: Annotated[str, typer.Argument(metavar="MODEL", help=options.MODELS)],
    threat: Annotated[str | None, typer.Option(help="Predict the cost of each suite, and judge an attack.")] = None,
    diagnose: Annotated[
        bool, typer.Option("--diagnose", help="With --threat: run the checks that judge an attack, and keep them.")
    ] = False,
    images: Annotated[
        str | None, typer.Option(help="How many images the planned evaluation has; 1000 by default, or all there are.")
    ] = None,
    arch: options.Arch = None,
    data: options.Data = None,
    calibrate_on: options.CalibrateOn = None,
    seed: options.Seed = None,
    tile: options.Tile = None,
    device: options.Device = "auto",
    out: options.Out = None,
    trust_code: options.TrustCode = False,
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Check a model before it is evaluated: contract, gradients, randomness, speed and the cost of each suite."""
    options.trust_code(trust_code, target, arch)
    options.threads(threads)
    where, _, line = options.device(device)
    ball = None if threat is None else registry.build(threat, "threat")
    if diagnose and ball is None:
        raise HauberkError("--diagnose judges an attack, which needs a threat", "add --threat linf:8/255")
    subject = subjects.subject(target, out, options.calibrated(options.data(data), calibrate_on), arch=arch)
    notes((*subject.notes, *subject.dataset.examined()))
    plan = options.plan(subject.recipe, images, seed=seed, tile=tile, device=where)
    most = len(samples.evaluation_samples(subject.dataset, plan.split, plan.images))
    count = min(USUAL, most) if images is None else most
    found = verb.check(subject, ball, count, plan.tile, where)
    lines = [f"  {line}"] + [f"  {'ok  ' if f.good else 'LOOK'}  {f.name}: {f.text}" for f in found.findings]
    if found.speed is not None:
        forward, gradient = 1e3 * found.speed.forward, 1e3 * found.speed.gradient
        seen = f"{forward:.3g} ms an image forward, {gradient:.3g} ms with gradient"
        lines.append(f"  speed: {seen}, in tiles of {plan.tile}")
    lines += [
        f"  autoattack {b.name}: at most {clock(b.seconds)} for {count} images "
        f"({b.forwards} forward, {b.backwards} backward passes each)"
        for b in found.bills
    ]
    if diagnose and ball is not None and found.good:
        few = plan.model_copy(update={"images": min(evaluate.DIAGNOSED, most)})
        run = attack.diagnose(subject, apgd.APGD(ball), few, Reporter(json).evaluating)
        lines += results.diagnosis_lines(run.path)
    state = "ready for an evaluation" if found.good else "not ready: see LOOK below"
    if found.good:
        threat = threat or ("" if subject.recipe.get("evaluation", {}).get("attacks") else "linf:8/255")
        following = f"next: hauberk attack {options.again(subject, target, trust_code)}"
        lines.append(f"{following} --threat {shlex.quote(threat)}" if threat else following)
    emit(asdict(found) | {"good": found.good}, json, [f"{target}: {state}", *lines])
    if not found.good:
        raise typer.Exit(1)
