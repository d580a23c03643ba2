"""A plain, typed summary of run directories, computed from their records alone.

A subject is one predictor on one split.  Rows of different predictors or norms are never joined, and estimates are
kept apart from certificates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from hauberk import records
from hauberk.errors import HauberkError
from hauberk.evaluation import metrics
from hauberk.evaluation.by_class import balanced, by_class
from hauberk.records import Part
from hauberk.report import variants
from hauberk.report.mixing import certificate
from hauberk.report.observations import observed
from hauberk.report.outcomes import clean_rows, correct, images_hash, in_order, outcomes, plain, right_by_id
from hauberk.report.random_models import random_facts
from hauberk.report.subject import (
    Attacked,
    Contradiction,
    Curve,
    Finding,
    Judgement,
    Level,
    Method,
    Subject,
)
from hauberk.runs import Run
from hauberk.statistics import wilson
from hauberk.verify import Verdict, verify_once

Draws: TypeAlias = tuple[metrics.RandomAccuracy, metrics.RandomAccuracy]
VERDICTS = ("sound", "questionable", "broken")
Key: TypeAlias = tuple[str, str, str]  # predictor, dataset, split
MOST_STEPS = 1000


@dataclass(frozen=True)
class RunFacts:
    """One run: its name, recipe, facts, records, verdicts and metrics."""

    name: str
    recipe: Mapping[str, Any]
    info: Mapping[str, Any]
    parts: tuple[Part, ...]
    verdicts: tuple[Verdict, ...] = ()
    metrics: tuple[Mapping[str, Any], ...] = ()


def load(paths: Sequence[Path]) -> list[RunFacts]:
    """Read runs and their records.

    Raises:
        HauberkError: if a path is no run, or no run has a record.
    """
    found = []
    for path in paths:
        run = Run.open(path)
        parts = told_apart(records.read_all(run.records))
        verdicts, metrics = tuple(verify_once(run.path)), tuple(run.metrics())
        found.append(RunFacts(Path(path).resolve().name, run.recipe, run.info, parts, verdicts, metrics))
    if not any(run.parts for run in found):
        raise HauberkError("there are no records to report", "measure first: hauberk attack RUN or hauberk certify RUN")
    return found


def told_apart(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The parts of one run; functions with the same predictor's name but other answers get names of their own."""
    known: dict[str, set[str]] = {}
    for part in (p for p in parts if "answers" in p.unit):
        known.setdefault(str(part.unit["predictor"]), set()).add(str(part.unit["answers"]))
    return tuple(
        replace(p, unit={**p.unit, "predictor": f"{p.unit['predictor']} answering {p.unit['answers'][:8]}"})
        if "answers" in p.unit and len(known[str(p.unit["predictor"])]) > 1 else p
        for p in parts
    )  # fmt: skip


def subjects(parts: Iterable[Part]) -> list[Subject]:
    """One subject for each predictor, dataset and split, in order of name.

    Raises:
        HauberkError: if records of one subject contradict each other about its data.
    """
    measured = {"attack", "certificate"}
    groups = by_predictor(parts)
    return [_subject(key, items) for key, items in sorted(groups.items()) if measured & {p.kind for p in items}]


def by_predictor(parts: Iterable[Part]) -> dict[Key, list[Part]]:
    """The joined evaluations of each predictor, dataset and split; a mix's proof counts if there is no certificate."""
    groups: dict[Key, list[Part]] = {}
    found = list(parts)
    for part in records.group(p for p in found if p.kind in ("attack", "certificate", "diagnosis")):
        groups.setdefault(subject_key(part), []).append(part)
    for part in records.group(p for p in found if p.kind == "mix"):
        proved, known = certificate(part), groups.get(subject_key(part), [])
        if proved is not None and not any(p.kind == "certificate" for p in known):
            groups.setdefault(subject_key(part), []).append(proved)
    return groups


def judgements(parts: Iterable[Part]) -> list[Judgement]:
    """The judgements of the evaluations, the worst first."""
    found = [_judgement(p) for p in records.group(p for p in parts if p.kind == "diagnosis")]
    return sorted(found, key=lambda j: (-VERDICTS.index(j.verdict), j.norm, j.eps))


def subject_key(part: Part) -> Key:
    """The predictor, data set and split that the rows are about."""
    return str(part.unit["predictor"]), str(part.facts["dataset"]), str(part.facts["split"])


