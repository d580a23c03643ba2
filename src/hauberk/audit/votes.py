r"""Comparisons of recorded votes with fresh votes, by two-sample tests.

Honest votes and fresh votes of a row are two binomial samples of one probability, so Fisher's exact test applies to
each row.  Holm's step-down keeps the probability that an honest evaluation is called forged, over all its rows, below
``LEVEL``.  The sum over rows detects a forger who raises every row by a little; it is tested one-sided at the same
level: :math:`\sum_i (\hat p_i - \hat q_i)` over the root of the sum of its variances is about normal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from hauberk.verify.verdict import samples

LEVEL = 1e-4


def vote_problems(
    ids: Sequence[int], recorded: Sequence[Mapping[str, Any]], fresh: Sequence[Mapping[str, Any]], apart: bool = True
) -> Iterator[str]:
    """Rows whose recorded votes do not fit fresh votes, and an evaluation whose votes are too good together.

    Args:
        ids: samples.
        recorded: evidence on record: ``counts0`` and ``counts``.
        fresh: evidence gathered with fresh noise.
        apart: whether rows have noise of their own; if they share it, the variance of the sum is unknown, and only
            Holm's procedure is used, which holds under any dependence.
    """
    pairs = np.asarray([_pair(old, new) for old, new in zip(recorded, fresh, strict=True)], dtype=np.int64)
    chances = [stats.fisher_exact([[a, n - a], [b, m - b]]).pvalue for a, n, b, m in pairs.tolist()]
    wrong = holm(chances, LEVEL)
    if wrong.any():
        yield f"{samples(np.asarray(ids)[wrong])}: the recorded votes do not fit fresh ones"
    if not apart:
        return
    votes, total, again, drawn = pairs.T.astype(np.float64)
    share = (votes + again) / (total + drawn)
    variance = float((share * (1.0 - share) * (1.0 / total + 1.0 / drawn)).sum())
    ahead = float((votes / total - again / drawn).sum())
    if variance > 0.0 and stats.norm.sf(ahead / np.sqrt(variance)) < LEVEL:
        yield f"over all {len(ids)} sampled rows the recorded votes are better than fresh ones, more than chance allows"


def holm(chances: Sequence[float], level: float) -> np.ndarray:
    """Which of several p-values Holm's step-down rejects, at a level over all p-values."""
    values = np.asarray(chances, dtype=np.float64)
    order = np.argsort(values)
    passed = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)) > level
    rejected = np.zeros(len(values), dtype=np.bool_)
    rejected[order] = ~passed
    return rejected


def _pair(recorded: Mapping[str, Any], fresh: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Votes for the class that the record chose, and all votes, on record and fresh."""
    chosen = int(np.argmax(recorded["counts0"]))
    old, new = recorded["counts"], [a + b for a, b in zip(fresh["counts0"], fresh["counts"], strict=True)]
    return int(old[chosen]), max(1, int(sum(old))), int(new[chosen]), max(1, int(sum(new)))
