"""EOT in rounds of increasing draws and steps, until the accuracy of a random model stops falling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hauberk.attacks.apgd import APGD
from hauberk.attacks.autoattack import joined
from hauberk.attacks.base import Attack, AttackResult
from hauberk.attacks.eot import EOT
from hauberk.attacks.gradients import EOT_DRAWS
from hauberk.attacks.query import Query
from hauberk.batch import Batch
from hauberk.classifier import TILE
from hauberk.errors import HauberkError
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG

A_ROUND = 2  # stages: the mean of losses, the loss of mean logits


@dataclass(frozen=True, config=CONFIG)
class EOTSweep(Attack):
    """Rounds of two APGDs by EOT, each on the survivors: cross-entropy's mean, and the margin of mean logits.

    A round has at least as many draws for each gradient, and at least as many steps, as the round before it.  The rule
    that ends it is fixed beforehand: after the first round with at least ``least`` draws in which no further image
    falls, or after the last.  Where images fell in the last round, the accuracy was still falling, and the report says
    so.

    Args:
        threat: norm ball in the pixel box.
        draws: of a gradient, for each round.
        steps: of APGD, for each round.
        least: the fewest draws of a round that may be the last one.
        restarts: runs from fresh random starts in each stage.
        votes: fresh draws whose majority is the decision of a model that states no rule.
        tries: fresh draws kept on record of each point.
        loss: not used, nor are ``early_stop`` and ``eot``.
    """

    draws: tuple[Annotated[int, Field(ge=1)], ...] = (1, 5, 20, 50)
    steps: tuple[Annotated[int, Field(ge=1)], ...] = (20, 50, 100, 200)
    least: Annotated[int, Field(ge=1)] = EOT_DRAWS
    restarts: Annotated[int, Field(ge=1)] = 1
    votes: Annotated[int, Field(ge=1)] = EOT_DRAWS
    tries: Annotated[int, Field(ge=0)] = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.draws or len(self.draws) != len(self.steps):
            raise ValueError(
                f"{len(self.draws)} numbers of draws and {len(self.steps)} of steps were given: each round needs one "
                "of both",
            )
        if any(b < a for row in (self.draws, self.steps) for a, b in pairwise(row)):
            raise ValueError("a round must have at least as many draws and steps as the round before it")

    def stages(self) -> tuple[Attack, ...]:
        """The attacks in order, two in each round."""
        found = []
        for draws, steps in zip(self.draws, self.steps, strict=True):
            by = EOT(self.threat, draws=draws, votes=self.votes, tries=self.tries)
            walk = APGD(self.threat, early_stop=False, steps=steps, restarts=self.restarts)
            found += [replace(by, attack=walk), replace(by, attack=replace(walk, loss="margin"), mean="logits")]
        return tuple(found)

    def settled(self, broken: Sequence[int]) -> bool:
        """Whether the sweep ends here.

        Args:
            broken: how many images fell in each stage so far.
        """
        whole, rest = divmod(len(broken), A_ROUND)
        return not rest and whole > 0 and self.draws[whole - 1] >= self.least and not any(broken[-A_ROUND:])

    def search(self, query: Query, randomness: Randomness) -> Tensor:  # noqa: ARG002
        """Not available: training needs one search, not a sequence of attacks."""
        raise HauberkError("a sweep is for evaluation and cannot be used in training", "train with pgd or apgd")

    def __call__(self, model: nn.Module, batch: Batch, seed: int = 0, tile: int = TILE) -> AttackResult:
        """Attack every image, round by round; as ``Attack.__call__``."""
        first, *others = self.stages()
        found = first(model, batch, seed, tile)
        wrong = found.clean_prediction != batch.labels
        broken = [int((found.success & ~wrong).sum())]
        for stage in others:
            left = (~found.success).nonzero().flatten()
            if len(left) == 0 or self.settled(broken):
                break
            later = stage(model, batch.select(left), seed, tile)
            broken.append(int(later.success.sum()))
            found = joined(found, left, later)
        return found
