"""Hold a run against what is required of it, and against another run on the same images."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from hauberk.comparison import contestant, difference
from hauberk.comparison.contestant import Contestant, Quantity
from hauberk.comparison.drop import ALPHA, Verdict, dropped
from hauberk.comparison.requirement import Requirement
from hauberk.errors import HauberkError
from hauberk.evaluation import metrics
from hauberk.evaluation.by_class import by_class
from hauberk.records import Part
from hauberk.report import collect, words
from hauberk.report.collect import Ids, RunFacts
from hauberk.report.subject import preference
from hauberk.runs import Run
from hauberk.statistics import Interval
from hauberk.threats import Threat

Lack = Literal["undiagnosed", "questionable", "broken"]  # of the diagnosis of an attack
ANOTHER = -2  # a wrong answer, of a class that is not asked for
LACKS: tuple[Lack, ...] = ("undiagnosed", "questionable", "broken")


@dataclass(frozen=True)
class Finding:
    """What became of one requirement.

    Args:
        name: the requirement, or what was compared.
        verdict: ``pass``, ``fail`` or ``cannot tell``.
        reason: one line.
        missing: the words after ``hauberk`` of the command that would make it known; empty where there is none.
    """

    name: str
    verdict: Verdict
    reason: str
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Measured:
    """A measure of the run: the words for it, whose it is, and whether a pass can be believed."""

    value: Interval
    how: str
    predictor: str
    doubt: str = ""
    missing: tuple[str, ...] = ()


def gate(
    run: Path, requirements: Sequence[Requirement], against: Path | None = None, tolerated: float = 0.0,
    unseen: float = 0.05, allowed: Collection[Lack] = (), of: str = "",
) -> list[Finding]:  # fmt: skip
    """Judge each requirement, then each share that the run and the baseline both have; all from records.

    Args:
        run: a run directory or a bundle.
        requirements: from ``comparison.requirement.parse``.
        against: the baseline, measured on the same images.
        tolerated: how far a share may fall, see ``comparison.drop``.
        unseen: what a drop may exceed that by and be missed.
        allowed: what may be wrong with the diagnosis of an attack.
        of: a part of the name of the predictor that is meant, where the records are about several.

    Raises:
        HauberkError: if a run cannot be read, nothing is asked, or no predictor has such a name.
    """
    if not requirements and against is None:
        raise HauberkError("nothing is required", "add --require 'clean>=0.8' or --against BASELINE")
    facts = _about(collect.load([run])[0], of)
    problems = [problem for verdict in facts.verdicts for problem in verdict.problems]
    judged = [_judged(facts, run, r, problems, allowed) for r in requirements]
    findings = [finding for finding, _ in judged]
    met = dict.fromkeys(predictor for finding, predictor in judged if finding.verdict == "pass" and predictor)
    if len(met) > 1:  # each is met by another function, and none may meet all
        findings.append(Finding("one model", "cannot tell", f"met by several: {'; '.join(met)}; name one with --of"))
    if against is not None:
        findings += _compared(run, against, [r for r in requirements if not r.radius], tolerated, unseen, of)
    return findings


def worst(findings: Sequence[Finding]) -> Verdict:
    """One verdict of all: a failure counts more than a doubt."""
    verdicts = {f.verdict for f in findings}
    order: tuple[Verdict, ...] = ("fail", "cannot tell", "pass")
    return next(v for v in order if v in verdicts)


def _about(facts: RunFacts, of: str) -> RunFacts:
    """The records of the predictors that have such a name."""
    parts = tuple(part for part in facts.parts if of in str(part.unit["predictor"]))
    if of and not parts:
        known = sorted({str(part.unit["predictor"]) for part in facts.parts})
        raise HauberkError(f"no predictor of {facts.name} has {of!r} in its name", f"there are: {'; '.join(known)}")
    return replace(facts, parts=parts)


# --- one requirement ----------------------------------------------------------------------------------------------


def _judged(
    facts: RunFacts, run: Path, requirement: Requirement, problems: Sequence[str], allowed: Collection[Lack]
) -> tuple[Finding, str]:
    """The finding, and whose it is."""
    if problems:
        why = f"the records do not verify: {problems[0]}"
        return Finding(requirement.text, "cannot tell", why, ("verify", str(run))), ""
    found = _measured(facts, run, requirement, allowed)
    if isinstance(found, Finding):
        return found, ""
    return _held(found, requirement), found.predictor


def _held(found: _Measured, requirement: Requirement) -> Finding:
    """The measure against the number."""
    reached = (found.value.low if requirement.lower else found.value.value) >= requirement.number
    attacked = requirement.quantity.kind == "attacked"
    said = f"{_number(found.value, requirement)}; {found.how}"
    if not reached:
        beyond = " however the attack is judged, since no attack makes it higher" if attacked else ""
        limit = "its lower limit" if requirement.lower else "it"
        return Finding(requirement.text, "fail", f"{said}; {limit} is below {requirement.number:g}{beyond}")
    if found.doubt:
        return Finding(requirement.text, "cannot tell", f"{said}; {found.doubt}", found.missing)
    caution = "; no attack that was run broke more, which proves nothing of other attacks" if attacked else ""
    return Finding(requirement.text, "pass", said + caution)


def _number(value: Interval, requirement: Requirement) -> str:
    if requirement.radius:
        return f"{value.value:.4f} [{value.low:.4f}, {value.high:.4f}] over {value.n} images"
    ends = f"[{100 * value.low:.1f}, {100 * value.high:.1f}]"
    return f"{100 * value.value:.1f} % {ends} of {value.n} images"


def _measured(facts: RunFacts, run: Path, requirement: Requirement, allowed: Collection[Lack]) -> _Measured | Finding:
    """The measure, from the run's own predictor where that has it, else from the first other that has."""
    own = str(facts.info.get("predictor", ""))
    groups = sorted(collect.by_predictor(facts.parts).items(), key=lambda item: (item[0][0] != own, item[0]))
    for key, parts in groups:
        measured = _of(parts, requirement)
        if measured is None:
            continue
        value, how = measured
        named = "" if len(groups) == 1 else f"{key[0]} on {key[1]}/{key[2]}, "
        doubt, missing = _doubt(parts, run, requirement.quantity, allowed)
        return _Measured(value, named + how, key[0], doubt, missing)
    known = ", ".join(sorted({_budget(p) for _, parts in groups for p in parts if p.kind == "attack"}))
    attacked = f"; attacked are {known}" if known and requirement.quantity.kind == "attacked" else ""
    return Finding(requirement.text, "cannot tell", f"nothing on record says it{attacked}", _missing(run, requirement))


