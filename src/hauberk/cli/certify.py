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
    from hauberk.subjects import Subject
    from hauberk.verbs import certify as verb
else:
    defences, subjects, threats = (Later(f"hauberk.{name}") for name in ("defences", "subjects", "threats"))
    mixed, verb = Later("hauberk.certificates.mixed"), Later("hauberk.verbs.certify")


def certify(
    target: Annotated[str, typer.Argument(metavar="RUN", help=options.MODELS)],
    method: Annotated[
        str | None,
        typer.Option(help="lipschitz, smoothing, mmcert, or local_lipschitz,threat=linf:8/255 (an estimate)."),
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
    shard: options.Shard = "0/1",
    executor: options.Executor = "inline",
    device: options.Device = "auto",
    precision: options.Precision = "float32",
    out: options.Out = None,
    trust_code: options.TrustCode = False,
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Certify a model; by default as its recipe says, or as its structure allows. The same command again resumes."""
    options.trust_code(trust_code, target, arch)
    options.threads(threads)
    placed = options.device(device, precision)
    share, where = options.shard(shard), options.method(executor, "executor")
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
    run = verb.certify(subject, planned, plan, share, reporter.evaluating, where)
    if results.nothing(run.path):
        emit({}, json, [f"shard {shard} has nothing to do: there are fewer units than shards"])
        return
    folder = shlex.quote(str(run.path))
    emit(
        results.numbers(run.path) if json else {},
        json,
        [*results.lines(run.path), f"page: hauberk report {folder}", f"next: hauberk verify {folder}"],
    )


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
        fitting = verb.default_certificate(subject)
        if fitting is None:
            verb.check_contract(subject)
            raise HauberkError(
                f"this model has no deterministic certificate: {verb.lipschitz_refusal(subject)}",
                "smooth it instead: --method smoothing --sigma 0.25",
            )
        specs = [registry.spec(fitting)]
    taken = [_taken(spec, settings) if len(specs) > 1 else settings for spec in specs]
    unknown = sorted(set(settings).difference(*taken))
    if unknown:
        raise HauberkError(f"no certificate of this recipe has a setting {unknown[0]!r}", "choose one with --method")
    pairs = zip(specs, taken, strict=True)
    return [registry.build(_completed(subject, spec, given, bound), "certificate") for spec, given in pairs]


def _taken(spec: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Those settings that this certificate, or the one that it rests on, has."""
    innermost = spec.get("base", {"name": "lipschitz"}) if spec["name"] == "mixed_margin" else spec
    known = registry.settings(innermost["name"], "certificate")
    return {key: value for key, value in settings.items() if key in known}


def _completed(
    subject: Subject, spec: dict[str, Any], settings: dict[str, Any], bound: str | None
) -> registry.Spec:
    """The certificate with the settings given; of a mix, the mix's certificate that rests on it."""
    if spec["name"] == "mixed_margin":
        base, bound = dict(spec.get("base", {"name": "lipschitz"})), bound or spec.get("bound")
    elif isinstance(subject.model, defences.MixedClassifier):
        base = dict(spec)
    elif bound is None:
        return spec | settings
    else:
        raise HauberkError("--bound is a choice between the certificates of a mix", "leave it out, or certify a mix")
    # an estimate has the changes over one budget and no margin at other radii
    bound = bound or ("theorem_3_5" if base["name"] == "local_lipschitz" else "exact")
    return {"name": "mixed_margin", "base": base | settings, "bound": bound}
