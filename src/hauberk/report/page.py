"""One self-contained HTML page, and the same numbers as plain JSON values."""

from __future__ import annotations

import base64
import dataclasses
import functools
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
from hauberk.records import Part
from hauberk.report import charts, explorer, lipschitz, words
from hauberk.report.board import Board, Line, boards, first
from hauberk.report.classes import ClassView, class_view
from hauberk.report.collect import RunFacts, by_predictor, load, round_levels, subjects
from hauberk.report.logs import Log
from hauberk.report.mixing import mixes
from hauberk.report.outcomes import at_budget
from hauberk.report.pairs import Held, difference, pairs
from hauberk.report.pictures import Picture, pictures
from hauberk.report.provenance import provenance, run_summary
from hauberk.report.subject import Attacked, Curve, Level, Subject
from hauberk.report.training import Trained, trainings
from hauberk.report.tried import Tried, tried
from hauberk.report.verdict import Difference, Lacks, Verdict, verdict
from hauberk.report.votes import Voted, voted
from hauberk.report.votes import summary as votes_summary
from hauberk.statistics import Interval
from hauberk.storage import atomic_write


@dataclass(frozen=True)
class Bounds:
    """The chart of one norm and its data."""

    norm: str
    attacked: tuple[Attacked, ...]
    curve: Curve | None
    shaded: bool
    spec: charts.Spec


@dataclass(frozen=True)
class Radii:
    """The chart of one certificate or estimate."""

    curve: Curve
    spec: charts.Spec


@dataclass(frozen=True)
class VotesView:
    """Smoothed classifiers and logs in one norm; the levels are radii at which every row has an accuracy."""

    norm: str
    rows: tuple[Voted, ...]
    levels: tuple[float, ...]
    spec: charts.Spec


@dataclass(frozen=True)
class TrainedView:
    """A training as the page shows it."""

    trained: Trained
    spec: charts.Spec


@dataclass(frozen=True)
class SubjectView:
    """A subject as the page shows it."""

    subject: Subject
    bounds: tuple[Bounds, ...]
    radii: tuple[Radii, ...]
    pictures: tuple[Picture, ...]
    headline: Attacked | None
    curve: Curve | None
    level: Level | None
    classes: ClassView | None


@dataclass(frozen=True)
class BoardView:
    """A threat as the page shows it."""

    board: Board
    label: str
    verdict: Verdict
    chart: str


def write_report(runs: Sequence[Path], output: Path, logs: Sequence[Log] = ()) -> Path:
    """Write one HTML file that needs no network and opens from disk.

    Args:
        runs: run directories.
        output: the file to write.
        logs: certification logs from elsewhere (``report.logs.load_log``), shown beside the smoothed classifiers.

    Returns:
        its path.

    Raises:
        HauberkError: if a run or its records cannot be read, there is nothing to report, or rows cannot be joined.
    """
    atomic_write(output, render(_loaded(runs, logs), logs).encode())
    return output


def _loaded(runs: Sequence[Path], logs: Sequence[Log]) -> list[RunFacts]:
    """The loaded runs; the list may be empty if there are logs."""
    return load(runs) if runs or not logs else []


def summary(runs: Sequence[Path], logs: Sequence[Log] = ()) -> dict[str, Any]:
    """Every number of the report as plain JSON values; unknown values are None.

    Raises:
        HauberkError: as ``write_report``.
    """
    found = _loaded(runs, logs)
    parts = [p for run in found for p in run.parts]
    known = subjects(parts)
    own = by_predictor(parts)
    result: dict[str, Any] = _plain({
        "hauberk": hauberk.__version__,
        "subjects": [dataclasses.asdict(s) for s in known],
        "mixes": [explorer.summary(m) for m in mixes(parts, known)],
        "lipschitz": [dataclasses.asdict(v) for v in lipschitz.views(found)],
        "training": [t.summary() for t in trainings(found)],
        "votes": [votes_summary(v) for v in voted([own[s.key] for s in known], str, logs)],
        "runs": [run_summary(r) for r in found],
    })
    return result


def render(runs: Sequence[RunFacts], logs: Sequence[Log] = ()) -> str:
    """The page of these runs and logs as text."""
    parts = [p for run in runs for p in run.parts]
    known = sorted(subjects(parts), key=lambda s: -len(s.attacked) - len(s.certified))
    script, library = _source("page.js") + _source("views.js"), charts.library()
    short = names(runs)
    views = [_view(s, parts) for s in known]
    shown = [explorer.Shown(v.subject, i, tuple(p.id for p in v.pictures)) for i, v in enumerate(views, 1)]
    found = boards(known, [short(s.predictor) for s in known])
    own = by_predictor(parts)
    budgets = list(dict.fromkeys((b.norm, b.eps) for b in found))
    joined = [own[s.key] for s in known]
    held = pairs(known, joined, budgets)
    first_board = first(found) if found else 0
    return _environment().get_template("template.html.j2", globals={"short": short}).render(
        views=views,
        boards=[_board_view(board, joined, len({(b.dataset, b.split) for b in found}) > 1) for board in found],
        first=first_board,
        best=found[first_board].lines[0].number if found else 1,
        overlays=_overlays(found),
        pairs=held,
        votes=_votes(voted(joined, short, logs)),
        mixes=[explorer.view(m, shown, folders(runs)) for m in mixes(parts, known)],
        trainings=[TrainedView(t, charts.along_training(t)) for t in trainings(runs)],
        lipschitz=lipschitz.views(runs),
        gradients=lipschitz.gradients(runs),
        provenance=provenance(runs),
        title=" and ".join(sorted({f"{s.dataset}, {s.split} split" for s in known})) or "certification logs",
        version=hauberk.__version__,
        style=_source("style.css"),
        library=library,
        script=script,
        policy=_policy([library, script]),
    )