def _missing(run: Path, requirement: Requirement) -> tuple[str, ...]:
    threat = requirement.threat
    if requirement.quantity.kind == "certified" or threat is None:
        return ("certify", str(run))
    return ("attack", str(run), "--threat", words.typed(threat.norm, threat.eps))


def _of(parts: Sequence[Part], requirement: Requirement) -> tuple[Interval, str] | None:
    """The measure and the words for it, if the records of this predictor hold it."""
    attacks = [p for p in parts if p.kind == "attack"]
    proofs = [p for p in parts if p.kind == "certificate"]
    if requirement.quantity.kind == "attacked":
        return _attacked(attacks, requirement)
    if requirement.quantity.kind == "certified":
        return _certified([p for p in proofs if p.facts["proof"] != "estimate"], requirement)
    right = collect.right_by_id(attacks or proofs)
    if not right:
        return None
    ids, held = np.array([*right]), np.array([*right.values()])
    return _share(attacks or proofs, ids, held, requirement), "right without an attack"


def _attacked(attacks: Sequence[Part], requirement: Requirement) -> tuple[Interval, str] | None:
    quantity = requirement.quantity
    own = [p for p in attacks if _same(p, quantity)]
    if not own:
        return None
    ids, right, survived = collect.worst_case(own)
    survived &= ~collect.reached(ids, [p for p in attacks if _norm(p) == quantity.norm], quantity.eps)
    names = ", ".join(sorted({_named(p) for p in own}))
    return _share(own, ids, right & survived, requirement), f"not broken by {names}"


def _certified(proofs: Sequence[Part], requirement: Requirement) -> tuple[Interval, str] | None:
    quantity = requirement.quantity
    proofs = [p for p in proofs if p.facts["norm"] == quantity.norm]
    if not proofs:
        return None
    best = max(proofs, key=lambda p: preference(p.facts["proof"], p.unit["method"], p.unit["seed"]))
    right_here, radius = collect.correct(best), best.column("radius").astype(np.float64)
    chance = float(best.facts["failure_probability"])
    kind = f"{best.facts['proof']}, each image wrong with probability {chance:g}" if chance else best.facts["proof"]
    how = f"proved by {best.unit['method']['name']} ({kind})"
    if requirement.radius:
        return metrics.average_certified_radius(right_here, radius), how
    return _share([best], best.column("id"), right_here & (radius >= quantity.eps), requirement), how


def _share(parts: Sequence[Part], ids: Ids, held: metrics.Bools, requirement: Requirement) -> Interval:
    if requirement.over == "all":
        return metrics.accuracy(held)
    labels = _labels(parts)
    known = np.array([labels[i] for i in ids.tolist()])
    classes = by_class(known, np.where(held, known, ANOTHER), held)
    return classes.balanced if requirement.over == "balanced" else classes.worst.accuracy


