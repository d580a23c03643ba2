"""One self-contained HTML page, and the same numbers as plain JSON values."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import yaml

import hauberk
from hauberk.records import Part, atomic_write
from hauberk.report import charts, words
from hauberk.report.collect import RunFacts, load, subjects
from hauberk.report.mixing import Mix, mixes
from hauberk.report.pictures import Picture, pictures
from hauberk.report.subject import Attacked, Curve, Level, Subject
from hauberk.statistics import Interval

PLANE_ALPHAS = (0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class Bounds:
    """The chart of one norm and what it was made of."""

    norm: str
    attacked: tuple[Attacked, ...]
    curve: Curve | None
    shaded: bool
    spec: charts.Spec

    @property
    def rows(self) -> int:
        """Lines of its table."""
        return sum(1 + len(a.methods) for a in self.attacked)


@dataclass(frozen=True)
class Radii:
    """The chart of one certificate or estimate."""

    curve: Curve
    spec: charts.Spec


@dataclass(frozen=True)
class SubjectView:
    """What the page shows of a subject."""

    subject: Subject
    bounds: tuple[Bounds, ...]
    radii: tuple[Radii, ...]
    pictures: tuple[Picture, ...]
    headline: Attacked | None
    curve: Curve | None
    level: Level | None


@dataclass(frozen=True)
class MixView:
    """What the page shows of a mix: the chart, the numbers its script counts, and a table for readers without it."""

    mix: Mix
    spec: charts.Spec
    numbers: Mapping[str, Any]
    alphas: tuple[float, ...]


def write_report(runs: Sequence[Path], output: Path) -> Path:
    """Write one HTML file that needs no network and opens from disk.

    Args:
        runs: run directories.
        output: the file to write.

    Returns:
        its path.

    Raises:
        HauberkError: if a run or its records cannot be read, there is nothing to report, or rows cannot be joined.
    """
    found = load(runs)
    atomic_write(output, render(found).encode())
    return output


def summary(runs: Sequence[Path]) -> dict[str, Any]:
    """Every number of the report as plain JSON values; what is unknown is None.

    Raises:
        HauberkError: as ``write_report``.
    """
    found = load(runs)
    parts = [p for run in found for p in run.parts]
    known = subjects(parts)
    result: dict[str, Any] = _plain({
        "hauberk": hauberk.__version__,
        "subjects": [dataclasses.asdict(s) for s in known],
        "mixes": [_mix_summary(m) for m in mixes(parts, known)],
        "runs": [_run_summary(r) for r in found],
    })
    return result


def render(runs: Sequence[RunFacts]) -> str:
    """The page of these runs as text."""
    parts = [p for run in runs for p in run.parts]
    known = sorted(subjects(parts), key=lambda s: -len(s.attacked) - len(s.certified))
    script, library = _source("page.js"), charts.library()
    environment = jinja2.Environment(
        autoescape=True, loader=jinja2.PackageLoader("hauberk.report", "."), trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.globals.update({
        "words": words, "short": names(runs), "yaml": lambda value: yaml.safe_dump(_plain(value), sort_keys=False),
    })  # fmt: skip
    return environment.get_template("template.html.j2").render(
        views=[_view(s, parts) for s in known],
        mixes=[_mix_view(m) for m in mixes(parts, known)],
        runs=[_run_summary(r) for r in runs],
        title=" and ".join(sorted({f"{s.dataset}, {s.split} split" for s in known})),
        version=hauberk.__version__,
        style=_source("style.css"),
        library=library,
        script=script,
        policy=_policy([library, script]),
    )


def names(runs: Sequence[RunFacts]) -> Callable[[str], str]:
    """What a person calls a predictor: a run by its folder's name, another model with its hash cut to eight digits."""
    folders = [r.name for r in runs]
    known = {str(r.info["predictor"]): r.name for r in runs if r.info.get("predictor") and folders.count(r.name) == 1}

    def short(predictor: str) -> str:
        for full in sorted(known, key=len, reverse=True):  # a mix before the models in it
            predictor = predictor.replace(full, known[full])
        return re.sub(r"\[([0-9a-f]{8})[0-9a-f]+\]", r"[\1]", predictor)

    return short


def _view(subject: Subject, parts: Iterable[Part]) -> SubjectView:
    bounds = []
    for norm in subject.norms:
        attacked, curve = tuple(a for a in subject.attacked if a.norm == norm), subject.curve(norm)
        if attacked:
            spec = charts.accuracy_against_epsilon(Level(0.0, subject.clean), list(attacked), curve)
            shaded = curve is not None and all(a.images == curve.images for a in attacked)
            bounds.append(Bounds(norm, attacked, curve, shaded, spec))
    curves = (*subject.certified, *subject.estimated)
    headline = subject.headline
    certificate = subject.curve(headline.norm) if headline else next(iter(subject.certified), None)
    return SubjectView(
        subject=subject,
        bounds=tuple(bounds),
        radii=tuple(Radii(c, charts.accuracy_against_radius(c)) for c in curves),
        pictures=tuple(pictures(subject, parts)),
        headline=headline,
        curve=certificate,
        level=_level(certificate, headline),
    )