@functools.cache
def _environment() -> jinja2.Environment:
    """The environment that compiles the templates, made once in a process."""
    environment = jinja2.Environment(
        autoescape=True, loader=jinja2.PackageLoader("hauberk.report", "."), trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters["attack"] = words.attack
    environment.globals.update({
        "words": words, "charts": charts, "yaml": lambda value: yaml.safe_dump(_plain(value), sort_keys=False),
    })  # fmt: skip
    return environment


def folders(runs: Sequence[RunFacts]) -> dict[str, str]:
    """The folder of each predictor's run, if no other run's folder has the same name."""
    every = [r.name for r in runs]
    return {str(r.info["predictor"]): r.name for r in runs if r.info.get("predictor") and every.count(r.name) == 1}


def names(runs: Sequence[RunFacts]) -> Callable[[str], str]:
    """The short names of predictors: a run's folder name, or a model's name with its hash cut to eight digits."""
    known = folders(runs)

    def short(predictor: str) -> str:
        for full in sorted(known, key=len, reverse=True):  # a mix before the models in it
            predictor = predictor.replace(full, known[full])
        return re.sub(r"\[([0-9a-f]{8})[0-9a-f]+\]", r"[\1]", predictor)

    return short


# --- views ----------------------------------------------------------------------------------------------------


def _board_view(board: Board, joined: Sequence[Sequence[Part]], several: bool) -> BoardView:
    where = words.budget(board.norm, board.eps)
    label = f"{where}, {board.dataset} {board.split}" if several else where
    return BoardView(board, label, verdict(board, *beside(board, joined)), _axis(board))


def beside(board: Board, joined: Sequence[Sequence[Part]]) -> tuple[Difference, Lacks]:
    """The functions that compare two lines of a board, see ``verdict``.

    Attacks that only one kind of model can meet are required of no model.

    Args:
        board: the board; its lines hold the numbers of their records, from 1.
        joined: the records of each classifier.
    """

    @functools.cache
    def left(number: int) -> tuple[Held, Tried] | None:
        attacks = [part for part in joined[number - 1] if part.kind == "attack"]
        seen = at_budget(attacks, board.norm, board.eps)
        if seen is None:
            return None
        return (seen.ids, seen.standing), tried(attacks, board.norm, board.eps, common=True)

    def differs(one: Line, other: Line) -> Interval | None:
        mine, theirs = left(one.number), left(other.number)
        return difference(mine[0], theirs[0]) if mine and theirs else None

    def lacks(one: Line, other: Line) -> bool:
        mine, theirs = left(one.number), left(other.number)
        return bool(mine and theirs and theirs[1].used - mine[1].met)

    return differs, lacks


def _overlays(found: Iterable[Board]) -> dict[str, charts.Spec]:
    """One chart for each axis."""
    specs: dict[str, charts.Spec] = {}
    for board in found:
        if _axis(board) not in specs:
            specs[_axis(board)] = charts.overlay(board)
    return specs


def _votes(rows: Sequence[Voted]) -> list[VotesView]:
    """One table and chart for each norm."""
    found = []
    for norm in dict.fromkeys(row.curve.norm for row in rows):
        own = tuple(row for row in rows if row.curve.norm == norm)
        levels = tuple(round_levels(max(row.curve.steps[-1].eps for row in own)))
        found.append(VotesView(norm, own, levels, charts.radii(own, norm)))
    return found


def _axis(board: Board) -> str:
    return f"{board.dataset} {board.split} {board.norm}"


def _view(subject: Subject, parts: Iterable[Part]) -> SubjectView:
    bounds = []
    for norm in subject.norms:
        attacked, curve = tuple(a for a in subject.attacked if a.norm == norm), subject.curve(norm)
        if attacked:
            spec = charts.accuracy_against_epsilon(subject.clean, attacked, curve)
            shaded = curve is not None and any(a.images == curve.images for a in attacked)
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
        classes=class_view(subject, headline),
    )


def _level(curve: Curve | None, headline: Attacked | None) -> Level | None:
    """The certified accuracy of the headline: at its budget, or at the middle level if there are no attacks."""
    if curve is None:
        return None
    if headline is None:
        return curve.levels[len(curve.levels) // 2]
    return next(level for level in curve.levels if level.eps == headline.eps)


# --- files ----------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """Nested values in the types of JSON: lists, and None for numbers that are not finite."""
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
