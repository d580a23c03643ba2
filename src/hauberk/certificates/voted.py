"""What certificates of votes share: the plan, the votes of a base behind a random step, and bounds from them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Self

from torch import nn

from hauberk.batch import Batch
from hauberk.certificates.base import Certificate, Proof
from hauberk.certificates.evidence import Rival, Rule, VoteCounts, VotePlan
from hauberk.certificates.gate import black_box, check_composite, check_part
from hauberk.certificates.votes import Poll, schedule
from hauberk.defences.smoothed import SmoothedClassifier, smoothed_name, voter
from hauberk.errors import HauberkError
from hauberk.noises import RandomStep
from hauberk.threats import Measure


class VoteCertificate(Certificate[VoteCounts]):
    """Base class: a subclass has these fields, and defines the random step before each vote and what the bounds prove.

    Args:
        n0: votes that choose the class.
        n: votes that bound its probability.
        alpha: failure probability of one image.
        rule: of the bound, see ``VotePlan``.
        rival: ``rest`` or ``runner_up``, see ``VotePlan``.
    """

    if TYPE_CHECKING:  # pydantic would make fields of them, before a subclass's own
        n0: int
        n: int
        alpha: float
        rule: Rule
        rival: Rival

    kind: ClassVar[Proof] = "probabilistic"

    @property
    @abstractmethod
    def step(self) -> RandomStep:
        """What is done to an image before each vote."""

    def with_votes(self, n0: int, n: int) -> Self:
        """The same certificate with other numbers of votes."""
        return replace(self, n0=n0, n=n)  # type: ignore[call-arg]  # a subclass has these fields

    def at_one_look(self) -> Self:
        """The certificate that stops at one look only, with that look's share of alpha; for the rule ``looks``."""
        share = self.alpha / len(self.plan.looks)
        return replace(self, rule="fixed", alpha=share)  # type: ignore[call-arg]  # a subclass has these fields

    @property
    def norm(self) -> Measure:
        """That of the random step."""
        return self.step.norm

    @property
    def plan(self) -> VotePlan:
        """The settings that are fixed before the first vote."""
        looks = schedule(self.n) if self.rule == "looks" else ()
        return VotePlan(self.step, self.n0, self.n, self.alpha, self.rule, self.rival, looks)

    @property
    def failure_probability(self) -> float:
        """Alpha."""
        return self.alpha

    @contextmanager
    def admitted(self, model: nn.Module, batch: Batch, tile: int) -> Iterator[None]:
        """A smoothed classifier is known; its base, or the model that is smoothed here, is a black box.

        So is each draw of a random base, of which one is checked.
        """
        if isinstance(model, SmoothedClassifier):
            check_composite(model, SmoothedClassifier)
        base = self._base(model)
        check_part(base)
        with black_box(base, batch.images, tile, self.step.spread, "base", random=True):
            yield

    def poll(self, model: nn.Module) -> Poll:
        """The votes of the base."""
        return Poll(self._base(model), self.plan, partial(self.gate, model), self.settled)

    def settled(self, seen: VoteCounts) -> bool:  # noqa: ARG002
        """Whether an image needs no more votes; of a plan without a goal none is left out."""
        return False

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
        if model.noise != self.step:
            raise HauberkError(
                f"the model is smoothed with {model.noise}, but the certificate uses {self.step}",
                "use the same for both",
            )
        return model.base

    def predictor(self, model: nn.Module) -> str:
        """The vote behind the random step."""
        return smoothed_name(voter(self._base(model)), self.step)

    def bounds(self, seen: VoteCounts) -> tuple[float, float]:
        """The lower bound of the chosen class's probability, and the upper one of every other class's.

        Raises:
            HauberkError: on votes of another plan, for which alpha is not the failure probability.
        """
        if seen.plan != self.plan or not self.plan.judges(seen.n):
            raise HauberkError(
                f"the votes were counted by the plan {seen.plan}, but the certificate expects {self.plan}",
                "use the plan by which the votes were counted",
            )
        own = seen.counts[seen.chosen]
        if self.rival == "rest":
            lower = max(0.0, seen.lower(own, self.alpha) - self.step.slack)
            return lower, 1.0 - lower
        other, half = max(others(seen)), 0.5 * self.alpha
        lower = max(0.0, seen.lower(own, half) - self.step.slack)
        upper = 1.0 - seen.lower(seen.n - other, half)
        return lower, min(upper + self.step.slack, 1.0 - lower)


def others(seen: VoteCounts) -> list[int]:
    """The counts of the classes that were not chosen."""
    return [count for k, count in enumerate(seen.counts) if k != seen.chosen]
