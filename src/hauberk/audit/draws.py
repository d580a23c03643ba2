r"""Comparisons of recorded draws of a random model with fresh draws, by two-sample tests.

The margins of a vote are compared by Kolmogorov and Smirnov's test, the means of expected logits by their standard
errors.  Rows are tested together by Holm's step-down, and by the sum of the differences of means, which detects a small
excess on every row.  Differences that rounding on two machines can cause are granted to the record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from hauberk.audit.votes import LEVEL, holm
from hauberk.verify.verdict import samples

CLOSE = 1e-5  # relative difference between two machines


def draw_problems(
    ids: Sequence[int], recorded: Sequence[Mapping[str, Any]], fresh: Sequence[Mapping[str, Any]],
    draws: tuple[int, int],
) -> Iterator[str]:  # fmt: skip
    """Rows whose recorded draws do not fit fresh ones of the same class, and an evaluation that is too good.

    Args:
        ids: samples.
        recorded: evidence on record.
        fresh: evidence of fresh draws, for the classes on record.
        draws: numbers of draws behind the bounds, on record and fresh.
    """
    pairs = [_vote(o, n) if "margins" in o else _means(o, n, draws) for o, n in zip(recorded, fresh, strict=True)]
    wrong = holm([chance for chance, _ in pairs], LEVEL)
    if wrong.any():
        yield f"{samples(np.asarray(ids)[wrong])}: the recorded draws do not fit fresh ones"
    ahead = np.asarray([score for _, score in pairs])
    if stats.norm.sf(ahead.sum() / np.sqrt(len(ahead))) < LEVEL:
        yield f"over all {len(ids)} sampled rows the recorded draws are better than fresh ones, more than chance allows"


def _vote(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[float, float]:
    """The probability of margins so far apart, and by how many standard errors the recorded margins are ahead."""
    told, seen = (np.asarray(row["margins"], dtype=np.float64) for row in (old, new))
    slack = CLOSE * max(1e-3, float(abs(told).max()))
    larger = stats.ks_2samp(told - slack, seen, alternative="less", method="asymp").pvalue
    smaller = stats.ks_2samp(told + slack, seen, alternative="greater", method="asymp").pvalue
    error = np.sqrt(told.var() / len(told) + seen.var() / len(seen))
    return min(1.0, 2.0 * float(min(larger, smaller))), float(_score(told.mean() - seen.mean(), error, slack))


def _means(old: Mapping[str, Any], new: Mapping[str, Any], draws: tuple[int, int]) -> tuple[float, float]:
    """As ``_vote`` for means, over rivals; the lead is counted at the rival that is nearest on record."""
    top = int(np.argmax(old["first"]))
    told, seen, spread, again = (
        np.delete(np.asarray(row[name], dtype=np.float64), top)
        for name in ("gaps", "variances") for row in (old, new)
    )  # fmt: skip
    slack = CLOSE * max(1e-3, float(abs(told).max()))
    scores = _score(told - seen, np.sqrt(spread / draws[0] + again / draws[1]), slack)
    chance = 2.0 * len(scores) * float(stats.norm.sf(abs(scores).max()))
    return min(1.0, chance), float(scores[np.argmin(told)])


def _score(apart: Any, error: Any, slack: float) -> Any:
    """The number of standard errors between two means, beyond the difference that is granted."""
    beyond = np.sign(apart) * np.maximum(abs(apart) - slack, 0.0)
    return np.clip(beyond / np.maximum(error, 1e-300), -1e6, 1e6)
