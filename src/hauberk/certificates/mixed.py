"""The certificate of the mixed classifier: Lemma 3.2 of Bai et al. 2024 on a margin certificate of the robust base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic.dataclasses import dataclass
from torch import nn

from hauberk import registry
from hauberk.batch import Batch
from hauberk.certificates.base import Certificate, Proof, round_down
from hauberk.certificates.class_sets import SetCertificate
from hauberk.certificates.derandomised import DerandomisedSplitting
from hauberk.certificates.draw_bounds import DrawCertificate
from hauberk.certificates.evidence import Evidence, LogitMargins, OfMix, VoteCounts, WorstPoints
from hauberk.certificates.gate import black_box, check_composite, check_part, decided, winners
from hauberk.certificates.lipschitz import LipschitzCertificate
from hauberk.certificates.local_lipschitz import LocalLipschitz, class_constants
from hauberk.certificates.multimodal import MMCert
from hauberk.certificates.smoothing import SmoothingCertificate
from hauberk.certificates.votes import Poll
from hauberk.classifier import ABSTAIN, logits_of, predictor_name
from hauberk.defences.adaptive_mixed import AdaptiveMixedClassifier
from hauberk.defences.mixed import MixedClassifier
from hauberk.errors import HauberkError
from hauberk.threats import CONFIG, Measure

Bound = Literal["exact", "theorem_3_5", "theorem_a1"]
Constants = tuple[Sequence[float], float, Sequence[float]]
NEEDS: dict[Bound, tuple[type[Certificate], ...]] = {
    "exact": (Certificate,),
    "theorem_3_5": (LipschitzCertificate, SmoothingCertificate, LocalLipschitz),
    "theorem_a1": (SmoothingCertificate,),
}


def required_margin(alpha: float) -> float:
    r""":math:`\mu = (1-\alpha)/\alpha`, the margin the robust model must keep (Lemma 3.2)."""
    return (1.0 - alpha) / alpha


def needed_alpha(margin: float) -> float:
    r"""The smallest :math:`\alpha = 1/(1+\mu)` for which a margin :math:`\mu > 0` is enough, rounded up; else NaN."""
    return min(1.0, (1.0 + 1e-12) / (1.0 + margin)) if margin > 0.0 else float("nan")


def theorem_3_5_radius(
    margins: ArrayLike, lipschitz_y: float, lipschitz_others: ArrayLike, alpha: float, margin: float = 0.0
) -> float:
    r"""The radius that Lipschitz probabilities of the robust model prove for the mix, in any norm.

    .. math:: r = \min_{i\ne y} \frac{\alpha(p_y - p_i) + \alpha - 1 - m}{\alpha(\mathrm{Lip}\,p_y + \mathrm{Lip}\,p_i)}

    Args:
        margins: :math:`p_y - p_i` of the robust model at the image, (K-1).
        lipschitz_y: Lipschitz constant of :math:`p_y` in the norm of the radius.
        lipschitz_others: of each :math:`p_i`, (K-1), in the order of ``margins``.
        alpha: the least weight of the robust model.
        margin: m, what the mix is to keep of its own margin; the theorem has 0.

    Returns:
        the radius, 0 where some class has too small a margin, infinity where no probability can move.

    Reference: Bai et al. 2024, Theorem 3.5.
    """
    if not alpha > 0.5:
        return 0.0
    left = alpha * np.asarray(margins, dtype=np.float64) - (1.0 - alpha) - margin
    if not bool((left > 0.0).all()):
        return 0.0
    with np.errstate(divide="ignore"):
        return float((left / (alpha * (lipschitz_y + np.asarray(lipschitz_others, dtype=np.float64)))).min())


@dataclass(frozen=True, config=CONFIG)
class MixedCertificate(Certificate[OfMix]):
    r"""Certifies a mix by the margin that the robust model provably keeps (Lemma 3.2).

    If :math:`p_y - p_i > (1-\alpha)/\alpha` for the robust model all over a ball and :math:`\alpha \ge 1/2`, then the
    mix predicts y all over the ball.  The accurate model may give any finite logits: it can move each difference by at
    most :math:`1-\alpha`.  The strict inequality settles ties.  Where the robust model cannot keep the margin the mix
    still predicts, but nothing is proved: the certificate abstains.

    The needed margin falls with alpha, so for a mix whose alpha depends on the image the least alpha is used, and the
    proof holds for all :math:`\alpha(x)` above it.

    There are three bounds of how far the margin is kept. All are sound and positive for the same images. The first is
    never smaller than the others, which serve for comparison:

    - ``exact``: the base's own bound on its margin at each distance (logit gaps one by one; the Neyman-Pearson bound
      :math:`\sigma(\Phi^{-1}(p) - \Phi^{-1}(1/(2\alpha)))`).
    - ``theorem_3_5``: one Lipschitz constant for each probability.  Of a Lipschitz base it is
      :math:`\max_j K_{ij}/4`, from :math:`\nabla p_i = p_i \sum_j p_j \nabla(z_i - z_j)` and
      :math:`p_i(1-p_i) \le 1/4`, sharp for two classes.  Of a smoothed base it is :math:`1/(\sigma\sqrt{2\pi})`, sharp
      for functions with values in [0, 1]; the paper's :math:`\sqrt{2/\pi}/\sigma` is twice as large as needed and
      would halve the radius.  Of a local estimate it is the largest change seen over the budget, and the answer
      stays an estimate for that budget (Appendix C.3).
    - ``theorem_a1``: of a smoothed base, with a confidence bound p in the place of the paper's frequencies and 1 - p
      for the rival, the printed form collapses to :math:`\sigma\,\Phi^{-1}(\alpha p)`.  It treats :math:`\alpha h_y` as
      any function with values in [0, 1] and does not use that it stays below alpha.  It is never below Theorem 3.5 as
      printed, but near the needed margin it is below Theorem 3.5 with the sharp constant.

    Args:
        base: the certificate of the robust model, applied to its logits times the mix's ``robust_scale``.
        bound: ``exact``, ``theorem_3_5`` or ``theorem_a1``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from hauberk.batch import Batch
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).eval()
        >>> _ = net[1].weight.data.copy_(torch.tensor([[1.0, -1, 0, 0], [-1, 1, 0, 0]]))  # is pixel 0 brighter?
        >>> batch = Batch(torch.tensor([0.6, 0.5, 0, 0]).reshape(1, 1, 2, 2), torch.tensor([0]), torch.tensor([0]))
        >>> from hauberk.certificates import MixedCertificate
        >>> from hauberk.defences import mixed
        >>> from hauberk.layers import AOLLinear
        >>> net.spec = {"name": "a linear net"}
        >>> robust = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).eval()
        >>> _ = robust[1].weight.data.copy_(20 * net[1].weight.data)
        >>> robust.spec = {"name": "a steeper one"}
        >>> MixedCertificate()(mixed(net, robust, alpha=0.9).eval(), batch).radius.round(decimals=2)
        tensor([0.0700], dtype=torch.float64)
    """

    base: Certificate = LipschitzCertificate()
    bound: Bound = "exact"

    revision: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if isinstance(self.base, MixedCertificate):
            raise ValueError("the base of mixed_margin certifies the robust model; it cannot be mixed_margin again")
        if isinstance(self.base, DrawCertificate):
            raise ValueError(
                "this certificate is for a random model only; for a mix, use lipschitz with a frozen_ensemble of that "
                "model",
            )
        if isinstance(self.base, MMCert | DerandomisedSplitting):
            raise ValueError(
                "certificates of edited modalities and of splits are for one model; a mix has no such certificate"
            )
        if isinstance(self.base, SetCertificate):
            raise ValueError("a certified set of classes does not fix one class, so that a mix has no such certificate")
        if not isinstance(self.base, NEEDS[self.bound]):
            names = " or ".join(c.__name__ for c in NEEDS[self.bound])
            raise ValueError(f"the bound {self.bound} needs a base that is {names}, got {type(self.base).__name__}")

    @property
    def failure_probability(self) -> float:
        """That of the base."""
        return self.base.failure_probability

    @property
    def norm(self) -> Measure:
        """That of the base."""
        return self.base.norm

    @property
    def kind(self) -> Proof:
        """That of the base."""
        return self.base.kind

    @contextmanager
    def admitted(self, model: nn.Module, batch: Batch, tile: int) -> Iterator[None]:
        """The mix is of exactly a known type, its accurate half a black box, its robust half what the base asks for."""
        if not isinstance(model, MixedClassifier):
            raise HauberkError(
                f"mixed_margin certifies a mixed classifier, got {type(model).__name__}", "make one with: hauberk mix"
            )
        check_composite(model, MixedClassifier, AdaptiveMixedClassifier)
        check_part(model.accurate)
        check_part(model.robust)
        with ExitStack() as stack:
            stack.enter_context(black_box(model.accurate, batch.images, tile, role="accurate model"))
            if isinstance(model, AdaptiveMixedClassifier):  # the mixing network too is part of what decides
                stack.enter_context(black_box(model, batch.images, tile, role="mix"))
            yield  # the base's own gate is before its evidence

    def gather(self, model: nn.Module, batch: Batch, seed: int, tile: int) -> list[OfMix]:
        """The base's evidence on the robust model, with the least alpha."""
        assert isinstance(model, MixedClassifier)  # noqa: S101 - the gate saw to it
        return self._of_mix(self.base.gather(self._robust(model), batch, seed, tile), model, batch, seed, tile)

    def poll(self, model: nn.Module) -> Poll | None:
        """That of the base."""
        return self.base.poll(model.robust) if isinstance(model, MixedClassifier) else None

    def gather_from(
        self, votes: Sequence[VoteCounts], model: nn.Module, batch: Batch, seed: int, tile: int
    ) -> list[OfMix]:
        """The votes for the robust model, with the least alpha."""
        assert isinstance(model, MixedClassifier)  # noqa: S101 - the gate saw to it
        return self._of_mix(votes, model, batch, seed, tile)

    def _of_mix(
        self, found: Sequence[Any], model: MixedClassifier, batch: Batch, seed: int, tile: int
    ) -> list[OfMix]:
        if isinstance(self.base, LipschitzCertificate) and model.robust_scale != 1.0:
            constants = found[0].constants.scaled(model.robust_scale)
            found = [seen.scaled(model.robust_scale, constants) for seen in found]
        name = str(registry.spec(self.base)["name"])
        decisions = self._decided(model, batch, found, seed, tile)
        return [OfMix(seen, model.least_alpha, d, name) for seen, d in zip(found, decisions, strict=True)]

    def _robust(self, model: MixedClassifier) -> nn.Module:
        # votes know no scale, and logits are scaled by hand; a search for points has to see the scale
        return model.parts()["robust"].eval() if isinstance(self.base, LocalLipschitz) else model.robust

    def _decided(
        self, model: MixedClassifier, batch: Batch, found: Sequence[Any], seed: int, tile: int
    ) -> list[int]:
        """The classes of the mix as it is deployed; over votes, of the mix with the frequencies that were seen."""
        accurate = model.accurate_scale * logits_of(model.accurate, batch, tile)
        if not isinstance(self.base, SmoothingCertificate):
            classes = decided(model, batch, seed, tile)
        else:
            votes = accurate.new_tensor([seen.counts for seen in found], dtype=torch.float64)
            share = votes / votes.sum(1, keepdim=True)
            classes = winners((1.0 - model.least_alpha) * accurate.double().softmax(1) + model.least_alpha * share)
        return torch.where(accurate.isfinite().all(1), classes, ABSTAIN).tolist()

    def decision(self, seen: OfMix) -> int:
        """The robust model's class where it has the margin at the image itself and the mix agrees, else abstain."""
        top = self.base.decision(seen.base)
        if top == ABSTAIN or seen.alpha < 0.5 or self.contradicted(seen):
            return ABSTAIN
        return top if self.base.margin(seen.base, 0.0) > required_margin(seen.alpha) else ABSTAIN

    def contradicted(self, seen: OfMix) -> bool:
        """Whether the mix as it is deployed decides otherwise at the image, though the robust model has the margin."""
        top = self.base.decision(seen.base)
        kept = top != ABSTAIN and self.base.margin(seen.base, 0.0) > required_margin(max(seen.alpha, 0.5))
        return kept and seen.deployed not in (None, top) and seen.alpha >= 0.5

    def margin(self, seen: OfMix, radius: float) -> float:
        r"""The mix's own margin: :math:`\alpha m_h(r) - (1-\alpha)`, with the :math:`m_h(r)` of the chosen bound."""
        alpha = seen.alpha
        if self.bound == "exact":
            return alpha * self.base.margin(seen.base, radius) - (1.0 - alpha)
        if self.base.decision(seen.base) == ABSTAIN:
            return -1.0
        if self.bound == "theorem_a1":
            own, other = self._shares(seen)
            return self._votes().noise.margin(own, radius, other)
        margins, own, others = self._constants(seen.base)
        kept = min(m - (own + other) * radius for m, other in zip(margins, others, strict=True))
        reached = not isinstance(self.base, LocalLipschitz) or radius <= self.base.threat.eps
        return alpha * kept - (1.0 - alpha) if reached else -1.0

    def radius(self, seen: OfMix, margin: float = 0.0) -> float:
        r"""The base's radius at margin :math:`(1-\alpha+m)/\alpha`, or what the theorem proves; rounded down."""
        alpha = seen.alpha
        needed = (1.0 - alpha + margin) / alpha if alpha > 0.0 else 1.0
        if alpha < 0.5 or needed >= 1.0 or self.base.decision(seen.base) == ABSTAIN:
            return 0.0
        if self.bound == "exact":
            return self.base.radius(seen.base, needed)
        if self.bound == "theorem_a1":
            own, other = self._shares(seen)
            return round_down(self._votes().noise.radius(own, margin, other)) if own - other > margin else 0.0
        found = theorem_3_5_radius(*self._constants(seen.base), alpha, margin)
        if isinstance(self.base, LocalLipschitz):  # changes over the whole budget say nothing of other distances
            return self.base.threat.eps if found > self.base.threat.eps else 0.0
        return round_down(found)

    def predictor(self, model: nn.Module) -> str:
        """The mix; over a smoothed base, the mix with exact vote probabilities, which no finite sample equals."""
        name = predictor_name(model)
        if self.kind != "probabilistic" or not isinstance(model, MixedClassifier):
            return name
        return f"{name} with exact votes of {self.base.predictor(model.robust)}"

    def _votes(self) -> SmoothingCertificate:
        return cast(SmoothingCertificate, self.base)  # __post_init__ saw to it

    def _shares(self, seen: OfMix) -> tuple[float, float]:
        r"""What Theorem A.1 takes for the two probabilities: :math:`\alpha p_A` and :math:`\alpha p_B + 1 - \alpha`."""
        lower, upper = self._votes().bounds(cast(VoteCounts, seen.base))
        return seen.alpha * lower, seen.alpha * upper + 1.0 - seen.alpha

    def _constants(self, seen: Evidence) -> Constants:
        """Margins at the image, the Lipschitz constant of the robust model's probability, and those of its rivals."""
        y = self.base.decision(seen)
        if isinstance(seen, WorstPoints):
            own, others = class_constants(seen.clean, seen.points, y, seen.eps)
            return (seen.clean[y] - np.delete(seen.clean, y)).tolist(), own, others.tolist()
        if isinstance(seen, VoteCounts):
            constant = self._votes().noise.steepest
            lower, upper = self._votes().bounds(seen)
            return [lower - upper], constant, [constant]
        assert isinstance(seen, LogitMargins)  # noqa: S101 - __post_init__ saw to it
        gaps, _ = cast(LipschitzCertificate, self.base).gaps(seen)
        margins = -np.expm1(-gaps) / (1.0 + np.exp(-gaps).sum())
        constants = 0.25 * seen.constants.pairwise.max(1)
        return margins.tolist(), float(constants[y]), np.delete(constants, y).tolist()
