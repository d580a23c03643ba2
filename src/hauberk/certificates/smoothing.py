"""Randomised smoothing: a probabilistic certificate for the vote under noise (Cohen et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from hauberk.batch import Batch
from hauberk.certificates.base import Certificate, Proof, round_down
from hauberk.certificates.evidence import Rule, VoteCounts, VotePlan
from hauberk.certificates.gate import black_box, check_composite, check_part
from hauberk.certificates.votes import Poll
from hauberk.classifier import ABSTAIN, predictor_name
from hauberk.defences.smoothed import SmoothedClassifier, smoothed_name
from hauberk.errors import HauberkError
from hauberk.noises import Noise
from hauberk.statistics import anytime_lower, clopper_pearson_lower
from hauberk.threats import CONFIG, Norm


@dataclass(frozen=True, config=CONFIG)
class SmoothingCertificate(Certificate[VoteCounts]):
    r"""CERTIFY of Cohen et al. 2019: the class is chosen on n0 votes, its probability bounded on n fresh ones.

    .. math:: R = \sigma\,F^{-1}(\underline{p_A}), \quad \underline{p_A} = \text{Beta}^{-1}(\alpha; n_A, n - n_A + 1)

    F is the noise's, the normal distribution function of Gaussian noise.  The bound is one-sided at level
    :math:`1-\alpha`; at or below 1/2 the certificate abstains.  What is certified is the smoothed classifier g, not its
    base.  The rule of the bound is fixed before the first vote: Clopper-Pearson holds for the n that was planned,
    ``statistics.anytime_lower`` for all n at once, so that votes may be added after looking.

    Args:
        noise: its distribution, which decides the norm; ``sigma: 0.25`` is short for Gaussian noise.
        n0: votes that choose the class.
        n: votes that bound its probability.
        alpha: failure probability of one image.
        rule: ``fixed`` or ``anytime``.
    """

    noise: Noise
    n0: Annotated[int, Field(ge=1)] = 100
    n: Annotated[int, Field(ge=1)] = 100_000
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.001
    rule: Rule = "fixed"

    kind: ClassVar[Proof] = "probabilistic"
    revision: ClassVar[int] = 2

    @property
    def norm(self) -> Norm:
        """That of the noise."""
        return self.noise.norm

    @property
    def plan(self) -> VotePlan:
        """What is fixed before the first vote."""
        return VotePlan(self.noise, self.n0, self.n, self.alpha, self.rule)

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
        return Poll(self._base(model), self.plan, lambda batch, tile: self.admitted(model, batch, tile))

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

    def bound(self, seen: VoteCounts) -> float:
        """The lower bound of the chosen class's probability.

        Raises:
            HauberkError: on votes of another plan, for which alpha is not the failure probability.
        """
        if seen.plan != self.plan:
            raise HauberkError(
                f"the votes were planned as {seen.plan}, the certificate asks for {self.plan}",
                "certify by the plan of the votes",
            )
        lower = anytime_lower if self.rule == "anytime" else clopper_pearson_lower
        return lower(seen.counts[seen.chosen], self.n, self.alpha)

    def decision(self, seen: VoteCounts) -> int:
        """The chosen class where its bound exceeds 1/2, else abstain."""
        return seen.chosen if self.bound(seen) > 0.5 else ABSTAIN

    def margin(self, seen: VoteCounts, radius: float) -> float:
        """See ``Noise.margin``."""
        return self.noise.margin(self.bound(seen), radius)

    def radius(self, seen: VoteCounts, margin: float = 0.0) -> float:
        """See ``Noise.radius``."""
        bound = self.bound(seen)
        return round_down(self.noise.radius(bound, margin)) if bound > 0.5 * (1.0 + margin) else 0.0

    def predictor(self, model: nn.Module) -> str:
        """The smoothed classifier."""
        return smoothed_name(predictor_name(self._base(model)), self.noise)
