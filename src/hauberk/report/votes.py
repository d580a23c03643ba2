"""Smoothed classifiers from records and from logs side by side: their radii and their vote probabilities.

Images on which nearly all votes agree make up most of an average certified radius, so the distribution of vote
probabilities is shown beside it (arXiv 2410.06895).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hauberk import registry
from hauberk.evaluation import metrics
from hauberk.noises import Noise
from hauberk.records import Part
from hauberk.report.collect import curve, round_levels
from hauberk.report.logs import Log, contradiction
from hauberk.report.outcomes import correct
from hauberk.report.subject import Curve, preference
from hauberk.statistics import Interval, wilson
from hauberk.verify.derive.votes import noise_of

EDGES = (0.9, 0.99, 0.999)
RANGES = ("below 0.9", "0.9 to 0.99", "0.99 to 0.999", "at least 0.999")


@dataclass(frozen=True)
class Band:
    """Images whose vote probability is in one range, or that abstain or are wrong.

    Args:
        name: name of the range.
        share: share of all images.
        carried: share of the average certified radius that comes from these images.
    """

    name: str
    share: Interval
    carried: float


@dataclass(frozen=True)
class Voted:
    r"""One smoothed classifier by one certificate.

    Args:
        number: number of its colour on the page, from 1; it is the number of its article, if it has one.
        name: its short name.
        curve: certified accuracy, with levels that all rows of the norm share.
        noise: the noise of the smoothing.
        n: votes of an image; None if it is not stated.
        bands: right images by :math:`p_A = F(R/\sigma)`, the least vote probability that their radius proves, the
            surest first; then images without a decision, and wrong images.
        log: the log, if the row is one; it has no votes, so its radii are not derived again.
        contradiction: what is wrong with the stated n and alpha of a log.
    """

    number: int
    name: str
    curve: Curve
    noise: Noise
    n: int | None
    bands: tuple[Band, ...]
    log: Log | None = None
    contradiction: str = ""

    @property
    def said(self) -> str:
        """Noise, votes and failure probability."""
        alpha, family = self.curve.failure_probability, registry.spec(self.noise)["name"].replace("_", " ")
        votes = "n not stated" if self.n is None else f"{self.n:,} votes"
        failing = "alpha not stated" if math.isnan(alpha) else f"alpha {alpha:g}"
        return f"{family} noise, sigma {self.noise.sigma:g}, {votes}, {failing}"

    @property
    def held(self) -> str:
        """The result of comparing the radii of a log with its n and alpha, in a sentence."""
        if self.n is None or math.isnan(self.curve.failure_probability):
            return "n and alpha are not both stated, so that its radii were not held against them."
        return self.contradiction or "Its radii are ones that n votes give at this alpha."

    @property
    def sure(self) -> Band:
        """The images that at least 99 % of the votes agree on."""
        best = self.bands[:2]
        share = wilson(sum(round(b.share.value * b.share.n) for b in best), self.curve.right.n)
        return Band("at least 0.99", share, sum(b.carried for b in best))


def voted(joined: Sequence[Sequence[Part]], name: Callable[[str], str], logs: Sequence[Log] = ()) -> list[Voted]:
    """One row for each smoothed classifier, by the certificate that its article shows, and one for each log.

    Args:
        joined: the records of each classifier, in the order of their articles.
        name: gives the short name of a predictor.
        logs: logs from elsewhere.
    """
    found: list[tuple[int, Part, Log | None]] = [(k, p, None) for k, own in enumerate(joined, 1) for p in _shown(own)]
    found += [(k, log.part, log) for k, log in enumerate(logs, len(joined) + 1)]
    largest: dict[str, float] = {}
    for _, part, _ in found:
        norm, radii = str(part.facts["norm"]), part.column("radius")[correct(part)]
        largest[norm] = max(largest.get(norm, 0.0), float(radii.max(initial=0.0)))
    return [_row(k, part, name, log, round_levels(largest[str(part.facts["norm"])])) for k, part, log in found]


def _shown(parts: Sequence[Part]) -> list[Part]:
    """The preferred smoothing certificate of a classifier, if any; those that stop at a goal show little of radii."""
    own = [p for p in parts if p.kind == "certificate" and p.unit["method"]["name"] == "smoothing"]
    own = [p for p in own if p.facts["proof"] == "probabilistic" and p.unit["method"].get("goal") is None]
    return sorted(own, key=lambda p: preference("probabilistic", p.unit["method"], int(p.unit["seed"])))[-1:]


def _row(number: int, part: Part, name: Callable[[str], str], log: Log | None, levels: list[float]) -> Voted:
    method = part.unit["method"]
    noise = log.noise if log else registry.build(noise_of(method), "noise")
    return Voted(
        number, log.name if log else name(str(part.unit["predictor"])), curve(part, levels), noise, method["n"],
        bands(part, noise), log, contradiction(log.ladder) if log else "",
    )  # fmt: skip


def bands(part: Part, noise: Noise) -> tuple[Band, ...]:
    """The images of a certificate by their vote probability."""
    right, radius = correct(part), part.column("radius").astype(np.float64)
    surely = np.digitize([noise.probability(r) for r in radius.tolist()], EDGES)
    groups = {name: right & (surely == k) for k, name in reversed([*enumerate(RANGES)])}
    abstained = part.column("prediction") == -1
    groups |= {"abstained": abstained, "wrong": ~right & ~abstained}
    whole = float(radius[right].sum()) or 1.0
    return tuple(
        Band(name, metrics.accuracy(group), float(radius[group & right].sum()) / whole)
        for name, group in groups.items()
    )  # fmt: skip


def summary(row: Voted) -> dict[str, Any]:
    """A row as plain values; ``on_trust`` says that it is a log."""
    found = row.curve
    log = {"path": str(row.log.path), "sha256": row.log.content, "notes": row.log.told.notes} if row.log else None
    return {
        "name": row.name, "on_trust": row.log is not None, "norm": found.norm, "noise": registry.spec(row.noise),
        "n": row.n, "alpha": found.failure_probability, "right": asdict(found.right),
        "abstained": asdict(found.abstained), "mean_radius": asdict(found.mean_radius),
        "levels": [asdict(level) for level in found.levels], "bands": [asdict(band) for band in row.bands],
        "contradiction": row.contradiction, "log": log,
    }  # fmt: skip
