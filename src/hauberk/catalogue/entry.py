"""What is known of a method without importing it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal[
    "threat", "loss", "attack", "certificate", "objective", "defence", "model", "dataset", "layer", "metric",
    "noise", "bound", "executor",
]  # fmt: skip
# what pages call each family, in the order of their tables
TITLES: Mapping[Kind, str] = {
    "attack": "Attacks", "certificate": "Certificates", "objective": "Objectives of training", "defence": "Defences",
    "model": "Models", "dataset": "Data sets", "threat": "Threats", "noise": "Noise distributions",
    "loss": "Losses of attacks", "layer": "Layers and activations", "bound": "Bounds", "metric": "Metrics",
    "executor": "Executors",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One registered method.

    Args:
        kind: which family it belongs to.
        name: the name a recipe uses, unique over all kinds.
        path: ``module:attribute``, imported on first use.
        summary: one line for tables.
        reference: paper and equation.
        facts: what else a table shows, for example norms, knowledge, cost.
        short: settings that stand for a part, such as ``{"sigma": ("noise", "gaussian")}``: of its Gaussian noise.
    """

    kind: Kind
    name: str
    path: str
    summary: str
    reference: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    short: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def load(self) -> Callable[..., Any]:
        """Import the class or builder."""
        module, attribute = self.path.split(":")
        target: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        return target


class Family:
    """The entries of one kind, in the order in which tables show them.

    Args:
        kind: of all of them.
    """

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.entries: list[Entry] = []

    def add(
        self, name: str, path: str, summary: str, reference: str = "",
        short: Mapping[str, tuple[str, str]] | None = None, **facts: str,
    ) -> None:  # fmt: skip
        """Add a method; see ``Entry``."""
        self.entries.append(Entry(self.kind, name, path, summary, reference, facts, short or {}))
