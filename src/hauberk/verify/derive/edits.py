"""Class and number of edits from votes over sub-samples of several modalities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from hauberk.verify.derive.votes import noise_of, vote_bounds

MOST = 2**24  # elements of a modality
ROUNDED = Fraction(10**12 - 1, 10**12)  # a bound is computed in float64


def elements_of(noise: Mapping[str, Any]) -> list[int]:
    """The number of elements of each modality: the positions of an image, or of a crop of its rows or columns."""
    height, width = noise["size"]
    one = {"rows": width, "columns": height}
    return [height * width if noise["axis"] == "channels" else one[noise["axis"]] * part for part in noise["parts"]]


def edits(row: Mapping[str, Any], shared: Mapping[str, Any], margin: float = 0.0) -> tuple[int, float]:
    r"""Class, and the largest r such that changes of r elements of every modality keep it.

    A share t of all sub-samples holds a changed element.  In the worst case the votes for the class among them turn to
    the rival, so that a lead of :math:`p_A - p_B` shrinks by 2t.
    """
    top, low, high = vote_bounds(row, shared)
    noise = noise_of(shared)
    counts, kept = elements_of(noise), noise["kept"]
    if max(counts, default=MOST + 1) > MOST:
        raise ValueError(f"a modality has more than {MOST} elements")
    if top < 0 or len(counts) != len(kept) or any(not 0 < k <= n for n, k in zip(counts, kept, strict=True)):
        return -1, 0.0
    every = _every(counts, kept)
    own = -(-every * Fraction(low) * ROUNDED // 1)
    rest = every - own
    rival = rest if shared.get("rival", "rest") == "rest" else min(rest, every * Fraction(high) / ROUNDED // 1)
    lead, asked = Fraction(own - rival, every), Fraction(max(0.0, margin))
    if not lead > 0:
        return -1, 0.0
    low_r, high_r = 0, max(counts) + 1  # if all elements of a modality change, every sub-sample holds one
    while high_r - low_r > 1:
        middle = (low_r + high_r) // 2
        met = 1 - math.prod((_missed(n, k, middle) for n, k in zip(counts, kept, strict=True)), start=Fraction(1))
        low_r, high_r = (middle, high_r) if lead - 2 * met > asked else (low_r, middle)
    return top, float(low_r)


def _every(counts: Sequence[int], kept: Sequence[int]) -> int:
    """The number of sub-samples: for each modality, the ordered draws divided by the orders of one draw."""
    return math.prod(math.perm(n, k) // math.factorial(k) for n, k in zip(counts, kept, strict=True))


def _missed(n: int, k: int, r: int) -> Fraction:
    """The share of sub-samples of k elements that hold none of r elements, draw by draw over the smaller number."""
    few, many = sorted((k, min(r, n)))
    return Fraction(math.perm(max(0, n - many), few), math.perm(n, few))
