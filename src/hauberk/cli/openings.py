"""The first line of a slow verb, which announces the work before anything large is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# for each verb: the words of the line, and the arguments whose values they name
DEEDS = {
    "train": ("training {}", "recipe"),
    "attack": ("attacking {}", "target"),
    "certify": ("certifying {}", "target"),
    "evaluate": ("evaluating {}", "target"),
    "check": ("looking at {}", "target"),
    "lipschitz": ("bounding {} layer by layer", "target"),
    "mix": ("mixing {} with {}", "accurate", "robust"),
    "sweep": ("the table {}", "path"),
    "demo": ("training, attacking, certifying, mixing and verifying four small nets, for some minutes",),
    "report": ("writing a page about {}", "runs"),
    "compare": ("comparing {}", "runs"),
    "verify": ("checking {}", "runs"),
    "bundle": ("copying {}", "run"),
    "gate": ("holding {} against what is required", "run"),
}
# for each option that the line names: the words around its value
SETTINGS = {
    "data": "on {}",
    "threat": "in {}",
    "suite": "with AutoAttack {}",
    "attacks": "with {}",
    "method": "by {}",
    "images": "on {} images",
    "shard": "shard {}",
    "executor": "by {}",
    "against": "against {}",
    "out": "into {}",
}
USUAL = ("inline", "0/1")


def opening(verb: str, params: Mapping[str, Any]) -> str:
    """The first line of a verb; empty for a verb that answers at once, and for JSON output."""
    if verb not in DEEDS or params.get("json") or params.get("format") == "json":
        return ""
    words, *named = DEEDS[verb]
    parts = [words.format(*(_shown(params.get(name)) for name in named))]
    parts += [SETTINGS[name].format(_shown(params[name])) for name in SETTINGS
              if name not in named and params.get(name) and params[name] not in USUAL]  # fmt: skip
    return ", ".join(parts)


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
