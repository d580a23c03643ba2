"""Accuracy class by class, from labels and answers: shares, their mean, the worst of them and the confusion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hauberk.errors import HauberkError
from hauberk.statistics import Interval, wilson

UNKNOWN = -2  # wrong, but no record says which class was answered


@dataclass(frozen=True)
class ClassShare:
    """How many images of one class are right."""

    label: int
    accuracy: Interval


@dataclass(frozen=True)
class Cell:
    """How many images of one class got one answer; -1 is an abstention, -2 a wrong answer that is not on record."""

    label: int
    answer: int
    count: int


@dataclass(frozen=True)
class ByClass:
    """Accuracy class by class.

    Args:
        shares: each class that has images, in order of its number, with Wilson's interval.
        balanced: the mean of the shares, each class counting alike.
        worst: the class with the lowest share; its interval holds for all classes together.
        confusion: the cells that are not empty, by class and answer.
        constant: the one answer given to every image that got one; None where there are two or more.
    """

    shares: tuple[ClassShare, ...]
    balanced: Interval
    worst: ClassShare
    confusion: tuple[Cell, ...]
    constant: int | None

    @property
    def uneven(self) -> bool:
        """Whether the largest class has more than 1.5 times the images of the smallest one."""
        sizes = [s.accuracy.n for s in self.shares]
        return 2 * max(sizes) > 3 * min(sizes)


def by_class(labels: ArrayLike, answers: ArrayLike, right: ArrayLike | None = None) -> ByClass:
    """Shares, balanced accuracy, worst class and confusion.

    Args:
        labels: shape (N,), not negative; they may go beyond the classes that have names.
        answers: the class answered, shape (N,); -1 is an abstention, -2 a wrong answer that is not known.
        right: which images count as right, shape (N,); by default those whose answer is the label.

    Raises:
        HauberkError: if there is no image, the lengths differ or a label is negative.
    """
    y, said = np.asarray(labels, dtype=np.int64), np.asarray(answers, dtype=np.int64)
    held = y == said if right is None else np.asarray(right, dtype=np.bool_)
    if y.ndim != 1 or not len(y) or not y.shape == said.shape == held.shape:
        shapes = f"{y.shape}, {said.shape} and {held.shape}"
        raise HauberkError(f"expected labels, answers and outcomes of one length, got {shapes}", "join the rows by id")
    if (y < 0).any():
        raise HauberkError(
            "expected labels of at least 0, got a negative one", "-1 stands for an abstention and is not a label"
        )
    counts = _counts(y, held)
    shares = tuple(ClassShare(k, wilson(*pair)) for k, pair in counts.items())
    worst = min(shares, key=lambda s: s.accuracy.value)
    pairs, found = np.unique(np.stack([y, said]), axis=1, return_counts=True)
    decided = np.unique(said[said >= 0])
    return ByClass(
        shares=shares,
        balanced=mean_share([s.accuracy for s in shares]),
        # one of K classes was picked after looking: each interval errs with probability 5 % / K
        worst=ClassShare(worst.label, wilson(*counts[worst.label], confidence=1 - 0.05 / len(shares))),
        confusion=tuple(Cell(int(a), int(b), int(n)) for a, b, n in zip(*pairs, found, strict=True)),
        constant=int(decided[0]) if len(decided) == 1 and len(y) > 1 else None,
    )


def balanced(labels: ArrayLike, held: ArrayLike) -> Interval:
    r"""Balanced accuracy :math:`\frac1K\sum_k h_k / n_k` over the K classes that have images, with its interval.

    Args:
        labels: shape (N,), not negative.
        held: which images count, shape (N,): those that are right, stand under attack, or are certified at a radius.
    """
    counts = _counts(np.asarray(labels, dtype=np.int64), np.asarray(held, dtype=np.bool_))
    return mean_share([wilson(*pair) for pair in counts.values()])


def _counts(labels: NDArray[np.int64], held: NDArray[np.bool_]) -> dict[int, tuple[int, int]]:
    """How many of each class's images hold, and how many it has."""
    return {int(k): (int(held[labels == k].sum()), int((labels == k).sum())) for k in np.unique(labels)}


def mean_share(shares: Sequence[Interval]) -> Interval:
    r"""The mean of independent shares, with an interval recovered from theirs.

    .. math:: \bar p - \frac1K\sqrt{\sum_k (p_k - l_k)^2}, \qquad \bar p + \frac1K\sqrt{\sum_k (u_k - p_k)^2}

    With Wilson's limits :math:`l_k, u_k` of each share it stays within [0, 1] and keeps a width where every share is 0
    or 1; with one share it is Wilson's interval.

    Args:
        shares: of K classes, each with its interval; n of the result is their sum.

    Reference: Zou and Donner 2008.
    """
    count = len(shares)
    value = sum(s.value for s in shares) / count
    below = math.sqrt(sum((s.value - s.low) ** 2 for s in shares)) / count
    above = math.sqrt(sum((s.high - s.value) ** 2 for s in shares)) / count
    return Interval(value, max(0.0, value - below), min(1.0, value + above), sum(s.n for s in shares))
