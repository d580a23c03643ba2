"""Compare a run with requirements, and with another run on the same images."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from hauberk.comparison.baseline import compared
from hauberk.comparison.contestant import Quantity
from hauberk.comparison.drop import Verdict
from hauberk.comparison.requirement import Finding, Requirement
from hauberk.errors import HauberkError
from hauberk.evaluation import metrics
from hauberk.evaluation.by_class import UNKNOWN, by_class
from hauberk.records import Part
from hauberk.report import collect, words
from hauberk.report.collect import Key, RunFacts
from hauberk.report.outcomes import Ids, at_budget, best_proof, correct, plain, right_by_id
from hauberk.runs import Run
from hauberk.statistics import Interval

Lack = Literal["undiagnosed", "questionable", "broken"]  # of the diagnosis of an attack
LACKS: tuple[Lack, ...] = ("undiagnosed", "questionable", "broken")
VOTES = {"l1": ("smoothing,noise=laplace:0.25",), "l2": ("smoothing", "--sigma", "0.25")}


@dataclass(frozen=True)
class _Measured:
    """A measure of the run: the words for it, whose it is, and whether a pass can be believed."""

    value: Interval
    how: str
    whose: Key
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
        of: a part of the name of the predictor, where the records are about several.

    Raises:
        HauberkError: if a run cannot be read, there is no requirement, or no predictor has such a name.
    """
    if not requirements and against is None:
        raise HauberkError("nothing is required", "add --require 'clean>=0.8' or --against BASELINE")
    here = _Judged(_about(collect.load([run])[0], of), run, of, allowed)
    asked = [replace(r, quantity=on_record(here.facts.parts, r.quantity)) for r in requirements]
    judged = [_judged(here, r, typed.quantity.eps) for r, typed in zip(asked, requirements, strict=True)]
    findings = [finding for finding, _ in judged]
    met = dict.fromkeys(whose for finding, whose in judged if finding.verdict == "pass" and whose)
    if len(met) > 1:  # each is met by another function or on other data, and none may meet all
        names = "; ".join(f"{predictor} on {dataset}/{split}" for predictor, dataset, split in met)
        findings.append(Finding("one model", "cannot tell", f"met by several: {names}; name one with --of"))
    if against is not None:
        findings += compared(run, against, asked, tolerated, unseen, of)
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


def on_record(parts: Sequence[Part], quantity: Quantity) -> Quantity:
    """The quantity at the recorded budget that prints the four digits of the one that was typed.

    People type what they read.  An attack at the very budget comes first, then the nearest one.
    """
    if quantity.kind != "attacked":
        return quantity
    known = {_eps(p) for p in parts if p.kind == "attack" and plain(p) and _norm(p) == quantity.norm}
    same = [eps for eps in known if f"{eps:.4g}" == f"{quantity.eps:.4g}"]
    return replace(quantity, eps=min(same, key=lambda eps: abs(eps - quantity.eps), default=quantity.eps))