def _subject(key: Key, parts: list[Part]) -> Subject:
    predictor, dataset, split = key
    for name in ("classes", "shape"):
        if len({records.content_hash(p.facts[name]) for p in parts}) > 1:
            raise HauberkError(f"records of {predictor} disagree about {name}", "report runs on the same data")
    judged = tuple(judgements(p for p in parts if p.kind == "diagnosis"))
    parts = [p for p in parts if p.kind != "diagnosis"]
    _check_labels(predictor, parts)
    attacks = [p for p in parts if p.kind == "attack"]
    certificates = [p for p in parts if p.kind == "certificate"]
    attacked = _attacked(predictor, [p for p in attacks if plain(p)], attacks)
    budgets = {n: [a.eps for a in attacked if a.norm == n] for n in {a.norm for a in attacked}}
    curves = [curve(p, budgets.get(str(p.facts["norm"]), [])) for p in certificates]
    source = attacks or certificates
    return Subject(
        predictor=predictor,
        dataset=dataset,
        split=split,
        classes=tuple(map(str, parts[0].facts["classes"])),
        shape=tuple(map(int, parts[0].facts["shape"])),
        stochastic=any(bool(p.facts.get("stochastic")) for p in attacks),
        weights=tuple(sorted({str(p.unit["weights"]) for p in parts})),
        clean=metrics.accuracy(list(right_by_id(source).values())),
        clean_source=source[0].kind,
        attacked=tuple(attacked),
        certified=tuple(c for c in curves if c.proof != "estimate"),
        estimated=tuple(c for c in curves if c.proof == "estimate"),
        checks=tuple(_checks(attacks, certificates)),
        judgements=judged,
        notes=observed(parts, tuple(map(str, parts[0].facts["classes"]))),
        by_class=by_class(*clean_rows(source)[1:]),
        on_grid=tuple((white, tuple(_attacked(predictor, items, items)))
                      for white, items in sorted(variants.on_grid(attacks).items())),
        reached=tuple(variants.reached(attacks)),
        half_broken=tuple(variants.half_broken(attacks)),
    )


def _judgement(part: Part) -> Judgement:
    rows = part.table.to_pylist()
    findings = [Finding(*(row[n] for n in ("check", "value", "threshold", "verdict", "reason"))) for row in rows]
    findings.sort(key=lambda f: -VERDICTS.index(f.verdict))
    threat = part.unit["threat"]
    return Judgement(
        attack=str(part.unit["method"]["attack"]["name"]),
        norm=str(threat["name"]),
        eps=float(threat["eps"]),
        verdict=findings[0].verdict if findings else "sound",
        findings=tuple(findings),
        images=max((int(row["images"]) for row in rows), default=0),
    )


def _check_labels(predictor: str, parts: list[Part]) -> None:
    known: dict[int, int] = {}
    for part in parts:
        for i, label in zip(part.column("id").tolist(), part.column("label").tolist(), strict=True):
            if known.setdefault(i, label) != label:
                raise HauberkError(
                    f"records of {predictor} give two different labels for image {i}",
                    "the data changed between the runs",
                )


# --- attacks --------------------------------------------------------------------------------------------------


def _attacked(predictor: str, parts: list[Part], every: list[Part]) -> list[Attacked]:
    """The worst case at each budget, with every error that any attack of the norm found within the budget."""
    threats: dict[tuple[str, float], list[Part]] = {}
    for part in parts:
        threats.setdefault((part.unit["threat"]["name"], float(part.unit["threat"]["eps"])), []).append(part)
    found = []
    for (norm, eps), items in sorted(threats.items()):
        counting, others = ([p for p in some if p.unit["threat"]["name"] == norm] for some in (parts, every))
        own = outcomes(counting, eps, others)
        methods = sorted(
            (_method(p) for p in items),
            key=lambda m: (m.suite, m.stage if m.suite else m.accuracy.value, m.name, m.seed),
        )
        found.append(Attacked(
            predictor, norm, eps, metrics.robust_accuracy(own.right, own.survived),
            metrics.attack_success_rate(own.right, own.survived), metrics.boundary_error(own.right, own.survived),
            tuple(methods), images_hash(own.ids), *_last_words(items),
            by_class(own.labels, own.after, own.standing), random_facts(items),
        ))  # fmt: skip
    return found


def _last_words(parts: list[Part]) -> tuple[metrics.ConfidenceGaps, Draws | None]:
    """The confidence of the model at the images and after the attacks.

    For a broken image it is taken at the point of the first attack that broke it.  For an image that stands it is the
    smallest lead that any attack saw.
    """
    rows: dict[int, dict[str, Any]] = {}
    least: dict[int, float] = {}
    wanted = ("id", "label", "success", "clean_probabilities", "probabilities", "clean_draws", "draws")
    for part in in_order(parts):
        for row in part.table.select([*wanted, "probability_margin"]).to_pylist():
            least[row["id"]] = min(least.get(row["id"], np.inf), row.pop("probability_margin"))
            if row["id"] not in rows or not rows[row["id"]]["success"]:
                rows[row["id"]] = row
    said = {i: np.array(row["clean_probabilities"] + row["probabilities"], float) for i, row in rows.items()}
    told = [row for i, row in rows.items() if np.isfinite(said[i]).all()]  # missing values of a record are NaN here
    columns = {name: [row[name] for row in told] for name in wanted}
    labels = np.array(columns["label"])
    before, after = (
        np.array(columns[name], float).reshape(len(told), -1 if told else 2)
        for name in ("clean_probabilities", "probabilities")
    )
    gaps = metrics.confidence_gaps(
        before, after, labels, least=[least[i] for i in columns["id"]]
    )
    kept = min((len(d or ()) for name in ("clean_draws", "draws") for d in columns[name]), default=0)
    if not kept:
        return gaps, None
    clean, attacked = (
        metrics.random_accuracy([d[:kept] for d in columns[name]], labels) for name in ("clean_draws", "draws")
    )  # fmt: skip
    return gaps, (clean, attacked)


