"""Which samples were planned, and whether exactly those are on record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hauberk.records import Part
from hauberk.verify.facts import planned
from hauberk.verify.verdict import samples

MOST = 10**7  # samples of one evaluation


def plan_key(kind: str, unit: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """The name of an evaluation in the plans of run.json: kind, predictor, method, seed, tile and data."""
    asked = {
        "kind": kind, "predictor": unit["predictor"], "answers": unit.get("answers"),
        "method": unit.get("suite", unit["method"]),
        "seed": unit["seed"], "tile": unit["tile"], "dataset": facts["dataset"],
        "split": facts["split"],
    }  # fmt: skip
    asked |= {"choice": facts["choice"]} if "choice" in facts else {}  # of images; older records say nothing
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
    if plan is not None and sum(int(end) - int(first) for first, end in plan) > MOST:
        yield f"its plan has more than {MOST} samples"
    elif plan is not None:
        wanted = {i for first, end in plan for i in range(int(first), int(end))}
        if wanted - ids:
            yield f"{samples(sorted(wanted - ids))}: planned, and not on record"
        if ids - wanted:
            yield f"{samples(sorted(ids - wanted))}: on record, and never planned"
    count = (recipe.get("evaluation") or {}).get("images")
    if plan is None and count is not None and planned(part, recipe) and len(ids) != count:
        yield f"{len(ids)} samples are on record, the recipe plans {count}"


def unplanned(part: Part, info: Mapping[str, Any], recipe: Mapping[str, Any]) -> bool:
    """Whether nothing says which samples were planned."""
    known = plan_key(part.kind, part.unit, part.facts) in info.get("plans", {})
    return part.kind != "diagnosis" and not known and not (
        planned(part, recipe) and (recipe.get("evaluation") or {}).get("images") is not None
    )  # fmt: skip
