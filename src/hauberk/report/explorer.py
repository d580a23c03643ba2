"""The trade-off explorer of a mix: the content of the page, the counts for its script, and both as plain values."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hauberk.report import charts, words
from hauberk.report.mixing import Dot, Mix
from hauberk.report.subject import Subject
from hauberk.statistics import Interval

PLANE_ALPHAS = (0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
MOST_COLUMNS = 6


@dataclass(frozen=True)
class Shown:
    """The pictures of a subject that the page already holds.

    Args:
        subject: the subject.
        number: number of its article, from 1.
        ids: ids of the images.
    """

    subject: Subject
    number: int
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Column:
    """One accuracy at every alpha of the table."""

    title: str
    values: tuple[Interval, ...]
    rounding: words.Rounding


@dataclass(frozen=True)
class Card:
    """One image of the grid.

    Args:
        picture: the element that holds its picture.
        id: id of the image.
        label: its class.
        accurate: the answer of the accurate model.
        robust: the answer of the robust model.
        span: the alphas at which the mix is right, in words.
        start: start of that interval within [0, 1].
        width: width of that interval within [0, 1].
    """

    picture: str
    id: int
    label: str
    accurate: str
    robust: str
    span: str
    start: float
    width: float


@dataclass(frozen=True)
class MixView:
    """A mix as the page shows it: the chart, the counts for its script, and tables for readers without the script."""

    mix: Mix
    spec: charts.Spec
    numbers: Mapping[str, Any]
    alphas: tuple[float, ...]
    tables: tuple[tuple[Column, ...], ...]
    cards: tuple[Card, ...]
    absent: Mapping[str, str]

    @property
    def joined(self) -> bool:
        """Whether both models alone were attacked at one budget, so that a line joins their points."""
        return any({"accurate", "robust"} <= {d["kind"] for d in t["dots"]} for t in self.numbers["targets"])


def view(mix: Mix, shown: Iterable[Shown], folders: Mapping[str, str]) -> MixView:
    """All that the page shows of a mix.

    Args:
        mix: the two models and the mixes between them.
        shown: the pictures on the page, from which the grid takes its own.
        folders: folders of the runs on the page, by predictor.
    """
    alphas = tuple(sorted({*PLANE_ALPHAS, *mix.chosen, *(d.alpha for d in mix.dots if d.alpha is not None)}))
    places = _pictures(mix, shown)
    wanted = {"ACCURATE_RUN": mix.accurate, "ROBUST_RUN": mix.robust}
    absent = {name: predictor for name, predictor in wanted.items() if predictor not in folders}
    rows = [mix.ids.index(i) for i in places]
    numbers = _numbers(mix) | {"command": command(mix, folders), "cards": [_card_numbers(mix, r) for r in rows]}
    cards = tuple(_card(mix, r, places[mix.ids[r]]) for r in rows)
    return MixView(mix, charts.plane(mix), numbers, alphas, _tables(mix, alphas), cards, absent)


def command(mix: Mix, folders: Mapping[str, str]) -> tuple[str, str]:
    """The command that writes a mix, before and after the value of alpha; it runs in the folder with both runs."""
    accurate = shlex.quote(folders.get(mix.accurate, "ACCURATE_RUN"))
    robust = shlex.quote(folders.get(mix.robust, "ROBUST_RUN"))
    named = zip(("--accurate-scale", "--robust-scale"), mix.scales, strict=True)
    scales = "".join(f" {option} {scale!r}" for option, scale in named if scale != 1.0)
    return f"hauberk mix --accurate {accurate} --robust {robust} --alpha ", scales


def summary(mix: Mix) -> dict[str, Any]:
    """The numbers of a mix as plain values; certified, attacked and estimated numbers have separate names."""
    named = ("accurate", "robust", "dataset", "split", "scales", "norm", "proof", "chosen", "eps")
    alphas = sorted({*PLANE_ALPHAS, *mix.chosen})
    return {name: getattr(mix, name) for name in named} | {
        "images": len(mix.right),
        "either_right": dataclasses.asdict(mix.either_right),
        "attacked": [dataclasses.asdict(d) for d in mix.dots],
        "estimated": [{"norm": e.norm, "eps": e.eps} for e in mix.estimates],
        "path": [
            {
                "alpha": alpha,
                "clean_accuracy": dataclasses.asdict(mix.clean_accuracy(alpha)),
                "certified_accuracy": [dataclasses.asdict(mix.certified_accuracy(alpha, eps)) for eps in mix.eps],
                "estimated_attacked_accuracy": [dataclasses.asdict(e.accuracy(alpha)) for e in mix.estimates],
            }
            for alpha in alphas
        ],
    }


def _numbers(mix: Mix) -> dict[str, Any]:
    """The counts that the script shows at each step of the slider; their number does not grow with the images."""
    targets = _targets(mix)
    known = [(len(t["kinds"]), len(t["dots"])) for t in targets]
    full = [i for i, k in enumerate(known) if k == max(known)]
    steps = 100 if all(abs(a * 100 - round(a * 100)) < 1e-9 for a in mix.chosen) else 1000
    alphas = np.arange(steps + 1) / steps
    return {
        "images": len(mix.right),
        "alpha": mix.chosen[0],
        "steps": steps,
        "clean": _right_at(mix, alphas),
        "needed": [_from(alphas, (row[k] for row in mix.certified)) for k in range(len(mix.eps))],
        "estimates": [{"images": len(e.ids), "needed": _from(alphas, e.needed)} for e in mix.estimates],
        "targets": targets,
        "target": full[(len(full) - 1) // 2],
    }


def _right_at(mix: Mix, alphas: NDArray[np.float64]) -> list[int]:
    """How many images are right at each alpha: #(low < alpha) - #(high <= alpha)."""
    ends = np.array([r for r in mix.right if r is not None]).reshape(-1, 2)
    low, high = np.sort(ends[:, 0]), np.sort(ends[:, 1])
    counts: list[int] = (np.searchsorted(low, alphas, "left") - np.searchsorted(high, alphas, "right")).tolist()
    return counts


