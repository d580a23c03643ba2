r"""Expectation over transformation: a search on a random model with a stated number of draws and kind of mean."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hauberk.attacks.apgd import APGD
from hauberk.attacks.base import Attack
from hauberk.attacks.gradients import EOT_DRAWS
from hauberk.attacks.judging import Asked
from hauberk.attacks.query import Query
from hauberk.batch import Batch
from hauberk.capabilities import Poll, Polled
from hauberk.classifier import TILE, logits_of, margins
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG

SEEN = ("last", "loss", "logit_margin")  # points among which fresh draws choose


@dataclass(frozen=True, config=CONFIG)
class EOT(Attack):
    r"""A search whose loss is a mean over m draws of a random model, judged by fresh draws however small m is.

    .. math::
        \text{loss: } \frac1m \sum_t \ell(f_t(x), y), \qquad \text{logits: } \ell\Bigl(\frac1m \sum_t f_t(x), y\Bigr)

    Every value of a search on a random model is noisy, and its highest value a lucky one.  So fresh draws choose among
    the last point, that of highest loss and that of smallest margin, and other fresh draws judge the one chosen.  On a
    model that is not random it is the attack inside.

    With ``fixed`` the m draws are the same at every call: the search is one on a deterministic net, and what it finds
    is tried on fresh draws.  This shows how points transfer between draws; it is not a strong attack.

    Args:
        threat: norm ball in the pixel box.
        attack: the search, under the same threat; None is APGD.
        draws: m.
        mean: of losses or of logits.
        fixed: the same draws at every call.
        votes: fresh draws whose majority is the decision of a model that states no rule.
        tries: fresh draws kept on record of each point, where they are more than the votes.
        loss: not used, nor are ``early_stop`` and ``eot``: the attack inside has its loss, and a point that was wrong
            in some draws is no error yet.

    Reference: Athalye, Carlini & Wagner 2018, Section 4.2.
    """

    attack: Attack | None = None
    draws: Annotated[int, Field(ge=1)] = EOT_DRAWS
    mean: Literal["loss", "logits"] = "loss"
    fixed: bool = False
    votes: Annotated[int, Field(ge=1)] = EOT_DRAWS
    tries: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner.threat != self.threat:
            raise ValueError(f"the attack inside has the threat {self.inner.threat}, not {self.threat}")

    @property
    def inner(self) -> Attack:
        """The attack inside."""
        return APGD(self.threat) if self.attack is None else self.attack

    def search(self, query: Query, randomness: Randomness) -> Tensor:
        """The search of the attack inside."""
        found = self.inner.search(query, randomness)
        if query.track:
            query.points["last"] = query.project(found)
        return found

    def query(self, model: nn.Module, batch: Batch, tile: int = TILE, seed: int = 0) -> Query:
        """The model by m draws a call; of one that is not random, as the attack inside sees it."""
        query = self.inner.query(model, batch, tile, seed)
        if query.random:
            query.eot, query.mean, query.fixed, query.drop = self.draws, self.mean, self.fixed, False
        return query

    def asked(self, eot: int, random: bool) -> Asked:
        """By the majority of the votes."""
        return (Poll("vote", self.votes), max(self.votes, self.tries)) if random else super().asked(eot, random)

    def _candidates(self, model: nn.Module, query: Query) -> Tensor:
        """Of the points seen, the one that most fresh draws get wrong; of equals that of smaller margin."""
        if not query.random or query.key is None:
            return super()._candidates(model, query)
        best = torch.full_like(query.labels, -torch.inf, dtype=query.images.dtype)
        chosen = query.images.clone()
        for points in (query.points[name] for name in SEEN if name in query.points):
            batch = Batch(self._inside(points, query.images), query.labels, query.labels.new_tensor(query.key.ids))
            score = self._errors(model, batch, query.tile or TILE, query.key.seed)
            better = score > best
            best, chosen[better] = torch.where(better, score, best), batch.images[better]
        return chosen

    def _errors(self, model: nn.Module, batch: Batch, tile: int, seed: int) -> Tensor:
        """Draws that are wrong, less half of the mean margin of probabilities; of mean logits the margin, negated."""
        rule = model.poll if isinstance(model, Polled) else Poll("vote", self.votes)
        every = [logits_of(model, batch, tile, (seed, n, "choice")) for n in range(rule.draws)]
        if rule.rule == "mean":
            return -margins(torch.stack(every).mean(0), batch.labels)
        probable = torch.stack([margins(logits.softmax(1), batch.labels) for logits in every])
        return (probable < 0).sum(0) - probable.mean(0) / 2
