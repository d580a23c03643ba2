"""What a library says of a planted trap, whether it is true, and the table of it all, see ``lipschitz_traps.py``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hauberk.batch import Batch
from hauberk.certificates import LipschitzCertificate
from hauberk.errors import HauberkError
from hauberk.layers import model_bound

ROUNDING = 1e-12  # of a dense singular value in float64; one claim is false by 4.8e-8
LIBRARIES = ("torch", "deel-torchlip", "orthogonium", "published style", "hauberk")
ORDER = ("false certificate", "nan", "warns", "sound", "refuses", "offers none")  # first is what counts of several
Shape = tuple[int, ...]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """One answer to one trap.

    Args:
        trap: its name.
        library: who answers.
        asked: which function or layer.
        verdict: one of ``ORDER``.
        claim: a Lipschitz constant, or a radius.
        truth: of the same thing.
        kind: ``lipschitz`` or ``radius``.
        note: what a fair reader should know.
    """

    trap: str
    library: str
    asked: str
    verdict: str
    claim: float | None = None
    truth: float | None = None
    kind: str = "lipschitz"
    note: str = ""


# --- judging --------------------------------------------------------------------------------------------------


def dense(layer: Callable[[Tensor], Tensor], shape: Shape) -> float:
    """The norm of an affine layer from its matrix; NaN if the matrix holds any."""
    size = math.prod(shape)
    eye = torch.eye(size).reshape(size, *shape)
    with torch.no_grad():
        matrix = (layer(eye) - layer(torch.zeros_like(eye))).flatten(1)
    return float(torch.linalg.svdvals(matrix)[0]) if bool(matrix.isfinite().all()) else math.nan


def claims(library: str, asked: str, claim: float, truth: float, note: str = "", kind: str = "lipschitz") -> Finding:
    """The verdict on a number."""
    short = truth > claim * (1 + ROUNDING) if kind == "lipschitz" else claim > truth * (1 + ROUNDING)
    verdict = "nan" if math.isnan(claim) or math.isnan(truth) else "false certificate" if short else "sound"
    return Finding("", library, asked, verdict, claim, truth, kind, note)


def none(library: str, note: str = "", truth: float | None = None) -> Finding:
    return Finding("", library, "", "offers none", None, truth, note=note)


def ours(asked: str, model: nn.Module, shape: Shape, truth: float, note: str = "") -> Finding:
    """What Hauberk says of a model: a bound, or an error."""
    try:
        return claims("hauberk", asked, model_bound(model, shape).value, truth, note)
    except HauberkError as error:
        return Finding("", "hauberk", asked, "refuses", None, truth, note=error.message)


def our_radius(model: nn.Module, batch: Batch, truth: float) -> Finding:
    try:
        radius = float(LipschitzCertificate()(model, batch).radius)
        return claims("hauberk", "LipschitzCertificate", radius, truth, kind="radius")
    except HauberkError as error:
        return Finding("", "hauberk", "LipschitzCertificate", "refuses", None, truth, "radius", error.message)


# --- planting -------------------------------------------------------------------------------------------------


def planted(layer: nn.Module, weight: Tensor, shape: Shape, forwards: int = 20) -> nn.Module:
    """The layer with that free weight, after forwards in train mode for whatever it iterates, in eval mode."""
    with torch.no_grad():
        layer.parametrizations.weight.original.copy_(weight)  # type: ignore[union-attr, operator]
        for _ in range(forwards):
            layer.train()(torch.zeros(2, *shape))
    return layer.eval()


def conv(weight: Tensor, **settings: Any) -> nn.Conv2d:
    groups = settings.get("groups", 1)
    layer = nn.Conv2d(weight.shape[1] * groups, len(weight), tuple(weight.shape[2:]), bias=False, **settings)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer.eval()


def linear(weight: Tensor, bias: Tensor) -> nn.Sequential:
    layer = nn.Linear(weight.shape[1], len(weight))
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return nn.Sequential(nn.Flatten(), layer).eval()


def image(*pixels: float) -> Batch:
    values = torch.tensor(pixels, dtype=torch.float32).reshape(1, 1, 1, -1)
    return Batch(values, torch.zeros(1).long(), torch.arange(1))


# --- the table ------------------------------------------------------------------------------------------------


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """The row for a JSON file, which has no infinity and no NaN."""
    return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def worst(rows: Iterable[Row]) -> str:
    """The verdict that counts where a library gives several answers."""
    return min((row["verdict"] for row in rows), key=ORDER.index)


def number(value: float | str) -> str:
    """A number for a reader; what differs from 1 by little says by how much."""
    value = float(value)
    if not math.isfinite(value):
        return str(value)
    if 1e-11 < abs(value - 1.0) < 0.01:
        return f"1 {'+' if value > 1.0 else '-'} {abs(value - 1.0):.1g}"
    return f"{value:.3g}" if abs(value) < 1e4 else f"{value:.1e}"


def cell(rows: list[Row]) -> str:
    """Verdicts with what is claimed and what is true, the one that counts first."""
    parts = []
    for row in sorted(rows, key=lambda row: ORDER.index(row["verdict"])):
        verdict = f"**{row['verdict']}**" if row["verdict"] == "false certificate" else row["verdict"]
        said = f", {number(row['claim'])} for {number(row['truth'])}" if row["claim"] is not None else ""
        known = f", {number(row['truth'])} measured" if row["verdict"] == "offers none" and row["truth"] else ""
        asked = f" ({row['asked']})" if len(rows) > 1 else ""
        parts.append(f"{verdict}{said}{known}{asked}")
    return "; ".join(parts)


def markdown(rows: list[Row], libraries: tuple[str, ...] = LIBRARIES) -> str:
    """One line a trap, one column a library, the verdicts counted, and the notes below."""
    traps = list(dict.fromkeys(row["trap"] for row in rows))
    by = {(t, name): [r for r in rows if (r["trap"], r["library"]) == (t, name)] for t in traps for name in libraries}
    lines = ["| Trap | " + " | ".join(libraries) + " |", "| --- " * (len(libraries) + 1) + "|"]
    lines += [f"| {trap} | " + " | ".join(cell(by[trap, name]) for name in libraries) + " |" for trap in traps]
    counts = {name: Counter(worst(by[trap, name]) for trap in traps) for name in libraries}
    total = ", ".join(f"{name} {counts[name]['false certificate']}" for name in libraries)
    lines += ["", f"False certificates in {len(traps)} traps: {total}.", ""]
    notes: dict[str, list[str]] = {}
    for row in rows:
        if row["note"]:
            notes.setdefault(f"{row['library']}: {row['note']}", []).append(row["trap"])
    return "\n".join([*lines, *(f"- {note} ({', '.join(dict.fromkeys(where))})" for note, where in notes.items())])