# --- one requirement ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Judged:
    """The run that is judged: its records about the predictors meant, and what a command can add to them."""

    facts: RunFacts
    path: Path
    of: str
    allowed: Collection[Lack]

    @property
    def own(self) -> str:
        """The predictor that a command measures which names the run."""
        return str(self.facts.info.get("predictor", ""))

    def measuring(self, command: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        """The command, where it can be given; else why it cannot."""
        if self.of not in self.own:
            return f"a command that names the run measures {self.own}", ()
        if not Run(self.path).has_model:
            return "the weights are needed to measure it, and they are not in this folder", ()
        return "", command

    def proving(self, norm: str) -> tuple[str, tuple[str, ...]]:
        """The command that certifies in a norm: by layers where that was done or planned, by votes in L1 and L2."""
        planned = self.facts.recipe.get("evaluation", {}).get("certificates", ())
        specs = [*planned, *(p.unit["method"] for p in self.facts.parts if p.kind == "certificate")]
        by_layers = any(spec.get("base", spec)["name"] == "lipschitz" for spec in specs)
        certify = ("certify", str(self.path), "--method")
        if by_layers:
            return self.measuring((*certify, "lipschitz", "--norm", norm))
        if norm in VOTES and not self.own.startswith("smoothed("):
            return self.measuring((*certify, *VOTES[norm]))
        return f"nothing here proves anything in {norm}", ()


def _judged(here: _Judged, requirement: Requirement, typed: float) -> tuple[Finding, Key | None]:
    """The finding, and whose it is; the requirement is about the recorded budget, ``typed`` is the one asked for."""
    problems = [problem for verdict in here.facts.verdicts for problem in verdict.problems]
    if problems:
        why = f"the records do not verify: {problems[0]}"
        return Finding(requirement.text, "cannot tell", why, ("verify", str(here.path))), None
    found = _measured(here, requirement)
    if isinstance(found, Finding):
        return found, None
    if requirement.quantity.eps != typed:
        budget = words.typed(requirement.quantity.norm, requirement.quantity.eps)
        found = replace(found, how=f"{found.how}, which had the budget {budget}")
    return _held(here, found, requirement, typed), found.whose


def _held(here: _Judged, found: _Measured, requirement: Requirement, typed: float) -> Finding:
    """The measure against the number."""
    reached = (found.value.low if requirement.lower else found.value.value) >= requirement.number
    quantity, attacked = requirement.quantity, requirement.quantity.kind == "attacked"
    said = f"{_number(found.value, requirement)}; {found.how}"
    if not reached:
        beyond = " however the attack is judged, since no attack makes it higher" if attacked else ""
        limit = "its lower limit" if requirement.lower else "it"
        said = f"{said}; {limit} is below {requirement.number:g}"
        if attacked and quantity.eps > typed:
            asked = words.typed(quantity.norm, typed)
            why, command = here.measuring(("attack", str(here.path), "--threat", asked))
            said = _joined(f"{said}, but the budget {asked} is smaller, and the share may be higher there", why)
            return Finding(requirement.text, "cannot tell", said, command)
        return Finding(requirement.text, "fail", f"{said}{beyond}")
    if found.doubt:
        return Finding(requirement.text, "cannot tell", f"{said}; {found.doubt}", found.missing)
    caution = "; no attack that was run broke more, which proves nothing of other attacks" if attacked else ""
    return Finding(requirement.text, "pass", said + caution)


def _joined(*said: str) -> str:
    return "; ".join(filter(None, said))


def _number(value: Interval, requirement: Requirement) -> str:
    if requirement.radius:
        return f"{value.value:.4f} [{value.low:.4f}, {value.high:.4f}] over {value.n} images"
    ends = f"[{100 * value.low:.1f}, {100 * value.high:.1f}]"
    return f"{100 * value.value:.1f} % {ends} of {value.n} images"


def _measured(here: _Judged, requirement: Requirement) -> _Measured | Finding:
    """The measure, from the run's own predictor where that has it, else from the first other that has."""
    every = collect.by_predictor(here.facts.parts)
    groups = sorted(every.items(), key=lambda item: (item[0][0] != here.own, item[0]))
    for key, parts in groups:
        measured = _of(parts, requirement)
        if measured is None:
            continue
        value, how = measured
        named = "" if len(groups) == 1 else f"{key[0]} on {key[1]}/{key[2]}, "
        doubt, missing = _doubt(here, key, parts, requirement.quantity)
        return _Measured(value, named + how, key, doubt, missing)
    attacks = [p for _, parts in groups for p in parts if p.kind == "attack" and plain(p)]
    known = ", ".join(sorted({words.typed(_norm(p), _eps(p)) for p in attacks}))
    attacked = f"attacked are {known}" if known and requirement.quantity.kind == "attacked" else ""
    why, command = _missing(here, requirement)
    return Finding(requirement.text, "cannot tell", _joined("nothing on record says it", attacked, why), command)


def _missing(here: _Judged, requirement: Requirement) -> tuple[str, tuple[str, ...]]:
    """Why no command tells it, or the command that does."""
    quantity = requirement.quantity
    if quantity.kind == "certified":
        return here.proving(quantity.norm)
    if quantity.kind == "attacked":
        return here.measuring(("attack", str(here.path), "--threat", words.typed(quantity.norm, quantity.eps)))
    return here.measuring(("attack", str(here.path), "--threat", "linf:8/255"))


def _of(parts: Sequence[Part], requirement: Requirement) -> tuple[Interval, str] | None:
    """The measure and the words for it, if the records of this predictor hold it."""
    attacks = [p for p in parts if p.kind == "attack"]
    proofs = [p for p in parts if p.kind == "certificate"]
    if requirement.quantity.kind == "attacked":
        return _attacked(attacks, requirement)
    if requirement.quantity.kind == "certified":
        return _certified(proofs, requirement)
    right = right_by_id(attacks or proofs)
    if not right:
        return None
    ids, held = np.array([*right]), np.array([*right.values()])
    return _share(attacks or proofs, ids, held, requirement), "right without an attack"


def _attacked(attacks: Sequence[Part], requirement: Requirement) -> tuple[Interval, str] | None:
    quantity = requirement.quantity
    left = at_budget(attacks, quantity.norm, quantity.eps)
    if left is None:
        return None
    own = [p for p in attacks if plain(p) and _norm(p) == quantity.norm and _eps(p) == quantity.eps]
    names = ", ".join(sorted({_named(p) for p in own}))
    return _share(own, left.ids, left.standing, requirement), f"not broken by {names}"


def _certified(proofs: Sequence[Part], requirement: Requirement) -> tuple[Interval, str] | None:
    quantity = requirement.quantity
    best = best_proof(proofs, quantity.norm)
    if best is None:
        return None
    right_here, radius = correct(best), best.column("radius").astype(np.float64)
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
    classes = by_class(known, np.where(held, known, UNKNOWN), held)
    return classes.balanced if requirement.over == "balanced" else classes.worst.accuracy


def _labels(parts: Sequence[Part]) -> Mapping[int, int]:
    return {i: y for p in parts
            for i, y in zip(p.column("id").tolist(), p.column("label").tolist(), strict=True)}  # fmt: skip


def _norm(part: Part) -> str:
    return str(part.unit["threat"]["name"])


def _eps(part: Part) -> float:
    return float(part.unit["threat"]["eps"])


def _named(part: Part) -> str:
    suite = part.unit.get("suite")
    return f"{suite['name']} {suite.get('version', '')}".strip() if suite else str(part.unit["method"]["name"])


def _doubt(here: _Judged, whose: Key, parts: Sequence[Part], quantity: Quantity) -> tuple[str, tuple[str, ...]]:
    """Why a robust accuracy that is high enough may be the attack's failure, and what would tell."""
    if quantity.kind != "attacked":
        return "", ()
    judged = [j for j in collect.judgements(parts) if (j.norm, j.eps) == (quantity.norm, quantity.eps)]
    if judged:
        first = judged[0]  # the worst
        if first.verdict == "sound" or first.verdict in here.allowed:
            return "", ()
        return f"the evaluation is {first.verdict}: {first.findings[0].reason}", ()
    if "undiagnosed" in here.allowed:
        return "", ()
    said = "nobody has judged the attack at this budget, and a failing attack looks like a robust model"
    if words.without_gradients(p.unit["method"]["name"] for p in parts if p.kind == "attack"):
        return f"{said}; {words.NO_CHECK}", ()
    if whose[0] != here.own:
        return f"{said}; a command that names the run judges an attack on {here.own} alone", ()
    command = ("check", str(here.path), "--threat", words.typed(quantity.norm, quantity.eps), "--diagnose")
    why, known = here.measuring(command)
    return _joined(said, why), known
