"""Triplet loss adversarial training (TLA): attacked features near those of their image and far from other classes."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from hauberk.attacks.base import Attack
from hauberk.batch import Batch
from hauberk.defences.activations import activations_of, last_features
from hauberk.objectives.base import Context, Loss, Objective
from hauberk.objectives.noisy_copies import Weight
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG


class Nearest(NamedTuple):
    """For each anchor the place of the nearest clean image of another class, and whether there is one, both (B,)."""

    place: Tensor
    there: Tensor


def similarities(anchors: Tensor, others: Tensor, absolute: bool = False) -> Tensor:
    r"""Cosines of all pairs, (B, M), so that the lecture's distance is :math:`D = 1 - |\cos|`.

    Args:
        anchors: features, (B, F).
        others: features, (M, F).
        absolute: take :math:`|\cos|`: opposite features are then near.
    """
    cosines = functional.normalize(anchors, dim=1) @ functional.normalize(others, dim=1).T
    return cosines.abs() if absolute else cosines


def nearest_negatives(near: Tensor, labels: Tensor) -> Nearest:
    """The most similar column of another class: the own class is at minus infinity, not at 0, which a cosine may miss.

    Args:
        near: similarities, (B, B), of anchors with the clean images of the same batch.
        labels: (B,).
    """
    own = labels[:, None] == labels[None]
    return Nearest(near.detach().masked_fill(own, -torch.inf).argmax(1), ~own.all(1))


def class_mates(labels: Tensor, randomness: Randomness) -> Nearest:
    """For each row another row of the same class, drawn uniformly, and whether there is one.

    Args:
        labels: (B,).
        randomness: one draw for each row.
    """
    rows = len(labels)
    mates = (labels[:, None] == labels[None]) & ~torch.eye(rows, dtype=torch.bool, device=labels.device)
    scores = randomness.uniform(rows).to(labels.device).masked_fill(~mates, -torch.inf)
    return Nearest(scores.argmax(1), mates.any(1))


@dataclass(frozen=True, config=CONFIG)
class Triplet(Objective):
    r"""A triplet hinge on features, plus their lengths, a regulariser for ``terms``.

    .. math:: \lambda_1 \max(0, D(h_a, h_p) - D(h_a, h_n) + m) + \lambda_2\,(\|h_a\| + \|h_p\| + \|h_n\|),
              \qquad D(u, v) = 1 - \cos(u, v)

    The anchor a is the attacked image, the positive p its clean one, and the negative n the clean image of another
    class in the batch (of several processes, in its own rows) that is nearest to the anchor; a row without one has no
    hinge.  Attacked and clean images go through the network in one pass, and gradients flow into all three features.
    D does not see their lengths, but its slope grows as they shrink, which is what the norms are for.

    With ``pgd_adversarial`` and the same attack as the base it is TLA, which the authors start from an adversarially
    trained net.  They mine negatives from ten batches of 50 in eval mode, with the own class multiplied by 0, which
    fails where all cosines are negative, and average the squared entries of the features in the place of lengths.

    Args:
        attack: makes the anchors.
        weight: :math:`\lambda_1`.
        margin: m.
        norm_weight: :math:`\lambda_2`; with ``weight`` 0 this is norm regularisation.
        norm: ``l2``, the lecture's lengths, or ``squared``, the mean of squared entries.
        absolute: the lecture's :math:`|\cos|`, the same where features are not negative; it takes opposite features
            for near ones.
        second_positive: a second hinge whose positive is another clean image of the class, drawn from the batch.
        layer: name of the module whose output is taken, as in ``named_modules``; None is the input of the last linear
            layer.

    Source: Mao et al. 2019, Eq. 4-6.
    """

    attack: Attack
    weight: Weight = 2.0
    margin: Annotated[float, Field(ge=0, le=2)] = 0.03
    norm_weight: Weight = 1e-3
    norm: Literal["l2", "squared"] = "l2"
    absolute: bool = False
    second_positive: bool = False
    layer: str | None = None

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The regulariser of one batch; terms ``triplet`` and ``feature_norm``, before their weights."""
        points = torch.cat([context.attacked(self.attack, model, batch), batch.images])
        anchors, clean = self._features(model, points).chunk(2)
        near = similarities(anchors, clean, self.absolute)
        negative = nearest_negatives(near, batch.labels)
        hinge = self._hinge(near, torch.arange(len(batch), device=near.device), negative)
        if self.second_positive:
            mate = class_mates(batch.labels, context.randomness(len(batch)))
            hinge = hinge + self._hinge(near, mate.place, negative) * mate.there
        lengths = [self._length(anchors), self._length(clean), self._length(clean[negative.place]) * negative.there]
        triplet, length = hinge.mean(), torch.stack(lengths).sum(0).mean()
        terms = {"triplet": triplet.detach(), "feature_norm": length.detach()}
        return Loss(self.weight * triplet + self.norm_weight * length, terms)

    def _features(self, model: nn.Module, points: Tensor) -> Tensor:
        """The features that are compared, (B, F), in float32 whatever the precision of the pass."""
        if self.layer is None:
            return last_features(model, points).flatten(1).float()
        _, (found,) = activations_of(model, [self.layer], points)
        return found.flatten(1).float()

    def _hinge(self, near: Tensor, positive: Tensor, negative: Nearest) -> Tensor:
        """The hinge of each row, (B,); distances differ by less what cosines differ by."""
        to_positive, to_negative = (near.gather(1, p[:, None])[:, 0] for p in (positive, negative.place))
        return (to_negative - to_positive + self.margin).relu() * negative.there

    def _length(self, features: Tensor) -> Tensor:
        return features.square().mean(1) if self.norm == "squared" else features.norm(dim=1)
