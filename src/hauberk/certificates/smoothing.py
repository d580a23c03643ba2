"""Randomised smoothing: a probabilistic certificate for the vote under noise (Cohen et al. 2019)."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Self

from pydantic import Field
from pydantic.dataclasses import dataclass

from hauberk.certificates.base import round_down
from hauberk.certificates.evidence import Draws, Rival, Rule, VoteCounts, VotePlan
from hauberk.certificates.voted import VoteCertificate, others
from hauberk.certificates.votes import check_looks
from hauberk.classifier import ABSTAIN
from hauberk.noises import Noise
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class SmoothingCertificate(VoteCertificate):
    r"""CERTIFY of Cohen et al. 2019: the class is chosen on n0 votes, its probability bounded on n fresh ones.

    .. math:: R = \sigma\,F^{-1}(\underline{p_A}), \quad \underline{p_A} = \text{Beta}^{-1}(\alpha; n_A, n - n_A + 1)

    F is the noise's, the normal distribution function of Gaussian noise.  The bound is one-sided at level
    :math:`1-\alpha`; at or below 1/2 the certificate abstains.  The smoothed classifier g is certified, not its base.

    The rule of the bound is fixed before the first vote, and each rule is valid only under its condition:

    - ``fixed``, Clopper-Pearson: for the n that was planned.
    - ``randomised``, ``confidence.randomised_lower``: for the n that was planned, with a uniform number that follows
      from seed and image, so that it cannot be drawn again.  Never a smaller radius than ``fixed``.
    - ``looks``, Clopper-Pearson at :math:`\alpha/L`: at the L numbers of votes that were planned (Bonferroni).
    - ``anytime``, ``statistics.anytime_lower``: for all n at once, so that votes may be added after looking.

    With ``rival="runner_up"`` the radius is
    :math:`\tfrac\sigma2(F^{-1}(\underline{p_A}) - F^{-1}(\overline{p_B}))`, the upper bound from the largest other
    count, each bound at :math:`\alpha/2`.  No correction over classes is needed: the true runner-up is one class, and
    its count is at most the largest.  It pays where errors spread over classes, also below 1/2, and costs a little
    where there is one rival.

    With ``draws="shared"`` the j-th vote of every image is taken under the same noise, made once for all images of a
    tile.  The n draws are still independent of each other and of the images, so the certificate of each image holds
    with its alpha.  Averages over N images vary more than with noise of their own,

    .. math:: \text{Var}\Big(\tfrac1N\sum_i R_i\Big)
        = \tfrac1{N^2}\sum_i \text{Var}(R_i) + \tfrac1{N^2}\sum_{i \ne j} \text{Cov}(R_i, R_j),

    and false certificates may come together: their expected number is at most :math:`\alpha N` either way, and the
    probability that there is one at all is at most that.

    Args:
        noise: its distribution, which decides the norm; ``sigma: 0.25`` is short for Gaussian noise.
        n0: votes that choose the class.
        n: votes that bound its probability, with a goal at most.
        alpha: failure probability of one image.
        rule: ``fixed``, ``randomised``, ``looks`` or ``anytime``.
        rival: ``rest`` or ``runner_up``.
        goal: a radius; an image gets no more votes once it is certified at it, or once bounds from the other side say
            that it hardly will be.  Where a whole curve is not needed this takes a small share of the votes.
            It needs ``rule="anytime"``, under which every stop is valid, or ``"looks"``, where the planned ones are.
        looks: of the rule of that name, ends of blocks of votes (128, 256, 512, ...), the last of them n; without any,
            every third.
        draws: ``own``, noise of its own for each image; ``shared``, the same for all.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from hauberk.batch import Batch
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).eval()
        >>> _ = net[1].weight.data.copy_(torch.tensor([[1.0, -1, 0, 0], [-1, 1, 0, 0]]))  # is pixel 0 brighter?
        >>> batch = Batch(torch.tensor([0.6, 0.5, 0, 0]).reshape(1, 1, 2, 2), torch.tensor([0]), torch.tensor([0]))
        >>> from hauberk.certificates import SmoothingCertificate
        >>> from hauberk.noises import Gaussian
        >>> proof = SmoothingCertificate(Gaussian(0.1), n0=100, n=1000, alpha=0.001)(net, batch)
        >>> proof.prediction, bool(0 < proof.radius < 0.1 / 2**0.5)
        (tensor([0]), True)
    """

    noise: Noise
    n0: Annotated[int, Field(ge=1)] = 100
    n: Annotated[int, Field(ge=1)] = 100_000
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.001
    rule: Rule = "fixed"
    rival: Rival = "rest"
    goal: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    revision: ClassVar[int] = 2

    looks: tuple[int, ...] = ()
    draws: Draws = "own"

    def __post_init__(self) -> None:
        if self.goal is not None and self.rule not in ("anytime", "looks"):
            raise ValueError(
                "a goal stops sampling at an n that is not fixed in advance; set rule=anytime or rule=looks, which "
                "allow that",
            )
        if self.looks and self.rule != "looks":
            raise ValueError(f"the rule {self.rule} takes no looks; set rule=looks")
        if self.looks:
            check_looks(self.looks, self.n)

    @property
    def step(self) -> Noise:
        """The noise."""
        return self.noise

    @property
    def plan(self) -> VotePlan:
        """What is fixed before the first vote."""
        return replace(super().plan, looks=self.looks or super().plan.looks, draws=self.draws)

    def with_votes(self, n0: int, n: int) -> Self:
        """The same certificate with other numbers of votes; looks at the old numbers are dropped."""
        return replace(self, n0=n0, n=n, looks=())

    def at_one_look(self) -> Self:
        """See ``VoteCertificate``; there is no goal then."""
        return replace(self, rule="fixed", alpha=self.alpha / len(self.plan.looks), goal=None, looks=())

    def settled(self, seen: VoteCounts) -> bool:
        """Whether more votes would not matter for the goal: it is reached, or the class has too few votes to reach it.

        Stopping too early may lose a certificate, but never makes a false one.
        """
        if self.goal is None:
            return False
        most = 1.0 - seen.lower(seen.n - seen.counts[seen.chosen], self.alpha)
        least = min(seen.lower(max(others(seen)), self.alpha), 1.0 - most)
        return self.radius(seen) >= self.goal or self.noise.radius(most, 0.0, self._rival(least)) < self.goal

    def decision(self, seen: VoteCounts) -> int:
        """The chosen class where its lower bound exceeds the upper one of its rivals, else abstain."""
        lower, upper = self.bounds(seen)
        return seen.chosen if lower > upper else ABSTAIN

    def margin(self, seen: VoteCounts, radius: float) -> float:
        """See ``Noise.margin``."""
        lower, upper = self.bounds(seen)
        return self.noise.margin(lower, radius, self._rival(upper))

    def radius(self, seen: VoteCounts, margin: float = 0.0) -> float:
        """See ``Noise.radius``."""
        lower, upper = self.bounds(seen)
        return round_down(self.noise.radius(lower, margin, self._rival(upper))) if lower - upper > margin else 0.0

    def _rival(self, bound: float) -> float | None:
        """For the noise, which knows a closed form where the rivals have what is left."""
        return None if self.rival == "rest" else bound
