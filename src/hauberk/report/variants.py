"""Measurements of attacks beside robust accuracy: points of whole levels, a chosen class, distances of errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hauberk.evaluation import metrics
from hauberk.evaluation.minimum import eps50
from hauberk.records import Part
from hauberk.report.outcomes import plain
from hauberk.report.subject import HalfBroken, Reached
from hauberk.verify.wrapped import core, target, white

MINIMUM_NORM = ("fab", "ddn", "fmn", "deepfool", "carlini_wagner")


def on_grid(parts: Sequence[Part]) -> dict[int, list[Part]]:
    """The attacks whose points have whole levels, by the level that stands for 1."""
    found: dict[int, list[Part]] = {}
    for part in parts:
        levels = white(part)
        if levels is not None and target(part) is None:
            found.setdefault(levels, []).append(part)
    return found


def reached(parts: Sequence[Part]) -> list[Reached]:
    """The share of images of other classes that attacks turned into a chosen class, for each class and threat."""
    groups: dict[tuple[int, str, float, int | None], list[Part]] = {}
    for part in parts:
        aim, threat = target(part), part.unit["threat"]
        if aim is not None:
            groups.setdefault((aim, str(threat["name"]), float(threat["eps"]), white(part)), []).append(part)
    return [_reached(key, items) for key, items in sorted(groups.items(), key=lambda item: str(item[0]))]


def _reached(key: tuple[int, str, float, int | None], parts: Sequence[Part]) -> Reached:
    aim, norm, eps, levels = key
    done: dict[int, bool] = {}
    for part in parts:
        for i, label, success in zip(*(part.column(n).tolist() for n in ("id", "label", "success")), strict=True):
            if label != aim:
                done[i] = done.get(i, False) or bool(success)
    rate = metrics.accuracy(np.array(list(done.values()), dtype=np.bool_))
    names = tuple(dict.fromkeys(str(core(p.unit["method"])["name"]) for p in parts))
    return Reached(aim, norm, eps, rate, names, levels)


def half_broken(parts: Sequence[Part]) -> list[HalfBroken]:
    """The median distance of errors in each norm in which a minimum-norm attack looked for the nearest one."""
    found = []
    for norm in dict.fromkeys(str(p.unit["threat"]["name"]) for p in parts):
        own = [p for p in parts if p.unit["threat"]["name"] == norm and plain(p)]
        walks = [p for p in own if _looks_for_the_nearest(p)]
        if walks:
            found.append(_half_broken(norm, own, walks))
    return found


def _looks_for_the_nearest(part: Part) -> bool:
    method = part.unit["method"]
    return method["name"] in MINIMUM_NORM and not method.get("early_stop", False) and part.unit.get("stage", 0) == 0


def _half_broken(norm: str, parts: Sequence[Part], walks: Sequence[Part]) -> HalfBroken:
    """The median over the images that a minimum-norm attack saw, with nearer errors that other attacks found."""
    ids = np.unique(np.concatenate([p.column("id") for p in walks]))
    right, rows = np.ones(len(ids), dtype=np.bool_), []
    for part in parts:
        nearest = np.full(len(ids), np.inf)
        _, mine, theirs = np.intersect1d(ids, part.column("id"), return_indices=True)
        nearest[mine] = part.column("nearest")[theirs]
        right[mine] &= (part.column("clean_prediction") == part.column("label"))[theirs]
        rows.append(nearest)
    standing = int((right & np.isinf(np.minimum.reduce(rows))).sum())
    names = tuple(dict.fromkeys(str(p.unit["method"]["name"]) for p in walks))
    return HalfBroken(norm, eps50(right, rows), standing, names)
