"""Rows of attacks: a success, its point, its distance and its margins must agree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hauberk.records import Part
from hauberk.verify.verdict import samples
from hauberk.verify.wrapped import core, target, wrapped_problems

Rows = NDArray[np.bool_]
# a point that is projected and classified again may fall back over a border that it crossed by at most this much
BORDER = 1e-3
# probabilities are recorded from float32; a margin of logits follows from two of them only if both are this large
ROUNDING, SEEN = 1e-4, 1e-5
OWN_DECISIONS = ("smoothed(", "derandomised(", "detected")  # their decision is not the argmax of one forward pass


def attack_problems(part: Part) -> Iterator[str]:
    """Whether each row of an attack agrees with itself."""
    around = list(wrapped_problems(part))
    if around:
        yield from around
        return
    rows = _Rows(part)
    for wrong, sentence in rows.checks():
        if wrong.any():
            yield f"{samples(rows.ids[wrong])}: {sentence}"
    yield from _picture_problems(part)


class _Rows:
    """The columns of one part as arrays."""

    def __init__(self, part: Part) -> None:
        self.eps = float(part.unit["threat"]["eps"])
        self.own = decides_itself(part)
        self.target = target(part)
        for name in ("label", "clean_prediction", "prediction", "forwards", "backwards", "zero_gradients"):
            setattr(self, name, _column(part, name, np.int64))
        for name in ("distance", "loss", "logit_margin", "probability_margin", "nearest"):
            setattr(self, name, _column(part, name, np.float64))
        self.ids = _column(part, "id", np.int64)
        self.success = _column(part, "success", np.bool_)
        self.stopped = np.asarray(part.table.column("stopped").to_pylist(), dtype=object)
        count = len(part.facts["classes"])
        self.clean_probabilities = _table(part, "clean_probabilities", count)
        self.probabilities = _table(part, "probabilities", count)
        self.clean_draws, self.draws = (part.table.column(n).to_pylist() for n in ("clean_draws", "draws"))
        # if the model gave one answer for one image, its margins show what was seen, whatever its parts are
        drawn = any(map(bool, (*self.clean_draws, *self.draws))) or part.unit["method"].get("eot") is not None
        self.random = bool(part.facts["stochastic"]) and drawn
        poll, method = part.facts.get("poll", {}), core(part.unit["method"])
        self.voting = int(poll.get("draws", method.get("votes", 0)))  # number of draws that decide; 0 means all
        self.by_vote = poll.get("rule", "vote") == "vote"

    label: Any
    clean_prediction: Any
    prediction: Any
    distance: Any
    loss: Any
    logit_margin: Any
    probability_margin: Any
    nearest: Any
    forwards: Any
    backwards: Any
    zero_gradients: Any

    def checks(self) -> Iterator[tuple[Rows, str]]:
        """For each rule, the rows that break it and a sentence about them."""
        yield from self._verdicts()
        yield from self._numbers()
        if not self.random and not self.own:
            yield from self._margins()
            yield from self._probabilities()
        if self.random and self.by_vote:  # logits of single draws are not on record
            yield from self._votes()

    def reached(self, decided: NDArray[np.int64]) -> Rows:
        """Which decisions are the attack's goal: wrong ones, or its target class if the label is another class."""
        if self.target is None:
            return np.asarray(decided != self.label)
        return np.asarray((decided == self.target) & (self.label != self.target))

    def _verdicts(self) -> Iterator[tuple[Rows, str]]:
        wrong_before = self.reached(self.clean_prediction)
        changed = self.reached(self.prediction)
        if self.own:  # an undecided vote is no success
            changed &= self.prediction != -1
        changed &= self.distance <= self.eps
        yield self.success != (wrong_before | changed), "success contradicts the predictions and the distance"
        yield self.distance > self.eps * (1.0 + 1e-6) + 1e-7, "the returned point lies outside the threat"
        moved = wrong_before & ((self.distance != 0.0) | (self.prediction != self.clean_prediction))
        yield moved, "the image itself is misclassified, and another point was returned"
        yield self.success & ~(self.nearest <= self.distance), "the nearest misclassified point is none of those found"
        yield ~self.success & (self.nearest <= self.eps), "a misclassified point inside the threat, and no success"
        known = np.isin(self.stopped, ("misclassified", "found", "steps"))
        yield ~known | ((self.stopped == "misclassified") != wrong_before), "the reason for stopping is another one"

    def _numbers(self) -> Iterator[tuple[Rows, str]]:
        finite = np.isfinite(self.distance) & np.isfinite(self.loss)
        for table in (self.clean_probabilities, self.probabilities):
            finite &= np.isfinite(table).all(1) & (table >= 0.0).all(1) & (abs(table.sum(1) - 1.0) < ROUNDING)
        # logits that are NaN or infinite give no class and no probabilities
        yield ~finite & (self.prediction != -1) & (self.clean_prediction != -1), "a number is no number"
        yield (self.distance < 0.0) | ~(self.nearest >= 0.0), "a distance is negative or no number"
        yield abs(self.probability_margin) > 1.0 + ROUNDING, "a margin of probabilities beyond 1"
        yield self.forwards < 1, "no forward pass was made"
        none = (self.backwards < 0) | (self.zero_gradients < 0) | (self.zero_gradients > self.backwards)
        yield none, "more zero gradients than backward passes"

    def _margins(self) -> Iterator[tuple[Rows, str]]:
        logit, probability = self.logit_margin, self.probability_margin
        left_alone = self.label == self.target if self.target is not None else np.zeros_like(self.success)
        seen = (probability < -BORDER) | ((self.stopped == "found") & (probability > BORDER))
        nothing = ~self.success & ~left_alone & seen
        yield nothing, "a misclassified point was seen, and no success is recorded"
        yield self.success & ((logit > 0.0) & (probability > BORDER)), "success, and every margin seen was positive"
        yield (np.sign(logit) * np.sign(probability) < 0), "the margins of logits and of probabilities differ in sign"
        for table in (self.clean_probabilities, self.probabilities):
            own, rival = self._sides(table)
            if self.target is None:  # towards a class the margin is between the best other class and this one
                yield probability > own - rival + ROUNDING, "the smallest margin of probabilities is not the smallest"
            large = (own > SEEN) & (rival > SEEN)
            gap = np.where(large, np.log(np.where(large, own, 1.0)) - np.log(np.where(large, rival, 1.0)), np.inf)
            more = ~left_alone & (logit > gap + 0.01 * (1.0 + abs(gap)))
            yield more, "the smallest margin of logits is not the smallest"

    def _sides(self, table: NDArray[np.float64]) -> tuple[Any, Any]:
        """The probability that the attack tries to lower, and the largest of those that it tries to raise."""
        if self.target is None:
            return _own_and_rival(table, self.label)
        wanted, others = _own_and_rival(table, np.full_like(self.label, self.target))
        return others, wanted

    def _probabilities(self) -> Iterator[tuple[Rows, str]]:
        places = np.arange(len(self.ids))
        for table, decided in (
            (self.clean_probabilities, self.clean_prediction), (self.probabilities, self.prediction)
        ):  # fmt: skip
            behind = table.max(1) - table[places, np.maximum(decided, 0)] > ROUNDING
            yield (decided >= 0) & behind, "the class with the largest probability is not the prediction"

    def _votes(self) -> Iterator[tuple[Rows, str]]:
        for draws, decided in ((self.clean_draws, self.clean_prediction), (self.draws, self.prediction)):
            votes = [np.asarray([] if d is None else d[: self.voting or None], dtype=np.int64) for d in draws]
            lost = [len(v) > 0 and (v == p).sum() < max((v == c).sum() for c in set(v.tolist()))
                    for v, p in zip(votes, decided, strict=True)]  # fmt: skip
            yield np.asarray(lost, dtype=np.bool_), "the prediction is not the class with most draws"


