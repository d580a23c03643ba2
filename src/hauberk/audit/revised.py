"""The revisions of the code that make such records today."""

from __future__ import annotations

from typing import Any

from hauberk import registry
from hauberk.evaluation.alpha_path import PATH_VERSION
from hauberk.evaluation.keys import revisions
from hauberk.records import Part


def revisions_today(part: Part) -> dict[str, Any]:
    """The revisions that the unit of a part would name if it were measured now; if it names others, bits may differ."""
    kind: registry.Kind = "attack" if part.kind == "attack" else "certificate"
    specs = [part.unit[name] for name in ("suite", "method") if name in part.unit]
    methods = [registry.build(spec, kind) for spec in specs if spec["name"] != "alpha_path"]
    return revisions(*methods) | ({"alpha_path": PATH_VERSION} if part.kind == "mix" else {})
