"""The planned samples of evaluations, and whether exactly these samples are on record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hauberk.records import Part
from hauberk.verify.facts import planned
from hauberk.verify.verdict import samples

MOST = 10**6  # samples of one evaluation


def plan_key(kind: str, unit: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """The name of an evaluation in the plans of run.json: kind, predictor, method, seed, tile and data."""
    asked = {
        "kind": kind, "predictor": unit["predictor"], "answers": unit.get("answers"),
        "method": unit.get("suite", unit["method"]),
        "seed": unit["seed"], "tile": unit["tile"], "dataset": facts["dataset"],
        "split": facts["split"],
    }  # fmt: skip
    asked |= {name: unit[name] for name in ("device", "precision") if name in unit}  # if other than CPU and float32
    asked |= {"choice": facts["choice"]} if "choice" in facts else {}  # of images; older records name none
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def ranges(ids: Iterable[int]) -> list[list[int]]:
    """Ids as half-open ranges [first, last + 1), in order."""
    found: list[list[int]] = []
    for i in sorted(set(ids)):
        if found and found[-1][1] == i:
            found[-1][1] = i + 1
        else:
            found.append([i, i + 1])
    return found


def plan_problems(part: Part, info: Mapping[str, Any], recipe: Mapping[str, Any]) -> Iterator[str]:
    """Whether the rows of an evaluation, or of its first stage, are those that were planned."""
    if part.kind == "diagnosis" or part.unit.get("stage", 0) > 0:
        return
    ids = set(part.table.column("id").to_pylist())
    plan = info.get("plans", {}).get(plan_key(part.kind, part.unit, part.facts))
    if plan is not None:
        asked = wanted(plan)
        if asked - ids:
            yield f"{samples(sorted(asked - ids))}: planned, and not on record"
        if ids - asked:
            yield f"{samples(sorted(ids - asked))}: on record, and never planned"
    count = (recipe.get("evaluation") or {}).get("images")
    if plan is None and count is not None and planned(part, recipe) and len(ids) != count:
        yield f"{len(ids)} samples are on record, the recipe plans {count}"


def left_out(parts: Sequence[Part], info: Mapping[str, Any]) -> Iterator[str]:
    """Plans without a record."""
    known = {plan_key(p.kind, p.unit, p.facts) for p in parts}
    lost = [key for key in info.get("plans", {}) if key not in known]
    if lost:
        yield f"evaluations were planned and have no record: {', '.join(map(str, lost[:3]))}"


def wanted(plan: Iterable[tuple[int, int]]) -> set[int]:
    """The samples of a plan; their number is checked before they are listed."""
    spans = [range(int(first), int(end)) for first, end in plan]
    if any(span.stop < span.start or span.stop - span.start > MOST for span in spans) or sum(map(len, spans)) > MOST:
        raise ValueError(f"its plan does not rise, or has more than {MOST} samples")
    return {i for span in spans for i in span}


def unplanned(part: Part, info: Mapping[str, Any], recipe: Mapping[str, Any]) -> bool:
    """Whether neither run.json nor the recipe states which samples, or how many, were planned."""
    known = plan_key(part.kind, part.unit, part.facts) in info.get("plans", {})
    return part.kind != "diagnosis" and not known and not (
        planned(part, recipe) and (recipe.get("evaluation") or {}).get("images") is not None
    )  # fmt: skip