def _from(alphas: NDArray[np.float64], needed: Iterable[float | None]) -> list[int]:
    """How many images count at each alpha, given the alpha from which each image counts."""
    known = np.sort(np.array([a for a in needed if a is not None], dtype=np.float64))
    counts: list[int] = np.searchsorted(known, alphas, "right").tolist()
    return counts


def _targets(mix: Mix) -> list[dict[str, Any]]:
    """Every budget with known numbers, and the places of these numbers in the other lists."""
    proved = {(mix.norm, e): k for k, e in enumerate(mix.eps)}
    estimated = {(e.norm, e.eps): k for k, e in enumerate(mix.estimates)}
    targets: list[dict[str, Any]] = []
    for place in sorted({*proved, *estimated, *((d.norm, d.eps) for d in mix.dots)}):
        dots = [d for d in mix.dots if (d.norm, d.eps) == place]
        kinds = [
            name
            for name, known in (("certified", place in proved), ("attacked", dots), ("estimated", place in estimated))
            if known
        ]
        targets.append({
            "label": f"{words.budget(*place)} ({words.listed(kinds)})",
            "where": words.budget(*place),
            "kinds": kinds,
            "index": proved.get(place),
            "estimate": estimated.get(place),
            "dots": [_dot(d, charts.slot(d, dots)) for d in dots],
        })  # fmt: skip
    if not targets:
        nothing = {"label": "nothing measured yet", "where": "", "kinds": [], "dots": []}
        targets = [nothing | {"index": None, "estimate": None}]
    return targets