def _method(part: Part) -> Method:
    right, survived = correct(part), ~part.column("success").astype(np.bool_)
    spec = dict(part.unit["method"])
    return Method(
        name=str(spec["name"]),
        settings={k: v for k, v in spec.items() if k not in ("name", "threat")},
        seed=int(part.unit["seed"]),
        accuracy=metrics.robust_accuracy(right, survived),
        success_rate=metrics.attack_success_rate(right, survived),
        perturbation=metrics.median_perturbation(right, survived, part.column("distance")),
        forwards=float(part.column("forwards").mean()),
        backwards=float(part.column("backwards").mean()),
        nearest=metrics.median_distance(right, part.column("nearest")) if spec.get("early_stop") is False else None,
        suite=_suite(part),
        stage=int(part.unit.get("stage", 0)),
    )


def _suite(part: Part) -> str:
    suite = part.unit.get("suite")
    return f"{suite['name']} {suite.get('version', '')}".strip() if suite else ""


# --- certificates ---------------------------------------------------------------------------------------------


def curve(part: Part, budgets: Sequence[float]) -> Curve:
    """Certified accuracy by one certificate, exact at these budgets and at a few round ones."""
    right, radius = correct(part), part.column("radius").astype(np.float64)
    spec = dict(part.unit["method"])
    steps, thinned = _steps(right, radius)
    grid = sorted({*budgets, *round_levels(float(radius.max(initial=0.0)))})
    if part.facts["norm"] in ("elements", "levels"):  # such budgets are whole numbers
        grid = sorted({float(np.ceil(eps)) for eps in grid})
    return Curve(
        predictor=str(part.unit["predictor"]),
        norm=str(part.facts["norm"]),
        method=str(spec["name"]),
        settings={k: v for k, v in spec.items() if k != "name"},
        seed=int(part.unit["seed"]),
        proof=str(part.facts["proof"]),
        failure_probability=float(part.facts["failure_probability"]),
        right=metrics.accuracy(right),
        abstained=metrics.accuracy(part.column("prediction") == -1),
        mean_radius=metrics.average_certified_radius(right, radius),
        steps=steps,
        levels=tuple(Level(eps, metrics.certified_accuracy(right, radius, eps)) for eps in grid),
        images=images_hash(part.column("id")),
        thinned=thinned,
        frozen="frozen" in part.facts["shared"],
        balanced=tuple(Level(eps, balanced(part.column("label"), right & (radius >= eps))) for eps in grid),
    )


def _steps(right: metrics.Bools, radius: metrics.Floats) -> tuple[tuple[Level, ...], bool]:
    """The staircase of certified accuracy: after each radius, the share of right images whose radius is larger."""
    own = np.sort(radius[right])
    edges = np.unique(np.concatenate([[0.0], own]))
    thinned = len(edges) > MOST_STEPS
    if thinned:
        edges = edges[np.linspace(0, len(edges) - 1, MOST_STEPS).astype(int)]
        later = np.append(edges[1:], np.inf)  # the lowest value holds between kept edges, so the curve only falls
        counts = [int((own >= e).sum()) if np.isfinite(e) else 0 for e in later]
    else:
        counts = [int((own > e).sum()) for e in edges]
    start = Level(0.0, wilson(int(right.sum()), len(right)))
    return (start, *(Level(float(e), wilson(k, len(right))) for e, k in zip(edges, counts, strict=True))), thinned


def round_levels(largest: float) -> list[float]:
    """Up to six round budgets from 0 to the largest radius."""
    if largest <= 0.0:
        return [0.0]
    unit = 10.0 ** np.floor(np.log10(largest))
    step = next(unit * f for f in (0.1, 0.2, 0.25, 0.5, 1.0, 2.0) if largest / (unit * f) <= 6)
    return [round(float(k * step), 12) for k in range(int(largest / step) + 1)]


def _checks(attacks: list[Part], certificates: list[Part]) -> list[Contradiction]:
    found = []
    for proof in certificates:
        norm = str(proof.facts["norm"])
        rivals = [p for p in attacks if p.unit["threat"]["name"] == norm]
        if not rivals or proof.facts["proof"] == "estimate":
            continue
        ids, safe = proof.column("id"), correct(proof)
        radius = np.where(safe, proof.column("radius"), -1.0)
        compared, contradicted = np.zeros(len(ids), np.bool_), np.zeros(len(ids), np.bool_)
        for rival in rivals:
            _, mine, theirs = np.intersect1d(ids, rival.column("id"), return_indices=True)
            broken = rival.column("success")[theirs].astype(np.bool_)
            if proof.facts["proof"] == "probabilistic":  # an abstaining vote does not show that the class changes
                broken &= rival.column("prediction")[theirs] >= 0
            compared[mine] = True
            contradicted[mine] |= broken & (rival.column("distance")[theirs] < radius[mine])
        method, kind = str(proof.unit["method"]["name"]), str(proof.facts["proof"])
        found.append(Contradiction(norm, method, kind, int(compared.sum()), int(contradicted.sum())))
    return found
