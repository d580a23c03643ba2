"""``hauberk certify RUN``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from hauberk import registry
from hauberk.cli import options, results
from hauberk.cli.console import Reporter, emit, notes
from hauberk.errors import HauberkError
from hauberk.later import Later

if TYPE_CHECKING:
    from hauberk import defences, subjects, threats
    from hauberk.certificates import Certificate, mixed
    from hauberk.evaluation.forecast import Forecast
    from hauberk.subjects import Subject
    from hauberk.verbs import certify as verb
    from hauberk.verbs import dry_run as rehearsal
else:
    defences, subjects, threats = (Later(f"hauberk.{name}") for name in ("defences", "subjects", "threats"))
    mixed, verb = Later("hauberk.certificates.mixed"), Later("hauberk.verbs.certify")
    rehearsal = Later("hauberk.verbs.dry_run")


def certify(
    target: Annotated[str, typer.Argument(metavar="RUN", help=options.MODELS)],
    method: Annotated[
        str | None,
        typer.Option(
            help="lipschitz, smoothing, derandomised_splitting, mmcert; local_lipschitz,threat=linf:8/255 estimates."
        ),
    ] = None,
    norm: Annotated[str | None, typer.Option(help="l1, l2 or linf: of Lipschitz radii.")] = None,
    bound: Annotated[str | None, typer.Option(help="exact, theorem_3_5 or theorem_a1: of a mix.")] = None,
    sigma: Annotated[float | None, typer.Option(help="Noise level of smoothing, pixel units.")] = None,
    n: Annotated[int | None, typer.Option(help="Votes of smoothing.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Failure probability of smoothing.")] = None,
    arch: options.Arch = None,
    data: options.Data = None,
    calibrate_on: options.CalibrateOn = None,
    split: options.Split = None,
    images: options.Images = None,
    first: options.First = False,
    seed: options.Seed = None,
    tile: options.Tile = None,
    budget: Annotated[
        str | None, typer.Option(help="Stop after 90s, 10m or 2h: what is done stays, and the same command goes on.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option(help="Estimate from 200 votes of some images what will be certified, say the cost, stop.")
    ] = False,
    shard: options.Shard = "0/1",
    executor: options.Executor = "inline",
    device: options.Device = "auto",
    precision: options.Precision = "float32",
    out: options.Out = None,
    trust_code: options.TrustCode = False,
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Certify a model, by default as its recipe says or its structure allows. Repeat the command to resume."""
    options.trust_code(trust_code, target, arch)
    options.threads(threads)
    placed = options.device(device, precision)
    share, where = options.shard(shard), options.method(executor, "executor")
    seconds = options.duration("--budget", budget)
    if norm is not None:
        options.choice("--norm", norm, get_args(threats.Norm))
    if bound is not None:
        options.choice("--bound", bound, get_args(mixed.Bound))
    given = {"sigma": sigma, "n": n, "alpha": alpha, "norm": norm}
    subject = subjects.subject(target, out, options.calibrated(options.data(data), calibrate_on), arch=arch)
    notes(subject.notes)
    how = {"split": split, "seed": seed, "tile": tile, "first": first}
    plan = options.plan(subject.recipe, images, device=placed[0], precision=placed[1], **how)
    planned = _certificates(subject, method, {key: value for key, value in given.items() if value is not None}, bound)
    reporter = Reporter(json, placed[2], options.called(subject, shard))
    if dry_run:
        _foretold(rehearsal.dry_run(subject, planned, plan, reporter.evaluating), json)
        return
    run = verb.certify(subject, planned, plan, share, reporter.evaluating, where, seconds)
    if results.nothing(run.path) and seconds is not None:
        emit({}, json, ["the budget ended before anything was done: the same command with a larger one begins again"])
        return
    if results.nothing(run.path):
        emit({}, json, [f"shard {shard} has nothing to do: there are fewer units than shards"])
        return
    folder = shlex.quote(str(run.path))
    stopped = [f"note: {said}" for said in run.info.get("stopped", {}).values()]
    emit(
        results.numbers(run.path) if json else {},
        json,
        [*results.lines(run.path), *stopped, f"page: hauberk report {folder}", f"next: hauberk verify {folder}"],
    )


