"""Attacks that wrap other attacks: which results count as their success, and the form of their points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hauberk.records import Part
from hauberk.verify.verdict import samples

TOWARDS, ON_GRID = "towards", "on_grid"
WHITES = (255, 65535)
OFF = 1e-2  # levels by which a float32 value may differ from its whole level


def core(method: Mapping[str, Any]) -> Mapping[str, Any]:
    """The innermost attack."""
    while method.get("name") in (TOWARDS, ON_GRID) and isinstance(method.get("attack"), Mapping):
        method = method["attack"]
    return method


def setting(method: Mapping[str, Any], name: str, key: str) -> Any:
    """A setting of the wrapping attack with that name; None if there is no such attack."""
    while method.get("name") in (TOWARDS, ON_GRID):
        if method["name"] == name:
            return method[key]
        if not isinstance(method.get("attack"), Mapping):
            return None
        method = method["attack"]
    return None


def target(part: Part) -> int | None:
    """The target class of an attack, or None if any wrong class is a success."""
    found = setting(part.unit["method"], TOWARDS, "target")
    return None if found is None else int(found)


def white(part: Part) -> int | None:
    """The level that stands for 1 if points have whole levels, else None."""
    found = setting(part.unit["method"], ON_GRID, "white")
    return None if found is None else int(found)


def wrapped_problems(part: Part) -> Iterator[str]:
    """Whether a wrapping attack has the threat of the inner attack, an existing class, and points of whole levels."""
    method = part.unit["method"]
    while method["name"] in (TOWARDS, ON_GRID) and isinstance(method.get("attack"), Mapping):
        method = method["attack"]
        if method["threat"] != part.unit["threat"]:
            yield f"the attack inside has the threat {method['threat']}"
    aim, levels = target(part), white(part)
    if aim is not None and not 0 <= aim < len(part.facts["classes"]):
        yield f"it wants the class {aim}, of {len(part.facts['classes'])}"
    if levels is None:
        return
    if levels not in WHITES:
        yield f"its white is {levels}, neither of {WHITES}"
        return
    yield from _off_grid(part, levels)


def _off_grid(part: Part, levels: int) -> Iterator[str]:
    """Kept points and distances that do not have whole levels."""
    columns = (part.table.column(n).to_pylist() for n in ("id", "adversarial", "distance"))
    for i, kept, distance in zip(*columns, strict=True):
        if kept is not None:
            values = np.frombuffer(kept, dtype=np.float32).astype(np.float64) * levels
            if (abs(values - values.round()) > OFF).any():
                yield f"sample {i}: its kept point has no whole levels of 1/{levels}"
        steps = distance * levels if part.unit["threat"]["name"] != "l2" else (distance * levels) ** 2
        if abs(steps - round(steps)) > OFF:
            yield f"{samples([i])}: its distance {distance:.6g} is none of whole levels of 1/{levels}"
