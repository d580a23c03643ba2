"""Transfer: points found on another model, tried on this one (Papernot et al. 2016)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import field, replace

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hauberk.attacks.base import Attack
from hauberk.attacks.gradients import attackable, behind_a_fence
from hauberk.attacks.query import Decided, Query
from hauberk.batch import Batch
from hauberk.classifier import TILE, frozen
from hauberk.errors import HauberkError
from hauberk.models.of_run import run_hash, run_model
from hauberk.randomness import Key, Randomness
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class Transfer(Attack):
    """Attack a source model, and try the points that were found there on the attacked model.

    The points that are tried are the search's last point and the source's points of highest loss, of smallest logit
    margin, and nearest of those that the source gets wrong.  The gradient of the attacked model is not used, so its
    passes in a record are forward passes, one for each point; the source's passes are not counted.

    Args:
        threat: norm ball in the pixel box.
        loss: the loss by which the attacked model's worst point is kept; the search has the loss of ``attack``.
        source: run directory of the source model.
        weights: the source's ``hauberk.classifier.weights_hash``; None accepts any weights.
        attack: the search on the source, under the same threat.  Its ``early_stop`` is not used: what fools the
            source may not fool the attacked model, so the search goes on to its end.
    """

    source: str = field(kw_only=True)
    weights: str | None = None
    attack: Attack = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attack.threat != self.threat:
            raise ValueError(f"the source is attacked under {self.attack.threat}, but the threat is {self.threat}")

    def search(self, query: Query, randomness: Randomness) -> Tensor:
        """Search on the source, then look at its points once each; the search's last point is returned."""
        source = self._source(query)
        # a random source draws the same numbers at every call
        with frozen(source), attackable(source), behind_a_fence(source, 0):
            return search_on(source, self.attack, query, randomness)

    def outside(self) -> str:
        """The hash of the source's weights and spec, which a unit's key holds: the source may be trained again."""
        return run_hash(self.source)

    def _source(self, query: Query) -> nn.Module:
        """The source model, on the device of the images."""
        model = run_model(self.source, self.weights).to(query.images)
        self._check(model, query)
        return model

    def _check(self, model: nn.Module, query: Query) -> None:
        shape, classes = tuple(query.images.shape[1:]), query.clean_logits.shape[1]
        theirs = tuple(getattr(model, "spec", {}).get("input_shape", shape)), classes
        if theirs[0] == shape:
            with torch.no_grad():
                theirs = shape, model(query.images[:1]).shape[1]
        if theirs != (shape, classes):
            raise HauberkError(
                f"the source {self.source} takes images of shape {theirs[0]} and has {theirs[1]} classes, "
                f"the attacked model takes {shape} and has {classes}",
                "use a source that was trained for the same task",
            )


def search_on(source: nn.Module, attack: Attack, query: Query, randomness: Randomness) -> Tensor:
    """Search on another model than the query's, then evaluate each point that was found there once with the query.

    Args:
        source: in eval mode, parameters frozen.
        attack: the search; its ``early_stop`` is not used.
        query: of the attacked model; in training it is not used.
        randomness: one draw for each row.

    Returns:
        the search's last point, (B, C, H, W).
    """
    if not query.track:
        return attack.perturb(source, query.images, query.labels, randomness, query.budget)
    points = _found(replace(attack, early_stop=False), source, query, randomness)
    for there in points:
        query.value(there)
    return points[0]


def _found(attack: Attack, source: nn.Module, query: Query, randomness: Randomness) -> list[Tensor]:
    key = query.key or Key(0, 0, tuple(range(len(query.labels))), "search")
    batch = Batch(query.images, query.labels, torch.tensor(key.ids, device=query.labels.device))
    own = attack.query(source, batch, query.tile or TILE, key.seed)
    own.retire(~query.active)
    last = query.images
    with suppress(Decided):  # the source's own, by an attack that takes rows out
        own.value(query.images)
        last = own.project(attack.search(own, randomness))
    return [last, *(own.points[name] for name in ("loss", "logit_margin", "nearest"))]
