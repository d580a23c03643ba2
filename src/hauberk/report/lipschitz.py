"""Lipschitz bounds layer by layer, and the input gradients of several models side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from torch import Tensor

from hauberk.evaluation.lipschitz_report import LayerReport, LipschitzReport, worst_offence
from hauberk.report.pictures import png


@dataclass(frozen=True)
class View:
    """The Lipschitz bounds of one run as the page shows them.

    Args:
        run: name of the run's folder.
        facts: the report without its layers and pictures, as plain values.
        layers: the layers in order.
    """

    run: str
    facts: Mapping[str, Any]
    layers: tuple[LayerReport, ...]

    @property
    def offence(self) -> LayerReport | None:
        """A layer that was found steeper than its bound."""
        return worst_offence(self.layers)


@dataclass(frozen=True)
class Row:
    """One image and its input gradient for each run, as PNG data URIs; empty if a run has no gradient for the image."""

    id: int
    original: str
    gradients: tuple[str, ...]


@dataclass(frozen=True)
class Gradients:
    """Input gradients of several runs on the same images."""

    runs: tuple[str, ...]
    rows: tuple[Row, ...]


def plain(report: LipschitzReport, ids: Tensor, images: Tensor, gradients: Tensor) -> dict[str, Any]:
    """The report and its pictures as JSON values, as ``run.json`` keeps them."""
    facts = asdict(report)
    if report.refused:
        facts["bound"] = None
    return facts | {
        "pictures": [
            {"id": int(i), "image": png(x), "gradient": png(g)}
            for i, x, g in zip(ids.tolist(), images.float().numpy(), gradients.float().numpy(), strict=True)
        ]
    }


class _Facts(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def info(self) -> Mapping[str, Any]: ...


def views(runs: Iterable[_Facts]) -> list[View]:
    """The bounds of all runs that have them."""
    found = []
    for run in runs:
        for facts in run.info.get("lipschitz", {}).values():
            layers = tuple(LayerReport(**layer) for layer in facts["layers"])
            rest = {k: v for k, v in facts.items() if k not in ("layers", "pictures")}
            found.append(View(run.name, rest, layers))
    return found


def gradients(runs: Iterable[_Facts]) -> Gradients | None:
    """The pictures of all runs in one table with one row for each image; None if there are no pictures."""
    columns: dict[str, dict[int, str]] = {}
    originals: dict[int, str] = {}
    for run in runs:
        for facts in run.info.get("lipschitz", {}).values():
            columns[run.name] = {p["id"]: p["gradient"] for p in facts["pictures"]}
            originals |= {p["id"]: p["image"] for p in facts["pictures"]}
    if not originals:
        return None
    rows = tuple(Row(i, originals[i], tuple(c.get(i, "") for c in columns.values())) for i in sorted(originals))
    return Gradients(tuple(columns), rows)