def decides_itself(part: Part) -> bool:
    """Whether the predictor has its own decision rule: a vote or a detector by its name, or another by the facts."""
    return str(part.unit["predictor"]).startswith(OWN_DECISIONS) or bool(part.facts.get("decides", False))


def _picture_problems(part: Part) -> Iterator[str]:
    shape = tuple(int(n) for n in part.facts["shape"])
    norm, eps = str(part.unit["threat"]["name"]), float(part.unit["threat"]["eps"])
    columns = [part.table.column(n).to_pylist() for n in ("id", "distance", "image", "adversarial")]
    for i, distance, *pictures in zip(*columns, strict=True):
        if pictures == [None, None]:
            continue
        if None in pictures or {len(p) for p in pictures} != {4 * int(np.prod(shape))}:
            yield f"sample {i}: a kept picture is not of shape {shape}"
            continue
        image, point = (np.frombuffer(p, dtype=np.float32).astype(np.float64) for p in pictures)
        if not (np.isfinite(image + point).all() and min(image.min(), point.min()) >= 0.0
                and max(image.max(), point.max()) <= 1.0):  # fmt: skip
            yield f"sample {i}: a kept picture has pixels outside [0, 1]"
            continue
        length = {"linf": abs(point - image).max(), "l2": np.linalg.norm(point - image), "l1": abs(point - image).sum()}
        if abs(length[norm] - distance) > 1e-6 * max(1.0, eps):
            yield f"sample {i}: the kept pictures lie {length[norm]:.6g} apart, the record says {distance:.6g}"


def _own_and_rival(table: NDArray[np.float64], label: NDArray[np.int64]) -> tuple[Any, Any]:
    """The label's entry of each row, and the largest of the others."""
    places = np.arange(len(table))
    others = table.copy()
    others[places, label] = -np.inf
    return table[places, label], others.max(1)


def _column(part: Part, name: str, kind: Any) -> NDArray[Any]:
    """A column as an array; a missing float becomes NaN, and other missing values raise ``ValueError``."""
    found = part.table.column(name).to_pylist()
    if any(v is None for v in found) and kind is not np.float64:
        raise ValueError(f"{name} has gaps")
    return np.asarray([np.nan if v is None else v for v in found], dtype=kind)


def _table(part: Part, name: str, classes: int) -> NDArray[np.float64]:
    """A column of probabilities, one for each class."""
    found = np.asarray(part.table.column(name).to_pylist(), dtype=np.float64)
    if found.shape != (part.table.num_rows, classes):
        raise ValueError(f"{name} are not one for each of {classes} classes")
    return found
