"""Derandomised splitting noise: a deterministic L1 certificate on images of 8 bits (Levine & Feizi 2021)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hauberk.batch import Batch
from hauberk.certificates.base import Certificate, Proof, round_down
from hauberk.certificates.evidence import SplitCounts
from hauberk.certificates.gate import black_box, check_composite, check_part
from hauberk.classifier import ABSTAIN, TILE, predictor_name
from hauberk.defences.derandomised import (
    LEVELS,
    DerandomisedClassifier,
    Splits,
    derandomised_name,
    levels,
    split_votes,
)
from hauberk.errors import HauberkError
from hauberk.threats import CONFIG, Measure

Attacker = Literal["any", "grid"]
ALLOWANCE = Fraction(1, 2**40)  # of a level: what float64 loses where an image is compared with whole levels


@dataclass(frozen=True, config=CONFIG)
class DerandomisedSplitting(Certificate[SplitCounts]):
    r"""How far an image may move in L1 before the vote over all m splits can change; deterministic, without sampling.

    Two levels q and q' of a pixel lie on two sides of a split in exactly :math:`\min(|q - q'|, m)` of the m votes,
    since each of the m places begins the splits of that pixel once.  So an image at d levels in all,
    :math:`d = \sum_i |q_i - q_i'|`, has another view in at most d of the votes, whatever the template, and each of
    these takes at most one vote from the class A and gives one to a rival B.  The class stays strictly ahead where

    .. math:: n_A - d > n_B + d, \qquad\text{that is}\qquad d \le D = \lceil (n_A - n_B) / 2 \rceil - 1 .

    A tie is not certified.  Views without a vote (NaN, a tie inside the base) may vote for any class after the change,
    and are counted so. With :math:`p = n / m` and :math:`2\lambda = m / 255`, D is :math:`\lambda(p_A - p_B)` in units
    of 255 levels.

    **Attackers.**  The predictor rounds its input to whole levels.

    - ``grid``: the radius is D, a number of levels, of all images of 8 bits at most so far away.
    - ``any``: the radius is in L1 and holds for all points of [0, 1].  A real change can be as short as half the change
      of the rounded image: the first level of a pixel costs :math:`\tfrac12 - o`, o the largest distance of the image
      from whole levels, and each further one costs a level.  No point closer than what :math:`D + 1` levels cost, with
      as many pixels N as the image has, is rounded to an image farther than D:

      .. math:: R = \tfrac1{255}\big(\min(D + 1, N)(\tfrac12 - o) + \max(0, D + 1 - N)\big).

    Args:
        splits: m, at 255 times the :math:`2\lambda` of the noise that the base was trained on.
        seed: of the template.
        attacker: ``any`` or ``grid``.

    Reference: Levine & Feizi 2021, Theorem 2, whose radius is D / 255; its ties go to the smaller class.
    """

    splits: Splits
    seed: int = 0
    attacker: Attacker = "any"

    kind: ClassVar[Proof] = "deterministic"

    @property
    def norm(self) -> Measure:
        """L1, or against an attacker on the grid a number of levels."""
        return "l1" if self.attacker == "any" else "levels"

    @contextmanager
    def admitted(self, model: nn.Module, batch: Batch, tile: int) -> Iterator[None]:  # noqa: ARG002
        """The vote itself is known; its base, or the model that is asked about splits here, is a black box."""
        if isinstance(model, DerandomisedClassifier):
            check_composite(model, DerandomisedClassifier)
        base = self._base(model)
        check_part(base)
        with black_box(base, batch.images, TILE, role="base"):  # votes are counted in tiles of this size
            yield

    def gather(self, model: nn.Module, batch: Batch, seed: int, tile: int) -> list[SplitCounts]:  # noqa: ARG002
        """The votes over all splits for each row."""
        base, attacker = self._base(model), self.attacker
        counts = [split_votes(base, image, self.splits, self.seed).tolist() for image in batch.images]
        pixels = batch.images[0].numel()
        return [
            SplitCounts(tuple(votes), pixels, away, self.splits, self.seed, attacker)
            for votes, away in zip(counts, off_grid(batch.images), strict=True)
        ]

    def decision(self, seen: SplitCounts) -> int:
        """The class with strictly more votes than any other, else abstain."""
        return seen.top if self._lead(seen) > 0 else ABSTAIN

    def margin(self, seen: SplitCounts, radius: float) -> float:
        r""":math:`(n_A - n_B - 2d) / m` for the most levels d that a change of that size can be rounded to."""
        kept = Fraction(self._lead(seen) - 2 * self._reached(seen, radius), self.splits)
        return float(kept) if Fraction(float(kept)) <= kept else math.nextafter(float(kept), -math.inf)

    def radius(self, seen: SplitCounts, margin: float = 0.0) -> float:
        """Levels, or L1 in pixel units; 0 where the margin is not there at the image itself."""
        most = math.ceil((self._lead(seen) - Fraction(margin) * self.splits) / 2) - 1
        if most < 0:
            return 0.0
        if self.attacker == "grid":
            return float(most)
        first = min(most + 1, seen.pixels)
        return round_down(float((first * self._first(seen) + most + 1 - first) / LEVELS))

    def predictor(self, model: nn.Module) -> str:
        """The vote over the splits."""
        return derandomised_name(predictor_name(self._base(model)), self.splits, self.seed)

    def _reached(self, seen: SplitCounts, radius: float) -> int:
        if self.attacker == "grid":
            return math.floor(radius)
        length, first = Fraction(radius) * LEVELS, self._first(seen)
        if length < seen.pixels * first:
            return math.floor(length / first)
        return seen.pixels + math.floor(length - seen.pixels * first)

    def _first(self, seen: SplitCounts) -> Fraction:
        """What the first level of a pixel costs at least."""
        return max(Fraction(0), Fraction(1, 2) - Fraction(seen.away) - ALLOWANCE)

    def _lead(self, seen: SplitCounts) -> int:
        """By how many votes the first class is ahead of the second.

        Raises:
            HauberkError: on votes over other splits.
        """
        if (seen.splits, seen.seed, seen.attacker) != (self.splits, self.seed, self.attacker):
            raise HauberkError(
                f"the votes were counted with {seen}, which differs from the certificate {self}", "gather them again"
            )
        first, second = sorted(seen.counts)[:-3:-1]
        return first - second

    def _base(self, model: nn.Module) -> nn.Module:
        if not isinstance(model, DerandomisedClassifier):
            return model
        if (model.splits, model.seed) != (self.splits, self.seed):
            raise HauberkError(
                f"the model votes over splits={model.splits}, seed={model.seed}, but the certificate over "
                f"splits={self.splits}, seed={self.seed}",
                "use the same for both",
            )
        return model.base


def off_grid(images: Tensor) -> list[float]:
    """How far the farthest pixel of each image is from the level that it is rounded to, in levels."""
    apart = images.double().mul(LEVELS) - levels(images)
    return [float(v) for v in apart.abs().flatten(1).amax(1)]
