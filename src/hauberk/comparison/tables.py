"""A comparison as lines for a terminal, as Markdown, and as plain values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from hauberk.comparison.compare import Comparison, Judged, accuracy
from hauberk.comparison.contestant import Contestant, Quantity
from hauberk.report import markdown, words
from hauberk.statistics import Interval

ROUNDING: dict[str, words.Rounding] = {"clean": "near", "attacked": "up", "certified": "down"}
BOUND = {"clean": "", "attacked": ", at most", "certified": ", at least"}
SHARES = ("Of", "Run", "Percent", "By seed", "Images", "By")
EFFECTS = ("Of", "Run", "Against", "Points", "Over seeds", "Images", "p", "Verdict")


def lines(found: Comparison) -> Iterator[str]:
    """The comparison as lines for a terminal: each quantity, the share of each run, then the differences."""
    for quantity in found.quantities:
        yield f"{quantity}{BOUND[quantity.kind]}"
        width = max(len(c.name) for c in found.contestants if quantity in c.outcomes)
        for name, share, seeds, images, how in (row[1:] for row in _shares(found, quantity)):
            yield (f"  {name:{width}}  {share} %{f'; seeds {seeds}' if seeds else ''}, {images} images"
                   f"{f', by {how}' if how else ''}")  # fmt: skip
        for one, against, points, seeds, images, p, verdict in (row[1:] for row in _effects(found, quantity)):
            over = f", over seeds {seeds}" if seeds else ""
            yield f"    {one} {against}: {points} points{over}, {images} images, p {p}: {verdict}"
    yield from notes(found)


def page(found: Comparison) -> str:
    """The comparison as Markdown."""
    shares = [row for q in found.quantities for row in _shares(found, q)]
    effects = [row for q in found.quantities for row in _effects(found, q)]
    blocks = [markdown.table(SHARES, shares), markdown.table(EFFECTS, effects)]
    return "\n".join([*blocks, *(f"- {note}" for note in notes(found))]) + "\n"


def notes(found: Comparison) -> list[str]:
    """Notes on how the numbers were made, on problems of the records, and on comparisons that could not be made."""
    count, level = len(found.judged), f"{100 * found.confidence:g} %"
    said = [f"Each {level} interval holds by itself. All verdicts together hold at {level}: p is corrected for "
            f"{count} comparison{'s' * (count > 1)} (Holm)."]  # fmt: skip
    if any(j.effect.over_seeds for j in found.judged):
        said.append("Of pooled seeds a verdict needs both a difference over images and one over seeds.")
    if any(j.effect.more or j.effect.fewer for j in found.judged):
        said.append("Where one run met attacks that the other did not, its lower share may be due to them: no verdict.")
    said += [f"Problem in the records of {c.name}: {problem}" for c in found.contestants for problem in c.problems]
    return said + [f"Not compared: {sentence}." for sentence in found.refused]


def plain(found: Comparison) -> dict[str, Any]:
    """The comparison as values for JSON; shares are fractions."""
    return {
        "confidence": found.confidence,
        "runs": [_contestant(c, found) for c in found.contestants],
        "comparisons": [
            _quantity(j.effect.quantity) | {
                "run": j.effect.one, "against": list(j.effect.against), "difference": _interval(j.effect.interval),
                "over_seeds": j.effect.over_seeds and _interval(j.effect.over_seeds),
                "p": j.effect.p, "p_holm": j.corrected, "verdict": j.verdict,
            }
            for j in found.judged
        ],
        "not_compared": list(found.refused),
    }  # fmt: skip


def _contestant(contestant: Contestant, found: Comparison) -> dict[str, Any]:
    shares = []
    for quantity in (q for q in found.quantities if q in contestant.outcomes):
        interval, over_seeds = accuracy(contestant, quantity, found.confidence)
        shares.append(_quantity(quantity) | {
            "share": _interval(interval), "over_seeds": over_seeds and _interval(over_seeds),
            "by": contestant.outcomes[quantity].how,
        })  # fmt: skip
    return {
        "name": contestant.name, "seeds": list(contestant.seeds), "runs": [str(path) for path in contestant.runs],
        "data": contestant.dataset, "split": contestant.split, "shares": shares, "problems": list(contestant.problems),
    }  # fmt: skip


def _quantity(quantity: Quantity) -> dict[str, Any]:
    if quantity.kind == "clean":
        return {"of": "clean"}
    return {"of": quantity.kind, "threat": {"norm": quantity.norm, "eps": quantity.eps}}


def _interval(interval: Interval) -> dict[str, float | int | None]:
    """An interval as values for JSON; infinite ends, as of a single value, become None."""
    ends = {"value": interval.value, "low": interval.low, "high": interval.high}
    return {name: end if math.isfinite(end) else None for name, end in ends.items()} | {"n": interval.n}


def _shares(found: Comparison, quantity: Quantity) -> Iterator[list[str]]:
    for c in (c for c in found.contestants if quantity in c.outcomes):
        interval, _ = accuracy(c, quantity, found.confidence)
        outcome = c.outcomes[quantity]
        seeds = [f"{100 * share:.1f} ({seed})" for seed, share in zip(c.seeds, outcome.counts.mean(1), strict=False)]
        yield [
            f"{quantity}{BOUND[quantity.kind]}", c.name, words.share(interval, ROUNDING[quantity.kind]),
            ", ".join(seeds), f"{interval.n:,}", "; ".join(outcome.how),
        ]  # fmt: skip


def _effects(found: Comparison, quantity: Quantity) -> Iterator[list[str]]:
    for judged in (j for j in found.judged if j.effect.quantity == quantity):
        yield _effect(judged)


def _effect(judged: Judged) -> list[str]:
    effect = judged.effect
    seeds = words.points(effect.over_seeds) if effect.over_seeds else ""
    against = f"less {effect.against[0]}"
    if len(effect.against) == 2:
        against = f"above the line from {effect.against[0]} to {effect.against[1]}"
    return [
        str(effect.quantity), effect.one, against, words.points(effect.interval), seeds, f"{effect.interval.n:,}",
        f"{judged.corrected:.2g}", judged.verdict,
    ]  # fmt: skip
