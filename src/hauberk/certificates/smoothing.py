"""Randomised smoothing: a probabilistic certificate for the vote under noise (Cohen et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from hauberk.batch import Batch
from hauberk.certificates.base import Certificate, Proof, round_down
from hauberk.certificates.evidence import Rival, Rule, VoteCounts, VotePlan
from hauberk.certificates.gate import black_box, check_composite, check_part
from hauberk.certificates.votes import Poll, check_looks, schedule
from hauberk.classifier import ABSTAIN, predictor_name
from hauberk.defences.smoothed import SmoothedClassifier, smoothed_name
from hauberk.errors import HauberkError
from hauberk.noises import Noise
from hauberk.threats import CONFIG, Norm


@dataclass(frozen=True, config=CONFIG)
class SmoothingCertificate(Certificate[VoteCounts]):
    r"""CERTIFY of Cohen et al. 2019: the class is chosen on n0 votes, its probability bounded on n fresh ones.

    .. math:: R = \sigma\,F^{-1}(\underline{p_A}), \quad \underline{p_A} = \text{Beta}^{-1}(\alpha; n_A, n - n_A + 1)

    F is the noise's, the normal distribution function of Gaussian noise.  The bound is one-sided at level
    :math:`1-\alpha`; at or below 1/2 the certificate abstains.  What is certified is the smoothed classifier g, not its
    base.

    The rule of the bound is fixed before the first vote, and holds under its condition alone:

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
    """

    noise: Noise
    n0: Annotated[int, Field(ge=1)] = 100
    n: Annotated[int, Field(ge=1)] = 100_000
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.001
    rule: Rule = "fixed"
    rival: Rival = "rest"
    goal: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    kind: ClassVar[Proof] = "probabilistic"
    revision: ClassVar[int] = 2

    looks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.goal is not None and self.rule not in ("anytime", "looks"):
            raise ValueError("a goal stops at an n that nobody fixed: say rule=anytime or rule=looks, which allow it")
        if self.looks and self.rule != "looks":
            raise ValueError(f"the rule {self.rule} takes no looks: say rule=looks")
        if self.looks:
            check_looks(self.looks, self.n)

    @property
    def norm(self) -> Norm:
        """That of the noise."""
        return self.noise.norm

    @property
    def plan(self) -> VotePlan:
        """What is fixed before the first vote."""
        looks = self.looks or (schedule(self.n) if self.rule == "looks" else ())
        return VotePlan(self.noise, self.n0, self.n, self.alpha, self.rule, self.rival, looks)

    @property
    def failure_probability(self) -> float:
        """Alpha."""
        return self.alpha

    @contextmanager
    def admitted(self, model: nn.Module, batch: Batch, tile: int) -> Iterator[None]:
        """A smoothed classifier is known; its base, or the model that is smoothed here, is a black box."""
        if isinstance(model, SmoothedClassifier):
            check_composite(model, SmoothedClassifier)
        base = self._base(model)
        check_part(base)
        with black_box(base, batch.images, tile, self.noise.sigma, "base"):
            yield

    def poll(self, model: nn.Module) -> Poll:
        """The votes of the base."""
        return Poll(self._base(model), self.plan, partial(self.gate, model), self.settled)

    def settled(self, seen: VoteCounts) -> bool:
        """Whether more votes change nothing about the goal: it is reached, or the class is too seldom to reach it.

        Giving up may be wrong, which costs a certificate and never makes a false one.
        """
        if self.goal is None:
            return False
        most = 1.0 - seen.lower(seen.n - seen.counts[seen.chosen], self.alpha)
        least = min(seen.lower(max(_others(seen)), self.alpha), 1.0 - most)
        return self.radius(seen) >= self.goal or self.noise.radius(most, 0.0, self._rival(least)) < self.goal

    def gather(self, model: nn.Module, batch: Batch, seed: int, tile: int) -> list[VoteCounts]:
        """Vote counts of two separate samples for each row."""
        return self.poll(model).all(batch, seed, tile)

    def gather_from(
        self, votes: Sequence[VoteCounts], model: nn.Module, batch: Batch, seed: int, tile: int  # noqa: ARG002
    ) -> list[VoteCounts]:
        """The votes themselves."""
        return list(votes)

    def _base(self, model: nn.Module) -> nn.Module:
        if not isinstance(model, SmoothedClassifier):
            return model
        if model.noise != self.noise:
            raise HauberkError(
                f"the model is smoothed with {model.noise}, the certificate asks for {self.noise}",
                "use the same noise for both",
            )
        return model.base

    def bounds(self, seen: VoteCounts) -> tuple[float, float]:
        """The lower bound of the chosen class's probability, and the upper one of every other class's.

        Raises:
            HauberkError: on votes of another plan, for which alpha is not the failure probability.
        """
        if seen.plan != self.plan or not self.plan.judges(seen.n):
            raise HauberkError(
                f"the votes were planned as {seen.plan}, the certificate asks for {self.plan}",
                "certify by the plan of the votes",
            )
        own = seen.counts[seen.chosen]
        if self.rival == "rest":
            lower = max(0.0, seen.lower(own, self.alpha) - self.noise.slack)
            return lower, 1.0 - lower
        other, half = max(_others(seen)), 0.5 * self.alpha
        lower = max(0.0, seen.lower(own, half) - self.noise.slack)
        upper = 1.0 - seen.lower(seen.n - other, half)
        return lower, min(upper + self.noise.slack, 1.0 - lower)

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

    def predictor(self, model: nn.Module) -> str:
        """The smoothed classifier."""
        return smoothed_name(predictor_name(self._base(model)), self.noise)


def _others(seen: VoteCounts) -> list[int]:
    """The counts of the classes that were not chosen."""
    return [count for k, count in enumerate(seen.counts) if k != seen.chosen]