def _dot(dot: Dot, slot: int) -> dict[str, Any]:
    return {
        "slot": slot,
        "label": dot.label, "alpha": dot.alpha, "text": words.percent(dot.attacked.value, "up"),
        "kind": "other" if dot.alpha is None else {0.0: "accurate", 1.0: "robust"}.get(dot.alpha, "mix"),
        "count": f"{words.count(dot.attacked)} images, at most",
        "x": dot.attacked.value, "xlow": dot.attacked.low, "xhigh": dot.attacked.high,
        "y": dot.clean.value, "ylow": dot.clean.low, "yhigh": dot.clean.high,
    }  # fmt: skip


def _tables(mix: Mix, alphas: Iterable[float]) -> tuple[tuple[Column, ...], ...]:
    """One table of clean and certified accuracy at a few radii, and tables of all estimates, a few in each."""
    every = list(alphas)
    exact = [Column("Clean", tuple(mix.clean_accuracy(a) for a in every), "near")]
    for eps in _radii(mix, MOST_COLUMNS - 1):
        values = tuple(mix.certified_accuracy(a, eps) for a in every)
        exact.append(Column(f"Certified, {words.budget(mix.norm, eps)}", values, "down"))
    guesses = []
    for guess in mix.estimates:
        values = tuple(guess.accuracy(a) for a in every)
        guesses.append(Column(f"Estimated under attack, {words.budget(guess.norm, guess.eps)}", values, "near"))
    cut = [tuple(guesses[i : i + MOST_COLUMNS]) for i in range(0, len(guesses), MOST_COLUMNS)]
    return (tuple(exact), *cut)


def _radii(mix: Mix, most: int) -> list[float]:
    """A few of the certified radii: first the radii that were attacked too, then evenly spaced radii."""
    attacked = {d.eps for d in mix.dots if d.norm == mix.norm}
    stride = max(1, -(-len(mix.eps) // most))
    chosen = [*(e for e in mix.eps if e in attacked), *mix.eps[::stride]]
    return sorted(list(dict.fromkeys(chosen))[:most])


# --- the images -----------------------------------------------------------------------------------------------


def _pictures(mix: Mix, shown: Iterable[Shown]) -> dict[int, str]:
    """The page's first picture of each image of the mix, in the order of ids."""
    found: dict[int, str] = {}
    for s in shown:
        if (s.subject.dataset, s.subject.split) == (mix.dataset, mix.split):
            for i in s.ids:
                found.setdefault(i, f"picture-{s.number}-{i}")
    known = set(mix.ids)
    return {i: found[i] for i in sorted(found) if i in known}


def _card(mix: Mix, row: int, picture: str) -> Card:
    low, high = mix.right[row] or (0.0, 0.0)
    start, end = max(low, 0.0), min(high, 1.0)
    accurate, robust = (words.class_name(k, mix.classes) for k in mix.predictions[row])
    label = words.class_name(mix.labels[row], mix.classes)
    return Card(picture, mix.ids[row], label, accurate, robust, span(mix.right[row]), start, end - start)


def _card_numbers(mix: Mix, row: int) -> dict[str, Any]:
    """The numbers that the script compares with alpha for one image; -1 and 2 lie beyond both ends, null is never."""
    right = mix.right[row]
    guesses = [dict(zip(e.ids, e.needed, strict=True)).get(mix.ids[row]) for e in mix.estimates]
    accurate, robust = (said == mix.labels[row] for said in mix.predictions[row])
    return {
        "low": right[0] if right else 2.0, "high": right[1] if right else -1.0, "accurate": accurate, "robust": robust,
        "needed": list(mix.certified[row]), "estimates": guesses,
    }  # fmt: skip


def span(right: tuple[float, float] | None) -> str:
    """The alphas at which the mix is right, in words."""
    if right is None:
        return "right at no α"
    low, high = right
    if low < 0.0 and high > 1.0:
        return "right at every α"
    if high > 1.0:
        return f"right for α above {low:.2f}"
    if low < 0.0:
        return f"right for α below {high:.2f}"
    return f"right for α between {low:.2f} and {high:.2f}"