def _level(curve: Curve | None, headline: Attacked | None) -> Level | None:
    """The certified accuracy of the headline: at its budget, or without attacks at the middle one."""
    if curve is None:
        return None
    if headline is None:
        return curve.levels[len(curve.levels) // 2]
    return next(level for level in curve.levels if level.eps == headline.eps)


# --- mixes ----------------------------------------------------------------------------------------------------


def _mix_view(mix: Mix) -> MixView:
    alphas = tuple(sorted({*PLANE_ALPHAS, *mix.chosen, *(d.alpha for d in mix.dots)}))
    return MixView(mix, charts.plane(mix), _numbers(mix), alphas)


def _numbers(mix: Mix) -> dict[str, Any]:
    """What the script counts, sorted: the mix is right at alpha for #(low < alpha) - #(high <= alpha) images."""
    ends = [r for r in mix.right if r is not None]
    word = "estimated" if mix.proof == "estimate" else "certified"
    places = sorted({(mix.norm, e) for e in mix.eps} | {(d.norm, d.eps) for d in mix.dots})
    targets = []
    for norm, eps in places:
        index = mix.eps.index(eps) if norm == mix.norm and eps in mix.eps else None
        dots = [d for d in mix.dots if (d.norm, d.eps) == (norm, eps)]
        kinds = ([word] if index is not None else []) + (["attacked"] if dots else [])
        targets.append({
            "label": f"{words.budget(norm, eps)} ({' and '.join(kinds)})",
            "where": words.budget(norm, eps),
            "index": index,
            "dots": [_dot(d.alpha, d.clean, d.attacked) for d in dots],
        })
    if not targets:
        targets = [{"label": "nothing measured yet", "where": "", "index": None, "dots": []}]
    both = [i for i, t in enumerate(targets) if t["index"] is not None and t["dots"]]
    return {
        "images": len(mix.right),
        "alpha": mix.chosen[0],
        "step": 0.01 if all(abs(a * 100 - round(a * 100)) < 1e-9 for a in mix.chosen) else 0.001,
        "low": sorted(a for a, _ in ends),
        "high": sorted(b for _, b in ends),
        "needed": [sorted(row[k] for row in mix.certified if row[k] is not None) for k in range(len(mix.eps))],
        "word": word,
        "targets": targets,
        "target": both[(len(both) - 1) // 2] if both else 0,
    }


def _dot(alpha: float, clean: Interval, attacked: Interval) -> dict[str, Any]:
    name = {0.0: "accurate alone", 1.0: "robust alone"}.get(alpha, f"α = {alpha:g}")
    return {
        "label": name, "alpha": alpha, "text": words.percent(attacked.value, "up"),
        "count": f"{words.count(attacked)} images, at most",
        "x": attacked.value, "xlow": attacked.low, "xhigh": attacked.high,
        "y": clean.value, "ylow": clean.low, "yhigh": clean.high,
    }  # fmt: skip


def _mix_summary(mix: Mix) -> dict[str, Any]:
    word = "estimated_accuracy" if mix.proof == "estimate" else "certified_accuracy"
    named = ("accurate", "robust", "dataset", "split", "norm", "proof", "chosen", "eps")
    alphas = sorted({*PLANE_ALPHAS, *mix.chosen})
    return {name: getattr(mix, name) for name in named} | {
        "images": len(mix.right),
        "either_right": dataclasses.asdict(mix.either_right),
        "attacked": [dataclasses.asdict(d) for d in mix.dots],
        "path": [
            {
                "alpha": alpha,
                "clean_accuracy": dataclasses.asdict(mix.clean_accuracy(alpha)),
                word: [dataclasses.asdict(mix.certified_accuracy(alpha, eps)) for eps in mix.eps],
            }
            for alpha in alphas
        ],
    }


# --- provenance and files -------------------------------------------------------------------------------------


def _run_summary(run: RunFacts) -> dict[str, Any]:
    return {
        "name": run.name,
        "recipe": dict(run.recipe),
        "info": dict(run.info),
        "records": [
            {
                "kind": p.kind,
                "key": p.key,
                "rows": p.table.num_rows,
                "method": p.unit["method"]["name"],
                "threat": words.budget(p.unit["threat"]["name"], p.unit["threat"]["eps"]) if p.kind == "attack" else "",
                "seed": p.unit["seed"],
                "data": p.unit.get("data", "joined"),
            }
            for p in run.parts
        ],
    }


def _plain(value: Any) -> Any:
    """Nested values as JSON has them: lists, and None for what is not a finite number."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _policy(scripts: Iterable[str]) -> str:
    """A content policy that lets the page run its own scripts and load nothing; Vega needs eval for its expressions."""
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{h}'" for h in hashes)
    return (
        f"default-src 'none'; script-src 'unsafe-eval' {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _source(name: str) -> str:
    return resources.files("hauberk.report").joinpath(name).read_text(encoding="utf-8")


def to_json(value: Mapping[str, Any]) -> str:
    """A summary as indented JSON text."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
