"""Attacks towards a chosen class: a success is a point that the model takes for that class."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, cast

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hauberk.attacks.base import AttackResult
from hauberk.attacks.gradients import behind_a_fence
from hauberk.attacks.judging import answered
from hauberk.attacks.wrapping import Wrapping
from hauberk.batch import Batch
from hauberk.capabilities import HasParts
from hauberk.classifier import ABSTAIN, TILE, Decides, channels_last, frozen, margins
from hauberk.errors import HauberkError
from hauberk.randomness import Key
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class Towards(Wrapping):
    r"""An attack whose aim is that the model chooses one class t, whatever the label.

    The attack inside sees the model as a net of two classes with the logits :math:`(\max_{j \ne t} z_j, z_t)`, and the
    label of every image is the first class.  So each untargeted loss is a targeted one: the margin is :math:`z_t -
    \max_{j \ne t} z_j`, and DLR is the margin, as with every net of two classes.  A targeted APGD or FAB has this one
    target.  A success is a point of the threat that the model classifies as t; a point of another wrong class is not a
    success. An image whose label is t is not attacked and is not a success.  Every success on another image is an error
    of the model, and robust accuracy from such attacks only is a weak upper bound.

    Losses that read further outputs of the model are not used.

    Args:
        threat: that of the attack inside.
        attack: the attack inside; None is APGD on the margin.
        target: the class t.
    """

    target: Annotated[int, Field(ge=0)] = 0

    def __call__(self, model: nn.Module, batch: Batch, seed: int = 0, tile: int = TILE) -> AttackResult:
        """Attack every image whose label is another; as ``Attack.__call__``.

        Raises:
            HauberkError: if the model has no such class.
        """
        asked_by = self.judged(model, batch.images)
        with frozen(model), channels_last(model), behind_a_fence(model, seed):
            logits, fresh, clean = answered(model, batch, asked_by, tile, seed)
        if self.target >= logits.shape[1]:
            raise HauberkError(
                f"the target class {self.target} does not exist",
                f"the model has {logits.shape[1]} classes, counted from 0",
            )
        asked = Batch(batch.images, torch.zeros_like(batch.labels), batch.ids)
        found = self.inner(_view(model, self.target), asked, seed, tile)
        own = batch.labels == self.target
        points = torch.where(own[:, None, None, None], batch.images, found.adversarial)
        with frozen(model), channels_last(model), behind_a_fence(model, seed):
            said = answered(model, Batch(points, batch.labels, batch.ids), asked_by, tile, seed)
        stay = own | (clean == self.target)  # nothing was searched, or nothing had to be
        reached = (said[2] == self.target) & (found.distance <= self.threat.eps) & found.success
        success = ~own & ((clean == self.target) | reached)
        refuted = ~success & (found.nearest <= self.threat.eps)  # by the verdict on the model itself
        stopped = zip(own.tolist(), found.stopped, strict=True)
        return replace(
            found,
            adversarial=points,
            success=success,
            clean_prediction=clean,
            prediction=torch.where(stay, clean, said[2]),
            distance=torch.where(own, 0.0, found.distance),
            nearest=torch.where(own | refuted, torch.inf, found.nearest),
            clean_probabilities=logits.softmax(1),
            probabilities=said[0].softmax(1),
            clean_draws=fresh,
            draws=said[1],
            forwards=found.forwards + 2,
            stopped=tuple("steps" if mine else why for mine, why in stopped),
        )


class _TwoClasses(nn.Module):
    """A model with two classes: any but the target, and the target."""

    def __init__(self, model: nn.Module, target: int) -> None:
        super().__init__()
        self.model, self.target = model, target
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, C, H, W) to logits (B, 2)."""
        logits: Tensor = self.model(images)
        if self.target >= logits.shape[1]:
            return logits[:, :2]
        own = logits[:, self.target]
        return torch.stack([own - margins(logits, torch.full_like(own, self.target, dtype=torch.int64)), own], 1)


class _WithParts(_TwoClasses, HasParts):
    """The same of a model that is made of others."""

    def parts(self) -> dict[str, nn.Module]:
        """Each part with two classes."""
        whole = cast("HasParts", self.model)
        return {name: _view(part, self.target) for name, part in whole.parts().items()}


class _Deciding(_TwoClasses, Decides):
    """The same of a model whose decision is not the largest logit."""

    def decide(self, images: Tensor, key: Key) -> Tensor:
        """1 for the target, 0 for another class, and no decision where the model has none."""
        said = cast("Decides", self.model).decide(images, key)
        return torch.where(said == ABSTAIN, ABSTAIN, (said == self.target).long())


def _view(model: nn.Module, target: int) -> _TwoClasses:
    kind = _Deciding if isinstance(model, Decides) else _WithParts if isinstance(model, HasParts) else _TwoClasses
    return kind(model, target).eval()
