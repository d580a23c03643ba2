"""Class and radius from votes over all splits of an image of whole levels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from math import prod
from typing import Any

LEVEL = Fraction(1, 255)
MOST = 2**16  # splits
NORMS = {"any": "l1", "grid": "levels"}


def splits(row: Mapping[str, Any], shared: Mapping[str, Any], margin: float = 0.0) -> tuple[int, float]:
    """Class, and the distance that the image may move: votes go one by one from the class to its strongest rival.

    Each level by which a pixel is moved turns one vote.  The distance is the least that turns all votes up to the one
    that ends the lead.  The first level of each pixel costs half a level less the distance of the image from whole
    levels, and every other level costs a whole level.
    """
    counts, asked = [int(c) for c in row["counts"]], Fraction(margin) * int(shared["splits"])
    top = max(range(len(counts)), key=counts.__getitem__)
    own, rival = counts[top], max(c for k, c in enumerate(counts) if k != top)
    if own <= rival or min(counts) < 0 or not sum(counts) <= shared["splits"] <= MOST:
        return -1, 0.0
    turned = 0
    while own - turned > rival + turned + asked:
        turned += 1
    if shared["attacker"] == "grid":
        return top, float(max(0, turned - 1))
    first = max(Fraction(0), Fraction(1, 2) - Fraction(float(row["away"])))
    return top, float(LEVEL * sum(first if k < row["pixels"] else 1 for k in range(turned)))


def split_problems(
    shared: Mapping[str, Any], asked: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], shape: Sequence[int]
) -> Iterator[str]:
    """Whether the votes are over the splits that were asked for, of images of this shape."""
    for name, usual in (("splits", None), ("seed", 0), ("attacker", "any")):
        if shared[name] != asked.get(name, usual):
            yield f"was asked for {name} = {asked.get(name, usual)}, its evidence says {shared[name]}"
    if any(row["pixels"] != prod(shape) for row in rows):
        yield f"its images are not of {'x'.join(map(str, shape))} values"
    if any(not 0.0 <= row["away"] <= 0.5 for row in rows):
        yield "an image is farther from whole levels than half a level"
    if any(sum(row["counts"]) > shared["splits"] for row in rows):
        yield f"an image has more votes than {shared['splits']} splits"
