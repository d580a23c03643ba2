"""Checks of a whole run: its files, rows, facts and plans, and contradictions between its records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from hauberk.reading import sha256
from hauberk.records import MEASURED, Part, group
from hauberk.verify import claims
from hauberk.verify.attacks import attack_problems
from hauberk.verify.diagnoses import diagnosis_problems
from hauberk.verify.facts import config_problems, facts_problems, form_problems, planned
from hauberk.verify.files import Files, hash_verdict, open_run, read_records
from hauberk.verify.fingerprints import fingerprint_problems
from hauberk.verify.paths import path_problems
from hauberk.verify.plans import left_out, plan_problems, unplanned
from hauberk.verify.polls import poll_problems
from hauberk.verify.proofs import proof_problems
from hauberk.verify.rows import row_problems
from hauberk.verify.together import together_problems
from hauberk.verify.verdict import MALFORMED, Verdict, guarded, one_line

CHECKED = {
    "attack": (claims.ATTACKS,),
    "certificate": (claims.RADII,),
    "mix": (claims.PATHS,),
    "diagnosis": (claims.DIAGNOSES,),
}
TRUSTED = {
    "attack": (claims.SURVIVORS, claims.MODEL, claims.SELECTION, claims.LABELS),
    "certificate": (claims.EVIDENCE, claims.MODEL, claims.SELECTION, claims.LABELS),
    "mix": (claims.EVIDENCE, claims.MODEL, claims.SELECTION, claims.LABELS),
    "diagnosis": (claims.VALUES, claims.MODEL),
}


def verify_run(run: Path) -> list[Verdict]:
    """Check a run directory or a bundle from its files alone, without the model, the data or the code of the run.

    Args:
        run: the directory.

    Returns:
        one verdict for the files, one for each evaluation, and one for all of them together; a damaged file is a
        problem in a verdict, never an error.
    """
    return verify_files(open_run(run))


def verify_once(run: Path) -> list[Verdict]:
    """As ``verify_run``, but files are checked only once in a process while every byte of them stays the same."""
    described = (run / "recipe.yaml", run / "run.json", run / "checkpoints" / "config.json")
    files = (*described, *sorted((run / "records").glob("*.parquet")))
    return list(_verified(run, tuple((path.name, _content(path)) for path in files)))


@lru_cache(maxsize=64)
def _verified(run: Path, _contents: tuple[tuple[str, str], ...]) -> tuple[Verdict, ...]:
    return tuple(verify_run(run))


def _content(path: Path) -> str:
    """The SHA-256 of a file, or the reason why there is none."""
    try:
        return sha256(path)
    except MALFORMED as error:
        return one_line(error)


def verify_folder(records: Path) -> list[Verdict]:
    """Check the records of a folder, without the run around them."""
    parts, problems = read_records(records)
    return _evaluations(Files(records.parent, {}, {}, {}, parts, ()), tuple(problems))


def verify_files(found: Files) -> list[Verdict]:
    """Check an opened run."""
    about = tuple(guarded(config_problems, found.recipe, found.info, found.config))
    return [hash_verdict(found), *_evaluations(found, about)]


def _evaluations(found: Files, about: tuple[str, ...]) -> list[Verdict]:
    whole, broken = [], []
    for part in (p for p in found.parts if p.kind in MEASURED):
        problems = guarded(form_problems, part) or guarded(row_problems, part)
        if problems:
            broken.append(_verdict(part, problems))
        else:
            whole.append(part)
    joined, clashes = _joined(whole)
    verdicts = [_verdict(p, _problems(p, found, joined), found) for p in joined]
    problems = [*about, *clashes, *guarded(fingerprint_problems, found.parts), *guarded(together_problems, joined)]
    problems += guarded(poll_problems, found.parts)
    problems += [] if broken else guarded(_left_out, joined, found)
    missing = [] if broken or not found.info else guarded(_not_run, joined, found)
    together = Verdict(
        str(found.info.get("predictor", "")), "all together", sum(p.table.num_rows for p in joined), tuple(problems),
        (claims.TOGETHER,), (claims.OMITTED, *missing),
    )  # fmt: skip
    return [*broken, *verdicts, together]


def _left_out(parts: Sequence[Part], found: Files) -> Iterator[str]:
    """Plans without a record, unless the files already show which records are missing or cannot be read."""
    there = {path.name for path in (found.path / "records").glob("*.parquet")}
    listed = set(found.info.get("hashes", {}).get("records", {}))
    if not found.problems and listed <= there:
        yield from left_out(parts, found.info)


def _joined(parts: Sequence[Part]) -> tuple[list[Part], list[str]]:
    try:
        return group(parts), []
    except MALFORMED as error:
        return list(parts), [one_line(error)]


def _problems(part: Part, found: Files, joined: Sequence[Part]) -> list[str]:
    problems = guarded(facts_problems, part, found.recipe, found.info, found.config)
    problems += guarded(plan_problems, part, found.info, found.recipe)
    if part.kind == "attack":
        problems += guarded(attack_problems, part)
    elif part.kind == "certificate":
        problems += guarded(proof_problems, part)
    elif part.kind == "mix":
        certificates = [p for p in joined if p.kind == "certificate"]
        problems += guarded(path_problems, part, certificates)
    else:
        problems += guarded(diagnosis_problems, part)
    return problems


def _verdict(part: Part, problems: Iterable[str], found: Files | None = None) -> Verdict:
    unit = part.unit if isinstance(part.unit, dict) else {}
    method = unit.get("method") if isinstance(unit.get("method"), dict) else {}
    name = "alpha path" if part.kind == "mix" else str(method.get("name", part.kind) if method else part.kind)
    trusted = list(TRUSTED.get(part.kind, ()))
    checked = [claims.FACTS, *CHECKED.get(part.kind, ())]
    if part.kind == "attack" and any(v is not None for v in part.table.column("image").to_pylist()):
        checked.append(claims.KEPT)
        trusted.append(claims.POINTS)
    if part.facts.get("calibration") is not None:
        checked.append(claims.HELD_BACK)
    if part.kind == "attack" and (part.facts.get("stochastic") or part.facts.get("decides")):
        trusted.append(claims.OWN)
    if part.kind != "diagnosis":
        open_plan = found is None or _open_plan(part, found)
        (trusted if open_plan else checked).append(claims.PLANNED)
    return Verdict(
        str(unit.get("predictor", "")), name, part.table.num_rows, tuple(problems), tuple(checked), tuple(trusted)
    )


def _open_plan(part: Part, found: Files) -> bool:
    try:
        return unplanned(part, found.info, found.recipe)
    except MALFORMED:  # reported in the evaluation's own verdict
        return True


def _not_run(parts: Sequence[Part], found: Files) -> Iterator[str]:
    """The evaluations that the recipe plans and that are not on record."""
    plan = found.recipe.get("evaluation")
    if not isinstance(plan, dict):
        return
    for key, kind in (("attacks", "attack"), ("certificates", "certificate"), ("diagnoses", "diagnosis")):
        for spec in plan.get(key) or ():
            alone = {"evaluation": {key: [spec]}}
            if not any(p.kind == kind and planned(p, alone) for p in parts):
                name = spec.get("name") if isinstance(spec, dict) else spec
                yield f"the recipe plans the {kind} {name}, and there is no record of it"
