"""MMCert on images: a probabilistic certificate for the vote over sub-samples of several modalities."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from hauberk.certificates.evidence import Rival, Rule, VoteCounts
from hauberk.certificates.mmcert import Modality, least_margin, most_edits
from hauberk.certificates.voted import VoteCertificate
from hauberk.classifier import ABSTAIN
from hauberk.noises import Ablation
from hauberk.noises.ablation import Axis, Count
from hauberk.threats import CONFIG, Measure

ROUNDING = Fraction(1, 10**12)  # of a bound, computed in float64


@dataclass(frozen=True, config=CONFIG)
class MMCert(VoteCertificate):
    r"""The class keeps its vote under changes of any r elements of every modality at once.

    A radius is that number r: an attacker may give r elements of each modality any value, all modalities in one
    attack.  It is the largest for which the bounds of the votes pass ``mmcert.least_margin``, in exact integers.  The
    vote over sub-samples is certified, not its base, and a tie is not certified.  The modalities of an image have a
    fixed size, so changes are all that an attacker can do; where modalities can grow or shrink, the same r holds for
    additions and deletions too.

    The bounds are those of ``SmoothingCertificate``, reduced by a relative :math:`10^{-12}` for their rounding.

    Args:
        axis: along which the modalities lie: ``channels``, ``rows`` or ``columns``.
        size: height and width of the image.
        parts: channels, rows or columns of each modality.
        kept: elements of each in one sub-sample.
        n0: votes that choose the class.
        n: votes that bound its probability.
        alpha: failure probability of one image.
        rule: ``fixed``, ``randomised``, ``looks`` or ``anytime``, see ``SmoothingCertificate``.
        rival: ``rest`` or ``runner_up``.

    Reference: Wang et al. 2024 (MMCert), corrected as ``certificates.mmcert`` says.
    """

    axis: Axis
    size: tuple[Count, Count]
    parts: tuple[Count, ...]
    kept: tuple[Count, ...]
    n0: Annotated[int, Field(ge=1)] = 100
    n: Annotated[int, Field(ge=1)] = 10_000
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.001
    rule: Rule = "fixed"
    rival: Rival = "rest"

    norm: ClassVar[Measure] = "elements"
    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        Ablation(self.axis, self.size, self.parts, self.kept)  # which refuses what cannot be

    @property
    def step(self) -> Ablation:
        """The sub-sample."""
        return Ablation(self.axis, self.size, self.parts, self.kept)

    def modalities(self, edits: int = 0) -> list[Modality]:
        """The modalities, under so many changes of each."""
        return [Modality(n, k, edits) for n, k in zip(self.step.elements, self.kept, strict=True)]

    def shares(self, seen: VoteCounts) -> tuple[Fraction, Fraction]:
        """The bounds of ``bounds`` as exact numbers, rounded to the safe side."""
        low, high = self.bounds(seen)
        lower = Fraction(low) * (1 - ROUNDING)
        return lower, 1 - lower if self.rival == "rest" else min(1 - lower, Fraction(high) * (1 + ROUNDING))

    def decision(self, seen: VoteCounts) -> int:
        """The chosen class where it provably has more sub-samples than any rival, else abstain."""
        return seen.chosen if least_margin(*self.shares(seen), self.modalities()) > 0 else ABSTAIN

    def margin(self, seen: VoteCounts, radius: float) -> float:
        """See ``mmcert.least_margin``; of a radius between two numbers of elements, that of the smaller."""
        found = float(least_margin(*self.shares(seen), self.modalities(math.floor(radius))))
        return math.nextafter(found, -math.inf)

    def radius(self, seen: VoteCounts, margin: float = 0.0) -> float:
        """See ``mmcert.most_edits``; a whole number of elements."""
        return float(max(0, most_edits(*self.shares(seen), self.modalities(), Fraction(margin))))
