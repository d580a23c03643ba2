"""``hauberk evaluate MODEL --data DATA``."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from hauberk import registry
from hauberk.cli import options, results
from hauberk.cli.console import Reporter, clock, emit, notes, say
from hauberk.later import Later

if TYPE_CHECKING:
    from hauberk import subjects
    from hauberk.attacks import Attack, autoattack
    from hauberk.report import page
    from hauberk.threats import Threat
    from hauberk.verbs import evaluate as verb
    from hauberk.verbs import samples
else:
    subjects, autoattack = Later("hauberk.subjects"), Later("hauberk.attacks.autoattack")
    page, verb, samples = (Later(f"hauberk.{name}") for name in ("report.page", "verbs.evaluate", "verbs.samples"))


LONG, FEW, LARGE = 120.0, 200, 1000  # fewer images are proposed above these seconds and images; LARGE stands for all


def evaluate(
    target: Annotated[str, typer.Argument(metavar="MODEL", help=options.MODELS)],
    threat: Annotated[
        str | None, typer.Option(help="For example linf:8/255; by default the recipe's, else linf:2/255.")
    ] = None,
    attacks: Annotated[
        list[str] | None, typer.Option("--attack", help="In place of a suite; may be repeated.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="AutoAttack's version: fast (the default), standard, plus or rand.")
    ] = None,
    proof: Annotated[
        str | None, typer.Option("--certify", help="none, or smoothing,sigma=0.25; by default what the model allows.")
    ] = None,
    arch: options.Arch = None,
    data: options.Data = None,
    calibrate_on: options.CalibrateOn = None,
    split: options.Split = None,
    images: options.Images = None,
    first: options.First = False,
    seed: options.Seed = None,
    tile: options.Tile = None,
    executor: options.Executor = "inline",
    device: options.Device = "auto",
    out: options.Out = None,
    trust_code: options.TrustCode = False,
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Evaluate a model in one go: check, attack, certify what can be proved, judge the attack, write one page.

    Repeat the command to continue a stopped evaluation.
    """
    options.trust_code(trust_code, target, arch)
    options.threads(threads)
    placed = options.device(device)
    ball, where = None if threat is None else registry.build(threat, "threat"), options.method(executor, "executor")
    if suite is not None:
        options.choice("--suite", suite, [v for v in get_args(autoattack.Version) if v != "custom"])
    subject = subjects.subject(target, out, options.calibrated(options.data(data), calibrate_on), arch=arch)
    notes(subject.notes)
    plan = options.plan(subject.recipe, images, device=placed[0], split=split, seed=seed, tile=tile, first=first)
    if images is None and plan.images is None:
        most = len(samples.evaluation_samples(subject.dataset, plan.split))
        plan = plan.model_copy(update={"images": min(verb.USUAL, most)})
    chosen = [_attack(name, ball, verb.usual(subject)) for name in attacks or ()]
    proofs = None if proof is None else [] if proof == "none" else [options.method(proof, "certificate")]
    wanted = verb.planned(subject, ball, plan, chosen, proofs, cast("autoattack.Version | None", suite))
    if not json:
        for text in _ahead(wanted, threat is None and not chosen and "evaluation" not in subject.recipe):
            say(text)
    reporter = Reporter(json, placed[2], options.called(subject, "0/1"))
    reporter.foretold = True
    run = verb.carried_out(subject, wanted, reporter.evaluating, where)
    written = page.write_report([run.path], run.path / "report.html")
    folder = shlex.quote(str(run.path))
    about: dict[str, Any] = {"findings": [asdict(f) for f in wanted.findings], "report": str(written)}
    ends = [f"page: {written}", f"next: hauberk verify {folder}"]
    emit(results.numbers(run.path) | about if json else {}, json, [*results.lines(run.path), *ends])


def _attack(text: str, ball: Threat | None, usual: Threat) -> Attack:
    """The attack under the typed threat, which is the command's or the attack's own, else under the usual threat."""
    if ball is None and "threat" in options.described(text):
        return cast("Attack", options.method(text, "attack"))
    return cast("Attack", options.method(text, "attack", threat=ball or usual))


def _ahead(wanted: verb.Planned, usual: bool) -> list[str]:
    """Lines with the findings of the check, the planned work, and the longest time that it takes."""
    bad = [f"  LOOK  {f.name}: {f.text}" for f in wanted.findings if not f.good]
    right = next((f"; accuracy {f.text}" for f in wanted.findings if f.name == "accuracy" and f.good), "")
    seen = [f"check: {len(wanted.findings) - len(bad)} of {len(wanted.findings)} points are good{right}", *bad]
    balls = dict.fromkeys(str(a.threat) for a in wanted.attacks)
    deeds = [f"attacks in {' and '.join(balls)}{' (no threat was given)' if usual else ''}"]
    deeds += [f"a proof by {type(c).__name__}" for c in wanted.certificates]
    deeds += ["a judgement of the attack"] if wanted.diagnosed else []
    count = wanted.plan.images
    fewer = "; fewer images take less: --images 100" if wanted.seconds > LONG and (count or LARGE) > FEW else ""
    said = f"at most {clock(wanted.seconds)} on {count if count else 'all'} images: {', '.join(deeds)}{fewer}"
    return [*seen, said, *(f"note: {remark}" for remark in wanted.remarks)]
