"""Classification as optimal transport: the hinge Kantorovich-Rubinstein loss (Serrurier et al. 2021)."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from hauberk.batch import Batch
from hauberk.objectives.base import Context, Loss, Objective, accuracy
from hauberk.objectives.logit_speeds import Lipschitz, measure
from hauberk.threats import CONFIG

MEMORY = "hkr"  # the place in a context's state: running mean of the scores' size
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def transport(scores: Tensor, positive: Tensor, counts: Tensor, total: int) -> Tensor:
    r"""How far apart a 1-Lipschitz score puts a class and the rest, averaged over the C scores.

    .. math:: \mathrm{KR} = \mathbb{E}[f \mid +] - \mathbb{E}[f \mid -]

    Its maximum over 1-Lipschitz f is the Wasserstein-1 distance of the two distributions.  A side without images
    counts 0.  The means are those of the whole batch also where it is spread over processes: each gives a number whose
    mean over the processes, weighted by rows, is that of the batch.

    Args:
        scores: of this process's rows, (B, C).
        positive: which of them belong to the class of the score, (B, C).
        counts: number of positive rows of the whole batch, (C,).
        total: rows of the whole batch.

    Source: Serrurier et al. 2021.
    """
    sides = torch.stack([-(total - counts), counts]).to(scores)
    share = total / sides  # infinite for a side without images, where nothing takes it
    return (scores * torch.where(positive, share[1], share[0])).mean()


def hinge(scores: Tensor, positive: Tensor, margin: float) -> Tensor:
    r"""By how much each score falls short of half the margin on its own side, :math:`(m/2 \mp f)_+`, (B, C)."""
    return (0.5 * margin - torch.where(positive, scores, -scores)).clamp_min(0.0)


@dataclass(frozen=True, config=CONFIG)
class HKR(Objective):
    r"""Hinge loss minus the transport distance, :math:`\alpha H - (1 - \alpha)\,\mathrm{KR}`.

    With two classes the score is :math:`f = (z_1 - z_0) / K_{01}`, which is 1-Lipschitz in pixel units, and
    :math:`|f|` is the certified radius.  With more, every logit (over the bound L of the features) is the score of its
    class against the rest, and should be 1-Lipschitz as rows of unit length make it; :math:`H` weighs the one positive
    score of an image as much as its K - 1 others.

    With ``soft``, an image's own score stands against a mean of the others that prefers the largest,

    .. math:: -(1-\alpha)\Big[f_y - \sum_{i \ne y} s_i f_i\Big]
              + \alpha\Big[(\tfrac m2 - f_y)_+ + \sum_{i \ne y} s_i (\tfrac m2 + f_i)_+\Big], \qquad
              s = \mathrm{softmax}_{i \ne y}\big(\tau f_i\, m / \max(\bar f, m)\big)

    where :math:`\bar f` is a running mean of :math:`|f|`, so that the softmax does not harden as scores grow.

    ``alpha`` is that of recent libraries; a weight :math:`\lambda` of the hinge as in the paper is
    :math:`\alpha = \lambda / (1 + \lambda)`.  0 is only KR, 1 only the hinge.

    Args:
        alpha: weight of the hinge.
        margin: m; the hinge is zero from a distance of m/2 from the boundary on, pixel units.
        soft: prefer the nearest rivals (three classes or more).
        temperature: :math:`\tau`; a larger value is nearer to taking only the largest rival.
        memory: weight of the past in :math:`\bar f`.
        lipschitz: bound of the layers before the last, a number or ``walk``; see ``training_pairwise``.

    Source: Serrurier et al. 2021; Serrurier et al. 2023 (soft weights).
    """

    alpha: Share = 0.9
    margin: Positive = 1.0
    soft: bool = False
    temperature: Positive = 1.0
    memory: Annotated[float, Field(ge=0, lt=1)] = 0.99
    lipschitz: Lipschitz = 1.0

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``kr``, ``hinge``, ``accuracy``, ``speed``."""
        logits, pairwise, speed = measure(model, batch.images, self.lipschitz, context)
        if logits.shape[1] == 2:
            apart = torch.where(pairwise[0, 1] > 0, pairwise[0, 1], 1.0)
            kr, lack = self._against_rest(logits.diff(dim=1) / apart, batch.labels[:, None] == 1, context)
        else:
            scores = logits / torch.where(speed > 0, speed, 1.0)
            positive = functional.one_hot(batch.labels, logits.shape[1]) > 0
            kr, lack = (self._soft if self.soft else self._against_rest)(scores, positive, context)
        terms = {
            "kr": kr.detach(),
            "hinge": lack.detach(),
            "accuracy": accuracy(logits, batch.labels),
            "speed": speed.detach(),
        }
        return Loss(self.alpha * lack - (1.0 - self.alpha) * kr, terms)

    def _against_rest(self, scores: Tensor, positive: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """KR and hinge of every class against the rest; one score stands for two classes."""
        counts, total = _counts(positive, context)
        weight = torch.where(positive, max(scores.shape[1] - 1.0, 1.0), 1.0)
        return transport(scores, positive, counts, total), (weight * hinge(scores, positive, self.margin)).mean()

    def _soft(self, scores: Tensor, positive: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """KR and hinge of an image's own score against a soft maximum of the others."""
        size = self._running_size(scores.detach(), context)
        sharpness = self.temperature * self.margin / max(size, self.margin)
        rivals = (sharpness * scores).masked_fill(positive, -math.inf).softmax(1)
        weight = torch.where(positive, 1.0, rivals)
        kr = (weight * torch.where(positive, scores, -scores)).sum(1).mean()
        return kr, (weight * hinge(scores, positive, self.margin)).sum(1).mean()

    def _running_size(self, scores: Tensor, context: Context) -> float:
        before: float = context.state.get(MEMORY, self.margin)
        size = self.memory * before + (1.0 - self.memory) * float(context.whole(scores).abs().mean())
        context.state[MEMORY] = size
        return size


def _counts(positive: Tensor, context: Context) -> tuple[Tensor, int]:
    """Positive rows of each score and all rows, of the whole batch: a class may be absent from a process's own rows."""
    whole = context.whole(positive.long())
    return whole.sum(0), len(whole)
