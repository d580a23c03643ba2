"""MACER: training that maximises the certified radius, without attacks (Zhai et al. 2020)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from hauberk.batch import Batch
from hauberk.noises import Gaussian
from hauberk.objectives.base import Context, Loss, Objective
from hauberk.objectives.noisy_copies import Copies, NoisyCopies, Weight, log_mean_softmax
from hauberk.threats import CONFIG

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, config=CONFIG)
class MACER(Objective):
    r"""Cross-entropy of the soft smoothed classifier, plus a hinge on the certified radius of correct images.

    .. math:: -\log \tfrac1m \sum_j \mathrm{softmax}(z_j)_y
              + \lambda\,\tfrac\sigma2 \max(\gamma - \xi, 0)\,[\arg\max \hat p = y],\quad
              \xi = \Phi^{-1}(\hat p_y) - \Phi^{-1}(\max_{k \ne y} \hat p_k)

    with :math:`z_j = f(x + \sigma\epsilon_j)` and :math:`\hat p = \tfrac1m \sum_j \mathrm{softmax}(\beta z_j)`, so that
    :math:`\tfrac\sigma2\xi` is the radius.  Rows whose xi is not finite or above gamma have no hinge.

    Zhai et al. 2020, Algorithm 1.  The lecture prints the mean of the losses where the paper takes the loss of the
    mean, and takes the hinge of the radius, which multiplies by :math:`\sigma/2` twice.

    Args:
        noise: Gaussian; ``sigma: 0.25`` is short for it.
        copies: m, noisy copies of each image.
        weight: lambda; the paper takes 12 at sigma 0.25, 4 at 0.5, 12 at 1.
        gamma: where the hinge ends, which keeps the quantiles away from 0 and 1.
        temperature: beta, the inverse temperature of the radius.
        start: the share of training before the hinge begins.
    """

    noise: Gaussian
    copies: Copies = 16
    weight: Weight = 12.0
    gamma: Positive = 8.0
    temperature: Positive = 16.0
    start: Annotated[float, Field(ge=0, le=1)] = 0.0

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``ce``, ``hinge``, ``radius`` and ``accuracy``, of the soft classifiers."""
        logits = NoisyCopies.drawn(model, batch.images, self.noise, self.copies, context).logits(batch.images)
        loss = functional.nll_loss(log_mean_softmax(logits), batch.labels)
        gaps, right = self.gaps(logits, batch.labels)
        hinge = 0.5 * self.noise.sigma * (self.gamma - gaps).sum() / len(batch)
        weight = self.weight if context.progress >= self.start else 0.0
        terms = {
            "ce": loss.detach(),
            "hinge": hinge.detach(),
            "radius": 0.5 * self.noise.sigma * gaps.detach().sum() / max(1, len(gaps)),
            "accuracy": right.float().mean(),
        }
        return Loss(loss + weight * hinge, terms)

    def gaps(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        r""":math:`\xi` of the rows that have a hinge, and which of all rows are right.

        The quantiles are taken of those rows only: elsewhere they are infinite, and so would be their gradients.

        Args:
            logits: of the copies, (B, m, K).
            labels: (B,).
        """
        shares = log_mean_softmax(self.temperature * logits).exp()
        own = shares.gather(1, labels[:, None]).squeeze(1)
        other = shares.scatter(1, labels[:, None], -1.0).amax(1)
        right = own > other
        with torch.no_grad():
            gap = torch.special.ndtri(own.double()) - torch.special.ndtri(other.double())
            kept = right & (gap <= self.gamma)  # an infinite one is larger
        return torch.special.ndtri(own[kept]) - torch.special.ndtri(other[kept]), right
