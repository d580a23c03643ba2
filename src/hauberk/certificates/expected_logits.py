"""The mean of the clamped logits of a random model over all its draws, bounded from some of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass as plain_dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from hauberk.certificates.base import largest_radius, round_down
from hauberk.certificates.draw_bounds import DrawCertificate, DrawEvidence, DrawPlan, Seen
from hauberk.certificates.evidence import Floats, Plain
from hauberk.certificates.lipschitz import kept_margin, reach
from hauberk.classifier import ABSTAIN
from hauberk.confidence import bernstein_lower, hoeffding_lower
from hauberk.layers.lipschitz import ModelBounds
from hauberk.pulse import beat
from hauberk.threats import CONFIG, Norm

Interval = Literal["bernstein", "hoeffding"]


@plain_dataclass(frozen=True)
class MeanGaps(DrawEvidence):
    """Differences of the chosen class's clamped logit and the others' over n draws.

    Args:
        gaps: their means, (K), 0 for the class itself.
        variances: their unbiased variances, (K).
        lost: what rounding may have moved a difference by.
    """

    gaps: tuple[float, ...]
    variances: tuple[float, ...]
    lost: float

    def row(self) -> Plain:
        """Means, variances and rounding too."""
        told = {"gaps": list(self.gaps), "variances": list(self.variances), "rounding": self.lost}
        return super().row() | told


@dataclass(frozen=True, config=CONFIG)
class ExpectedLogits(DrawCertificate[MeanGaps]):
    r"""The class of the largest expected logit, :math:`\arg\max_c E_\omega[\mathrm{clamp}(f_c(x;\omega), -B, B)]`.

    The class A has the largest mean in n0 draws.  On n fresh draws the mean difference :math:`\bar D_j` of A's clamped
    logit and that of each rival is bounded from below at :math:`\delta = \alpha/(K-1)`, with range 4B:

    .. math::
        E[D_j] \ge \bar D_j - \sqrt{\frac{2 V_j \ln(2/\delta)}{n}} - \frac{7 \cdot 4B \ln(2/\delta)}{3(n-1)}, \qquad
        R = \min_j E[D_j] / K'_{Aj}

    (empirical Bernstein; with ``hoeffding`` :math:`4B\sqrt{\ln(1/\delta)/2n}` in its place).  After the clamp a logit
    no longer moves together with the others, and :math:`\|w_A - w_j\|` times the features' constant is no bound of
    their difference: :math:`K'_{Aj} = \min(K_A + K_j, \sqrt2 L)` is, with the constants of single logits and that of
    the vector of all.

    Args:
        clamp: B, chosen beforehand; it is part of the predictor.
        n0: draws that choose the class.
        n: draws that bound the means.
        alpha: failure probability of one image.
        norm: in which the image moves, and the radius is measured.
        interval: ``bernstein``, better where draws differ by little of the clamp, or ``hoeffding``.

    Reference: Maurer & Pontil 2009, Theorem 4; Hoeffding 1963.
    """

    clamp: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    n0: Annotated[int, Field(ge=1)] = 20
    n: Annotated[int, Field(ge=2)] = 1000
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.001
    norm: Norm = "l2"
    interval: Interval = "bernstein"

    title: ClassVar[str] = "expected_logits"

    @property
    def settings(self) -> Mapping[str, Any]:
        """The clamp, and which bound."""
        return {"clamp": self.clamp, "interval": self.interval}

    def said(self, logits: Tensor) -> Tensor:
        """The clamped logits; NaN for all classes of a row in which a logit is NaN or infinite."""
        clamped = logits.clamp(-self.clamp, self.clamp)
        return torch.where(logits.isfinite().all(1, keepdim=True), clamped, math.nan)

    def constants(self, bounds: ModelBounds) -> Tensor:
        """Of differences of logits that were clamped one by one."""
        return bounds.separate(self.norm)

    def bounded(self, seen: Seen, draws: Iterator[Tensor], plan: DrawPlan) -> list[MeanGaps]:
        """Means and variances by Welford's recursion."""
        chosen = seen.totals.nan_to_num(nan=-math.inf).argmax(1)[:, None]
        mean, squares = torch.zeros_like(seen.totals), torch.zeros_like(seen.totals)
        for number, logits in enumerate(draws, start=1):
            clamped = self.said(logits)
            difference = clamped.gather(1, chosen) - clamped
            step = difference - mean
            mean = mean + step / number
            squares = squares + step * (difference - mean)
            beat(len(logits))
        variances = squares / (self.n - 1)
        return [
            MeanGaps(*self.described(seen, row), plan, tuple(mean[row].tolist()), tuple(variances[row].tolist()),
                     float(seen.lost[row]))
            for row in range(len(mean))
        ]  # fmt: skip

    def lower(self, seen: MeanGaps) -> tuple[Floats, Floats]:
        """For the K - 1 rivals: a bound of the expected gap, minus what rounding may have added, and its constant."""
        rivals = np.arange(len(seen.gaps)) != seen.chosen
        means, variances = (np.asarray(values)[rivals] for values in (seen.gaps, seen.variances))
        level, width = self.alpha / len(means), 4.0 * self.clamp
        if self.interval == "hoeffding":
            bounds = hoeffding_lower(means, self.n, width, level)
        else:
            bounds = bernstein_lower(means, variances, self.n, width, level)
        return bounds - seen.lost, seen.plan.constants.pairwise[seen.chosen][rivals]

    def decision(self, seen: MeanGaps) -> int:
        """The chosen class; abstains where a rival's expected logit may be as large."""
        return seen.chosen if self.radius(seen) > 0.0 else ABSTAIN

    def margin(self, seen: MeanGaps, radius: float) -> float:
        """See ``LipschitzCertificate.margin``, for the softmax of the expected logits."""
        return kept_margin(*self.lower(seen), radius) if self.radius(seen) > 0.0 else -1.0

    def radius(self, seen: MeanGaps, margin: float = 0.0) -> float:
        """Closed form for margin 0, bisection on the monotone ``margin`` above it."""
        gaps, bounds = self.lower(seen)
        if not seen.sound:
            return 0.0
        plain = float(reach(gaps, bounds).min())
        if not math.isfinite(plain):  # no logit ever moves
            return 0.0
        if margin > 0.0:
            plain = largest_radius(lambda r: kept_margin(gaps, bounds, r) * (1.0 - 1e-12), margin, plain)
        return round_down(plain)