def _labels(parts: Sequence[Part]) -> Mapping[int, int]:
    return {i: y for p in parts
            for i, y in zip(p.column("id").tolist(), p.column("label").tolist(), strict=True)}  # fmt: skip


def _norm(part: Part) -> str:
    return str(part.unit["threat"]["name"])


def _same(part: Part, quantity: Quantity) -> bool:
    return _norm(part) == quantity.norm and alike(float(part.unit["threat"]["eps"]), quantity.eps)


def alike(one: float, other: float) -> bool:
    """Whether two budgets print the same four digits: what terminal and page say is what people type."""
    return f"{one:.4g}" == f"{other:.4g}"


def _budget(part: Part) -> str:
    return words.typed(_norm(part), float(part.unit["threat"]["eps"]))


def _named(part: Part) -> str:
    suite = part.unit.get("suite")
    return f"{suite['name']} {suite['version']}" if suite else str(part.unit["method"]["name"])


def _doubt(
    parts: Sequence[Part], run: Path, quantity: Quantity, allowed: Collection[Lack]
) -> tuple[str, tuple[str, ...]]:
    """Why a robust accuracy that is high enough may be the attack's failure, and what would tell."""
    if quantity.kind != "attacked":
        return "", ()
    judged = [j for j in collect.judgements(parts)
              if j.norm == quantity.norm and alike(j.eps, quantity.eps)]  # fmt: skip
    command = ("check", str(run), "--threat", words.typed(quantity.norm, quantity.eps), "--diagnose")
    if not judged:
        return ("", ()) if "undiagnosed" in allowed else (
            "nobody has judged the attack at this budget, and a failing attack looks like a robust model", command,
        )  # fmt: skip
    first = judged[0]  # the worst
    if first.verdict == "sound" or first.verdict in allowed:
        return "", ()
    return f"the evaluation is {first.verdict}: {first.findings[0].reason}", ()


# --- against a baseline -------------------------------------------------------------------------------------------


def _compared(
    run: Path, against: Path, required: Sequence[Requirement], tolerated: float, unseen: float, of: str
) -> list[Finding]:
    """A finding for each share: those that are required, or without any all that both runs have."""
    threats = [r.threat for r in required if r.threat is not None]
    new, old = (_contestants(path, threats, of) for path in (run, against))
    both = [q for q in dict.fromkeys(q for c in new for q in c.outcomes) if any(q in c.outcomes for c in old)]
    shared = [*dict.fromkeys(r.quantity for r in required)] or both
    if not shared:
        return [Finding(f"against {against}", "cannot tell", "the two runs have no measure in common")]
    return [_against(new, old, q, run, against, (tolerated, unseen), ALPHA / len(shared)) for q in shared]


def _contestants(path: Path, threats: Sequence[Threat], of: str) -> list[Contestant]:
    """The predictors of a run that have such a name; the run's own goes by the name of the run."""
    own = str(Run.open(path).info.get("predictor", ""))
    found = contestant.read([path], threats)
    return [one for one in found if of in (one.name.partition(": ")[2] or own)]


def _against(
    new: Sequence[Contestant], old: Sequence[Contestant], quantity: Quantity, run: Path, against: Path,
    sizes: tuple[float, float], alpha: float,
) -> Finding:  # fmt: skip
    name = f"{quantity} against {against}"
    mine, theirs = (next((c for c in group if quantity in c.outcomes), None) for group in (new, old))
    if mine is None or theirs is None:
        return Finding(name, "cannot tell", f"{run if mine is None else against} has no record of it")
    try:
        effect = difference(mine, theirs, quantity)
    except HauberkError as error:
        return Finding(name, "cannot tell", error.message)
    ids = np.intersect1d(mine.outcomes[quantity].ids, theirs.outcomes[quantity].ids)
    found = dropped(mine.outcomes[quantity].on(ids)[0], theirs.outcomes[quantity].on(ids)[0], *sizes, alpha)
    change = found.change
    said = (
        f"{100 * change.value:+.1f} points [{100 * change.low:+.1f}, {100 * change.high:+.1f}] on {change.n} shared "
        f"images; {found.lost} lost, {found.won} won"
    )
    drop = f"a drop of more than {100 * sizes[0]:g} points" if sizes[0] else "a drop"
    if found.verdict == "fail" and effect.more:
        return Finding(name, "cannot tell", f"{said}; this run met attacks that the baseline did not")
    if found.verdict == "pass" and effect.fewer:
        return Finding(name, "cannot tell", f"{said}; the baseline met attacks that this run did not")
    end = {
        "fail": f"{drop} is beyond doubt",
        "pass": f"{drop} is not beyond doubt, and one of {100 * sum(sizes):g} points is excluded",
        "cannot tell": f"too few images: a drop of {100 * sum(sizes):g} points is not excluded",
    }[found.verdict]
    return Finding(name, found.verdict, f"{said}; {end}")

