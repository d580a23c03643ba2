"""The vote over the draws of a random model: an order statistic bounds the median of the margins."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass as plain_dataclass
from decimal import ROUND_FLOOR, Context
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy import stats
from torch import Tensor
from torch.nn import functional

from hauberk.certificates.base import round_down
from hauberk.certificates.draw_bounds import DrawCertificate, DrawEvidence, DrawPlan, Seen
from hauberk.certificates.evidence import Plain
from hauberk.certificates.gate import winners
from hauberk.certificates.lipschitz import reach
from hauberk.classifier import ABSTAIN
from hauberk.layers.lipschitz import ModelBounds
from hauberk.pulse import beat
from hauberk.statistics import clopper_pearson_lower
from hauberk.threats import CONFIG, Norm

DIGITS = Context(prec=7, rounding=ROUND_FLOOR)  # of a margin on record


@plain_dataclass(frozen=True)
class DrawnMargins(DrawEvidence):
    """The margins of the chosen class in n draws, in the order of the draws.

    Args:
        margins: (n), in units of the radius, each rounded down to seven digits.
    """

    margins: tuple[float, ...]

    def row(self) -> Plain:
        """The margins too."""
        return super().row() | {"margins": list(self.margins)}


@dataclass(frozen=True, config=CONFIG)
class RandomVote(DrawCertificate[DrawnMargins]):
    r"""The class that most draws of a random model answer, :math:`\arg\max_c P_\omega[\arg\max_k f_k(x;\omega) = c]`.

    The class A is the most frequent one in n0 draws.  In each of n fresh draws the normalised margin

    .. math:: M = \min_{j \ne A} (z_A - z_j) / K_{Aj}

    is a 1-Lipschitz function of the image, and what rounding may have moved is subtracted.  Of the n values the k-th
    smallest is the radius, k the largest number with

    .. math:: P(\mathrm{Bin}(n, \tfrac12) \le k - 1) \le \alpha.

    Let :math:`q = \sup\{t : P(M \ge t) > \tfrac12\}`.  Then :math:`P(M > q) \le \tfrac12`, so that the k-th smallest
    exceeds q, which takes n - k + 1 values beyond it, with probability alpha at most.  And at a distance r < q more
    than half of all draws have a margin above r at the image, and vote for A.

    Args:
        n0: draws that choose the class.
        n: draws that bound the median margin.
        alpha: failure probability of one image.
        norm: in which the image moves, and the radius is measured.
    """

    n0: Annotated[int, Field(ge=1)] = 20
    n: Annotated[int, Field(ge=1)] = 200
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.001
    norm: Norm = "l2"

    title: ClassVar[str] = "random_vote"

    def __post_init__(self) -> None:
        if rank(self.n, self.alpha, 0.5) < 1:
            least = math.ceil(-math.log2(self.alpha))
            raise ValueError(f"{self.n} draws bound no median at alpha = {self.alpha:g}: take n = {least} or more")

    def said(self, logits: Tensor) -> Tensor:
        """One vote for the class that is strictly ahead."""
        classes = winners(logits)
        votes = functional.one_hot(classes.clamp(min=0), logits.shape[1])
        return torch.where((classes >= 0)[:, None], votes, 0).double()

    def constants(self, bounds: ModelBounds) -> Tensor:
        """Of differences of logits."""
        return bounds.pairwise(self.norm)

    def bounded(self, seen: Seen, draws: Iterator[Tensor], plan: DrawPlan) -> list[DrawnMargins]:
        """The margins of each draw."""
        chosen = seen.totals.argmax(1)
        speeds = plan.constants.pairwise[chosen.numpy()]
        own = functional.one_hot(chosen, seen.totals.shape[1]).bool().numpy()
        found = []
        for logits in draws:
            gaps = logits.gather(1, chosen[:, None]) - logits - seen.lost[:, None]
            margins = np.where(own, np.inf, reach(gaps.numpy(), speeds)).min(1)
            known = np.isfinite(margins) & logits.isfinite().all(1).numpy()
            found.append(np.where(known, margins, -1.0))  # NaN, infinity and a net that never moves vote for nobody
            beat(len(logits))
        columns = np.stack(found, 1)
        return [
            DrawnMargins(*self.described(seen, row), plan, tuple(map(_down, column)))
            for row, column in enumerate(columns.tolist())
        ]

    def decision(self, seen: DrawnMargins) -> int:
        """The chosen class; abstains where its median margin is not known to be positive."""
        return seen.chosen if self.radius(seen) > 0.0 else ABSTAIN

    def margin(self, seen: DrawnMargins, radius: float) -> float:
        """Twice the bound of the share of draws whose margin exceeds the radius, minus one."""
        if not seen.sound:
            return -1.0
        ahead = sum(m > radius for m in seen.margins)
        return 2.0 * clopper_pearson_lower(ahead, self.n, self.alpha) - 1.0

    def radius(self, seen: DrawnMargins, margin: float = 0.0) -> float:
        """The order statistic that bounds the quantile of the margins at which a share (1 - margin) / 2 lies below."""
        k = rank(self.n, self.alpha, 0.5 * (1.0 + margin))
        if k < 1 or not seen.sound or len(seen.margins) != self.n:
            return 0.0
        return round_down(sorted(seen.margins)[k - 1])


def _down(margin: float) -> float:
    """For the record: its seven first digits, rounded down."""
    return float(DIGITS.create_decimal_from_float(margin))


def rank(n: int, alpha: float, share: float) -> int:
    r"""The largest k with :math:`P(\mathrm{Bin}(n, p) \ge n - k + 1) \le \alpha`, p the share; 0 if there is none.

    With k it is :math:`P(\mathrm{Bin}(n, 1 - p) \le k - 1)`.
    """
    k = int(stats.binom.ppf(alpha, n, 1.0 - share)) + 1  # at most one too many
    while k > 0 and stats.binom.cdf(k - 1, n, 1.0 - share) > alpha:
        k -= 1
    return k
