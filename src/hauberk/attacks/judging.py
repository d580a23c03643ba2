"""The decisions of a model at points; a random model decides by its own rule or by a vote over fresh draws."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn

from hauberk.batch import Batch
from hauberk.capabilities import Poll, Polled
from hauberk.classifier import Decides, classes, decide, logits_of

Asked: TypeAlias = tuple[Poll, int]


def answered(
    model: nn.Module, batch: Batch, asked: Asked, tile: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, K), decisions of fresh draws (B, n) and the decision (B,); arguments as ``heard``."""
    logits = logits_of(model, batch, tile, (seed, 0, "judge"))
    fresh, polled = heard(model, batch, asked, tile, seed)
    if polled is None:
        polled = decide(model, batch, seed, tile) if isinstance(model, Decides) else classes(logits)
    return logits, fresh, polled


def heard(
    model: nn.Module, batch: Batch, asked: Asked, tile: int, seed: int
) -> tuple[Tensor, Tensor | None]:
    """Decisions of fresh draws, (B, n), and their joint decision, (B,); None for a model that is called once.

    The first draws decide by the rule; the draws beyond them show how often a point succeeds when it is sent again.

    Args:
        model: in eval mode.
        batch: points, labels and ids.
        asked: the rule of a model that states none, and how many draws are returned at least; 1 and 1 stand for a model
            that is not random.
        tile: rows of every call.
        seed: of the draws.
    """
    poll, kept = asked
    if isinstance(model, Decides) or (poll.draws == 1 and kept == 1 and not isinstance(model, Polled)):
        return batch.labels.new_empty(len(batch), 0), None
    poll = model.poll if isinstance(model, Polled) else poll
    total: Tensor | None = None
    fresh = []
    for n in range(max(poll.draws, kept)):
        logits = logits_of(model, batch, tile, (seed, n, "votes"))
        fresh.append(classes(logits))
        if n < poll.draws:
            total = logits if total is None else total + logits
    assert total is not None  # noqa: S101 - one draw at least
    draws = torch.stack(fresh, 1)
    return draws, classes(total) if poll.rule == "mean" else vote(draws[:, : poll.draws])


def vote(draws: Tensor) -> Tensor:
    """The class with most of n draws, (B, n) to (B,); of equally frequent classes the smallest."""
    return draws.mode(1).values
