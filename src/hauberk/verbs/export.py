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
from hauberk.report.collect import subject_key, told_apart
from hauberk.runs import Run
from hauberk.storage import atomic_write
from hauberk.threats import Threat
from hauberk.verbs.variants import class_of
from hauberk.verify.wrapped import core, target

Row = dict[str, Any]
OFF = 1e-3  # levels of 8 bits that a float32 value of a whole one may lie off it; levels of 16 bits lie 1/257 apart


def kept(
    run: Run,
    threat: Threat | None = None,
    split: str | None = None,
    predictor: str | None = None,
    aim: str | int | None = None,
) -> list[Row]:
    """The kept images of one evaluation, by id: of each the attack that broke it, else the one that came closest.

    Attacks towards a class are left out where there are others, unless the class is named.

    Args:
        run: with records of attacks.
        threat: norm and budget; None where the records have one only.
        split: of the data; None where the records have one only.
        predictor: of which classifier; None where the records have one only.
        aim: the class that the attacks want, by its name or number.

    Returns:
        for each image ``id``, ``label``, ``clean_prediction``, ``prediction``, ``success``, ``distance``, ``attack``,
        and ``image`` and ``adversarial`` (float32, (C, H, W)).

    Raises:
        HauberkError: if no image was kept, or there are several threats, splits, classifiers or classes to choose from.
    """
    parts = [p for p in records.group(told_apart(records.read_all(run.records, "attack"))) if _keeps(p)]
    wanted = {"threat": threat and _budget(threat.norm, threat.eps), "split": split, "predictor": predictor}
    for name, value in wanted.items():
        parts = [p for p in parts if value in (None, _about(p)[name])]
    if aim is None:
        parts = [p for p in parts if target(p) is None] or parts
    elif parts:
        chosen = class_of(aim, list(map(str, parts[0].facts["classes"])))
        parts = [p for p in parts if target(p) == chosen]
    if not parts:
        raise HauberkError(
            f"{run.path} keeps no such images", "store them with: hauberk attack RUN --threat ... --keep all"
        )
    _check_one(run, parts)
    best: dict[int, tuple[tuple[bool, float], Row]] = {}
    for part in parts:
        for row in part.table.to_pylist():
            rank = (not row["success"], float(row["logit_margin"]))
            if row["image"] is not None and (row["id"] not in best or rank < best[row["id"]][0]):
                best[row["id"]] = rank, _row(part, row)
    return [best[i][1] for i in sorted(best)]


def _budget(norm: str, eps: float) -> str:
    return f"{norm}:{eps:.6g}"


def _about(part: Part) -> dict[str, str]:
    """What has to be the same of all rows that are put together, each by the option that chooses it."""
    predictor, _, split = subject_key(part)
    threat, aim = part.unit["threat"], target(part)
    budget = _budget(str(threat["name"]), float(threat["eps"]))
    return {"threat": budget, "split": split, "predictor": predictor, "target": "" if aim is None else str(aim)}


def _check_one(run: Run, parts: Sequence[Part]) -> None:
    for name in _about(parts[0]):
        known = sorted({_about(part)[name] for part in parts})
        if len(known) > 1:
            raise HauberkError(f"{run.path} keeps images of several {name}s: {', '.join(known)}", f"name one: --{name}")


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
        HauberkError: if images have neither one channel nor three, or other levels than those of 8 bits.
    """
    index = []
    for row in rows:
        if len(row["image"]) not in (1, 3):
            raise HauberkError(f"a PNG has 1 or 3 channels, these images have {len(row['image'])}", "take -o FILE.npz")
        original = np.rint(row["image"].astype(np.float64) * 255)
        if (abs(row["image"].astype(np.float64) * 255 - original) > OFF).any():
            raise HauberkError("a PNG has 8 bits, and these images have levels between them", "take -o FILE.npz")
        change = row["adversarial"].astype(np.float64) * 255 - original
        exact = bool((abs(change - np.rint(change)) < OFF).all())
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
