"""The kept adversarial images of a run as arrays or as picture files."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hauberk import records
from hauberk.errors import HauberkError
from hauberk.records import Part
from hauberk.runs import Run
from hauberk.storage import atomic_write
from hauberk.threats import Threat
from hauberk.verify.wrapped import core, target

Row = dict[str, Any]


def kept(run: Run, threat: Threat | None = None) -> list[Row]:
    """The kept images of a run, by id: of each the attack that broke it, else the one that came closest.

    Attacks towards a class are left out where there are others.

    Args:
        run: with records of attacks.
        threat: norm and budget; None where the records have one only.

    Returns:
        for each image ``id``, ``label``, ``clean_prediction``, ``prediction``, ``success``, ``distance``, ``attack``,
        and ``image`` and ``adversarial`` (float32, (C, H, W)).

    Raises:
        HauberkError: if no image was kept, or several threats have some.
    """
    parts = [p for p in records.group(records.read_all(run.records, "attack")) if _keeps(p)]
    budgets = sorted({(str(p.unit["threat"]["name"]), float(p.unit["threat"]["eps"])) for p in parts})
    if threat is not None:
        budgets = [(n, e) for n, e in budgets if n == threat.norm and abs(e - threat.eps) <= 1e-9]
    if not budgets:
        raise HauberkError(f"{run.path} keeps no such images", "keep them: hauberk attack RUN --threat ... --keep all")
    if len(budgets) > 1:
        known = ", ".join(f"{norm}:{eps:.6g}" for norm, eps in budgets)
        raise HauberkError(f"{run.path} keeps images of several threats: {known}", "name one: --threat")
    own = [p for p in parts if (p.unit["threat"]["name"], float(p.unit["threat"]["eps"])) == budgets[0]]
    own = [p for p in own if target(p) is None] or own
    best: dict[int, tuple[tuple[bool, float], Row]] = {}
    for part in own:
        for row in part.table.to_pylist():
            rank = (not row["success"], float(row["logit_margin"]))
            if row["image"] is not None and (row["id"] not in best or rank < best[row["id"]][0]):
                best[row["id"]] = rank, _row(part, row)
    return [best[i][1] for i in sorted(best)]


def arrays(rows: Sequence[Row], path: Path) -> Path:
    """Write ``images``, ``adversarial`` (float32, (N, C, H, W)), ``ids``, ``labels``, ``clean_predictions``,
    ``predictions``, ``success``, ``distances`` and ``attacks`` as one ``.npz`` file.
    """  # noqa: D205
    names = {"images": "image", "adversarial": "adversarial", "ids": "id", "labels": "label", "attacks": "attack",
             "clean_predictions": "clean_prediction", "predictions": "prediction", "success": "success",
             "distances": "distance"}  # fmt: skip
    buffer = io.BytesIO()
    columns: dict[str, Any] = {key: np.array([row[name] for row in rows]) for key, name in names.items()}
    np.savez_compressed(buffer, **columns)
    atomic_write(path, buffer.getvalue())
    return path


def pictures(rows: Sequence[Row], folder: Path) -> Path:
    """Write ``ID-original.png`` and ``ID-adversarial.png`` of each image, and ``index.json`` that says what they are.

    A PNG has whole 8-bit levels: values are rounded towards the image, so that the point stays within its budget.  The
    index says of each whether its point had these levels already: then the file is the very point that was judged.

    Raises:
        HauberkError: if images have neither one channel nor three.
    """
    index = []
    for row in rows:
        if len(row["image"]) not in (1, 3):
            raise HauberkError(f"a PNG has 1 or 3 channels, these images have {len(row['image'])}", "take -o FILE.npz")
        original = np.rint(row["image"].astype(np.float64) * 255)
        change = row["adversarial"].astype(np.float64) * 255 - original
        exact = bool((abs(change - np.rint(change)) < 1e-3).all())
        levels = {"original": original, "adversarial": original + (np.rint(change) if exact else np.trunc(change))}
        for name, values in levels.items():
            atomic_write(folder / f"{row['id']}-{name}.png", _png(values))
        told = {k: v for k, v in row.items() if k not in ("image", "adversarial")}
        index.append(told | {"exact": exact})
    atomic_write(folder / "index.json", json.dumps(index, indent=1).encode())
    return folder


def _keeps(part: Part) -> bool:
    return bool(part.table.column("image").null_count < part.table.num_rows)


def _row(part: Part, row: Row) -> Row:
    shape = tuple(int(n) for n in part.facts["shape"])
    names = ("id", "label", "clean_prediction", "prediction", "success", "distance")
    found: Row = {name: row[name] for name in names}
    for name in ("image", "adversarial"):
        found[name] = np.frombuffer(row[name], np.float32).reshape(shape)
    return found | {"attack": str(core(part.unit["method"])["name"])}


def _png(levels: NDArray[np.float64]) -> bytes:
    values = np.clip(levels, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values[0] if len(values) == 1 else np.moveaxis(values, 0, 2)).save(buffer, format="PNG")
    return buffer.getvalue()
