"""Votes under noise in blocks, each with a stream of its own, so that more of them can be added later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from hauberk.batch import Batch
from hauberk.certificates.evidence import VoteCounts, VotePlan
from hauberk.defences.smoothed import noisy_votes, shared_votes
from hauberk.randomness import SHARED, stream

Purpose = Literal["counts0", "counts"]
FIRST = 128  # votes of the first block
LUCK = "smoothing-randomised"  # what the uniform numbers of the randomised rule are for


@dataclass(frozen=True)
class Block:
    """Consecutive votes of one image.

    Args:
        purpose: ``counts0`` choose the class, ``counts`` bound its probability.
        start: number of the first vote, which names the stream.
        stop: number after the last one.
    """

    purpose: Purpose
    start: int
    stop: int


def blocks(purpose: Purpose, count: int) -> Iterator[Block]:
    """The blocks of a number of votes: [0, 128), [128, 256), then each as long as all before it; the last is cut.

    Where a block starts does not depend on ``count``, so counts of more votes share all blocks but the last one.
    """
    start = 0
    while start < count:
        stop = min(max(2 * start, FIRST), count)
        yield Block(purpose, start, stop)
        start = stop


def schedule(n: int) -> tuple[int, ...]:
    """The default looks: the ends of every third block, counted back from the n votes."""
    return tuple(block.stop for block in list(blocks("counts", n))[::-3][::-1])


def check_looks(looks: Sequence[int], n: int) -> None:
    """Raise unless these are ends of blocks in order, the last of them n.

    Raises:
        ValueError: which names the ends that there are.
    """
    ends = [block.stop for block in blocks("counts", n)]
    if list(looks) != sorted(set(looks) & set(ends)) or looks[-1:] != (n,):
        raise ValueError(
            f"looks must be ends of blocks of votes in increasing order, the last of them n; choose from {ends}"
        )


def luck(seed: int, sample: int) -> float:
    """The uniform number in (0, 1] of an image: it follows only from seed and id, so nobody can draw it twice."""
    return 1.0 - float(stream(seed, sample, LUCK).random())  # no 0: u <= x with probability x at most


@dataclass(frozen=True)
class Poll:
    """The votes that a certificate's evidence rests on.

    Args:
        base: the classifier that votes.
        plan: of the votes.
        gate: that the base has to pass, given images and the rows of a tile.
        settled: whether an image needs no more blocks, given what was seen of it so far.
    """

    base: nn.Module
    plan: VotePlan
    gate: Callable[[Batch, int], AbstractContextManager[None]]
    settled: Callable[[VoteCounts], bool]

    @property
    def blocks(self) -> list[Block]:
        """Those that choose, then those that bound."""
        return [*blocks("counts0", self.plan.n0), *blocks("counts", self.plan.n)]

    def count(self, batch: Batch, seed: int, tile: int, block: Block) -> list[list[int]]:
        """The votes of one block for each class, of each image, (B, K); the caller has passed the gate."""
        purpose, count = f"smoothing-{block.purpose}@{block.start}", block.stop - block.start
        if self.plan.draws == "shared":
            key = (seed, SHARED, purpose)  # whatever the other images are
            found: list[list[int]] = shared_votes(self.base, batch.images, self.plan.noise, count, key, tile).tolist()
            return found
        return [
            noisy_votes(self.base, image, self.plan.noise, count, (seed, i, purpose), tile).tolist()
            for image, i in zip(batch.images, batch.ids.tolist(), strict=True)
        ]

    def all(self, batch: Batch, seed: int, tile: int) -> list[VoteCounts]:
        """Every vote of the plan; the caller has passed the gate."""
        found: dict[int, list[tuple[Block, list[int]]]] = {i: [] for i in batch.ids.tolist()}
        for block in self.blocks:
            left = [i for i, seen in found.items() if self.goes_on(seen)]
            images = batch.select(torch.isin(batch.ids, torch.tensor(left, dtype=torch.int64, device=batch.ids.device)))
            if len(images):
                for i, counts in zip(images.ids.tolist(), self.count(images, seed, tile, block), strict=True):
                    found[i].append((block, counts))
        return [self.seen(found[i], seed, i) for i in batch.ids.tolist()]

    def goes_on(self, counts: Sequence[tuple[Block, Sequence[int]]]) -> bool:
        """Whether an image needs more blocks than these; it may stop only where the plan's rule has a bound."""
        if not any(block.purpose == "counts" for block, _ in counts):
            return True
        seen = self.seen(counts)
        return not (self.plan.judges(seen.n) and self.settled(seen))

    def concluded(
        self, counts: Sequence[tuple[Block, Sequence[int]]], seed: int, sample: int
    ) -> VoteCounts | None:
        """The evidence up to the last block at which the plan's rule has a bound; None if it has none yet."""
        ends = [b.stop for b, _ in counts if b.purpose == "counts" and self.plan.judges(b.stop)]
        if not ends:
            return None
        return self.seen([(b, c) for b, c in counts if b.purpose == "counts0" or b.stop <= max(ends)], seed, sample)

    def seen(
        self, counts: Sequence[tuple[Block, Sequence[int]]], seed: int | None = None, sample: int = 0
    ) -> VoteCounts:
        """The evidence that the blocks of one image add up to; with seed and id, its uniform number too."""
        drawn_once = 1.0 if seed is None or self.plan.rule != "randomised" else luck(seed, sample)
        totals = {
            purpose: tuple(map(sum, zip(*(c for block, c in counts if block.purpose == purpose), strict=True)))
            for purpose in ("counts0", "counts")
        }
        drawn = max(block.stop for block, _ in counts if block.purpose == "counts")
        return VoteCounts(totals["counts0"], totals["counts"], self.plan, drawn, drawn_once)