def _foretold(found: list[tuple[Certificate, Forecast | None]], json: bool) -> None:
    """Print the estimates of a pilot, as one JSON object or as lines."""
    said, lines = [], []
    for item, told in found:
        name = str(registry.spec(item)["name"]).replace("_", " ")
        if told is None:
            lines.append(f"{name}: nothing is foretold of it, for it does not rest on votes alone")
            continue
        levels = [{"eps": eps, "accuracy": vars(share)} for eps, share in told.levels]
        about = {"images": told.images, "votes": told.votes, "n": told.n, "norm": item.norm}
        said.append({"certificate": name, **about, "levels": levels, "mean_radius": vars(told.mean_radius)})
        lines.append(
            f"{name} with n = {told.n:,}: an estimate, not a certificate, from {told.votes} votes of each of "
            f"{told.images} images"
        )
        lines += [f"  certified {item.norm} {eps:g}: about {results.percent(share)}" for eps, share in told.levels]
        mean = told.mean_radius
        ends = f"[{mean.low:.4f}, {mean.high:.4f}]"
        lines.append(f"  mean radius over all images about {mean.value:.4f} {ends} {item.norm}")
    emit({"estimates": said}, json, lines)


def _certificates(
    subject: Subject, method: str | None, settings: dict[str, Any], bound: str | None
) -> list[Certificate]:
    specs = subject.recipe.get("evaluation", {}).get("certificates", [])
    if method is not None:
        specs = [options.described(method)]
        for key in sorted(set(settings) & set(specs[0])):
            raise HauberkError(
                f"--method gives {key} {specs[0][key]}, --{key} says {settings[key]}", "give one of the two"
            )
    elif not specs:
        fitting = verb.default_certificate(subject) or verb.of_draws(subject)
        if fitting is None:
            verb.check_contract(subject)
            raise HauberkError(
                f"this model has no deterministic certificate: {verb.lipschitz_refusal(subject)}",
                "certify it by smoothing instead: --method smoothing --sigma 0.25",
            )
        specs = [registry.spec(fitting)]
    taken = [_taken(spec, settings) if len(specs) > 1 else settings for spec in specs]
    unknown = sorted(set(settings).difference(*taken))
    if unknown:
        raise HauberkError(f"no certificate of this recipe has a setting {unknown[0]!r}", "choose one with --method")
    pairs = zip(specs, taken, strict=True)
    return [registry.build(_completed(subject, spec, given, bound), "certificate") for spec, given in pairs]


def _taken(spec: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The given settings that this certificate, or the certificate that it rests on, has."""
    innermost = spec.get("base", {"name": "lipschitz"}) if spec["name"] == "mixed_margin" else spec
    known = registry.settings(innermost["name"], "certificate")
    return {key: value for key, value in settings.items() if key in known}


def _completed(
    subject: Subject, spec: dict[str, Any], settings: dict[str, Any], bound: str | None
) -> registry.Spec:
    """The certificate with the given settings; for a mix, the mix's certificate that rests on it."""
    if spec["name"] == "mixed_margin":
        base, bound = dict(spec.get("base", {"name": "lipschitz"})), bound or spec.get("bound")
    elif isinstance(subject.model, defences.MixedClassifier):
        base = dict(spec)
    elif bound is None:
        return spec | settings
    else:
        raise HauberkError(
            "--bound chooses between the certificates of a mix, and this model is not a mix",
            "leave it out, or certify a mix",
        )
    # an estimate holds the changes over one budget, and no margin at other radii
    bound = bound or ("theorem_3_5" if base["name"] == "local_lipschitz" else "exact")
    return {"name": "mixed_margin", "base": base | settings, "bound": bound}
