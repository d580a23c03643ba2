"""``hauberk attack RUN``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from hauberk import registry
from hauberk.cli import options, results
from hauberk.cli.console import Reporter, emit, notes
from hauberk.errors import HauberkError
from hauberk.later import Later

if TYPE_CHECKING:
    from hauberk import draws, subjects, threats
    from hauberk.attacks import Attack, apgd, autoattack
    from hauberk.subjects import Subject
    from hauberk.verbs import attack as verb
    from hauberk.verbs import certify as certifying
    from hauberk.verbs import variants
else:
    draws, subjects, threats = Later("hauberk.draws"), Later("hauberk.subjects"), Later("hauberk.threats")
    verb, certifying = Later("hauberk.verbs.attack"), Later("hauberk.verbs.certify")
    variants = Later("hauberk.verbs.variants")
    apgd, autoattack = Later("hauberk.attacks.apgd"), Later("hauberk.attacks.autoattack")


def attack(
    target: Annotated[str, typer.Argument(metavar="RUN", help=options.MODELS)],
    threat: Annotated[
        str | None, typer.Option(help="For example linf:8/255, l2:0.5 or l1:12; several as linf:1/255,2/255,4/255.")
    ] = None,
    attacks: Annotated[
        list[str] | None, typer.Option("--attack", help="For example apgd,steps=50; may be repeated.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="AutoAttack's version instead: fast, standard, plus or rand.")
    ] = None,
    one_norm: Annotated[
        bool, typer.Option("--one-norm", help="Do not attack in another norm as well.")
    ] = False,
    aim: Annotated[
        str | None, typer.Option("--target", help="Only points that become this class count: its name or number.")
    ] = None,
    eight_bit: Annotated[
        bool, typer.Option("--eight-bit", help="Round points towards the image to the data's own levels, judge again.")
    ] = False,
    eps50: Annotated[
        bool, typer.Option("--eps50", help="Also look for the nearest error of each image (FMN, in L2 DDN too).")
    ] = False,
    keep: Annotated[
        str | None, typer.Option(help="How many images the records keep with their points, or all; 12 by default.")
    ] = None,
    arch: options.Arch = None,
    data: options.Data = None,
    calibrate_on: options.CalibrateOn = None,
    split: options.Split = None,
    images: options.Images = None,
    first: options.First = False,
    seed: options.Seed = None,
    tile: options.Tile = None,
    shard: options.Shard = "0/1",
    executor: options.Executor = "inline",
    device: options.Device = "auto",
    precision: options.Precision = "float32",
    out: options.Out = None,
    trust_code: options.TrustCode = False,
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Attack a model with its recipe's attacks, or with AutoAttack in a threat. Repeat the command to resume."""
    options.trust_code(trust_code, target, arch)
    options.threads(threads)
    placed = options.device(device, precision)
    balls, share = None if threat is None else options.threats(threat), options.shard(shard)
    where = options.method(executor, "executor")
    if suite is not None:
        options.choice("--suite", suite, [v for v in get_args(autoattack.Version) if v != "custom"])
    subject = subjects.subject(target, out, options.calibrated(options.data(data), calibrate_on), arch=arch)
    notes(subject.notes)
    how = {"split": split, "seed": seed, "tile": tile, "first": first, "gallery": options.kept(keep)}
    if how["gallery"] and not subject.dataset.pictures:
        raise HauberkError(
            f"the licence of {subject.dataset.name} does not allow its images to be passed on", "leave --keep out"
        )
    plan = options.plan(subject.recipe, images, device=placed[0], precision=placed[1], **how)
    planned = [a for ball in balls or (None,) for a in _attacks(subject, ball, attacks, suite)]
    if balls is not None and not (one_norm or attacks or aim):
        planned += _other_norm(subject, planned)
    planned = variants.wrapped(subject, planned, aim, eight_bit)
    if eps50:
        planned += [a for ball in _largest(balls, planned) for a in variants.nearest(ball)]
    reporter = Reporter(json, placed[2], options.called(subject, shard))
    run = verb.attack(subject, planned, plan, share, reporter.evaluating, where)
    if results.nothing(run.path):
        emit({}, json, [f"shard {shard} has nothing to do: there are fewer units than shards"])
        return
    page = f"page: hauberk report {shlex.quote(str(run.path))}"
    following = [page, f"next: {_certify(subject, target, trust_code)}"]
    emit(results.numbers(run.path) if json else {}, json, [*results.lines(run.path), *following])


def _certify(subject: Subject, target: str, trusted: bool) -> str:
    """The command that certifies the same model, by smoothing where no certificate fits its structure."""
    smoothing = "" if certifying.certifiable(subject) else " --method smoothing --sigma 0.25 --n 1000"
    return f"hauberk certify {options.again(subject, target, trusted)}{smoothing}"


def _attacks(
    subject: Subject, ball: threats.Threat | None, names: list[str] | None, suite: str | None
) -> list[Attack]:
    if ball is None:
        planned = subject.recipe.get("evaluation", {}).get("attacks", [])
        if suite is None and names and all("threat" in options.described(name) for name in names):
            return [options.method(name, "attack") for name in names]
        if names or suite or not planned:
            raise HauberkError("no threat was given", "for example --threat linf:8/255")
        return [registry.build(spec, "attack") for spec in planned]
    found = [options.method(name, "attack", threat=ball) for name in names or ()]
    if suite is not None:
        found += verb.suite(subject, ball, cast("autoattack.Version", suite))
    elif not found:
        found += verb.random_suite(subject, ball) if draws.draws_by_key(subject.model) else verb.suite(subject, ball)
    return found


def _largest(balls: Sequence[threats.Threat] | None, planned: Sequence[Attack]) -> list[threats.Threat]:
    """The largest budget of each norm: the search for the nearest error runs once for each norm."""
    every = [*(balls or ()), *(a.threat for a in planned)]
    norms = dict.fromkeys(t.norm for t in (balls or every))
    return [max((t for t in every if t.norm == norm), key=lambda t: t.eps) for norm in norms]


def _other_norm(subject: Subject, planned: list[Attack]) -> list[Attack]:
    """An attack in another norm, for which the model was perhaps not trained, if all planned attacks share one norm."""
    if len({a.threat.norm for a in planned}) > 1:
        return []
    return [verb.other_norm(subject, max((a.threat for a in planned), key=lambda t: t.eps))]
