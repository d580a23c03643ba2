"""Consistency for smoothing: equal outputs for noisy copies of an image (Jeong & Shin 2020)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn
from torch.nn import functional

from hauberk.batch import Batch
from hauberk.noises import Noise
from hauberk.objectives.base import Context, Loss, Objective, accuracy
from hauberk.objectives.noisy_copies import Copies, NoisyCopies, Weight, log_mean_softmax
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class SmoothedConsistency(Objective):
    r"""Cross-entropy under noise, plus the divergence of the copies from their mean, plus the entropy of the mean.

    .. math:: \tfrac1m \sum_j \Big(\mathrm{CE}(f(x + z_j), y) + \lambda\,\mathrm{KL}(\bar F(x) \,\|\, F(x + z_j))\Big)
              + \eta\,H(\bar F(x))

    with F the softmax of f and :math:`\bar F` its mean over the copies.

    Jeong & Shin 2020, Section 3.  It is not the lecture's consistency regularisation, which is ``consistency``.

    Args:
        noise: its distribution; ``sigma: 0.25`` is short for Gaussian noise.
        copies: m, noisy copies of each image.
        weight: lambda; the paper takes 20 at sigma 0.25 and 10 at 0.5 and 1 on CIFAR-10.
        entropy: eta.
    """

    noise: Noise
    copies: Annotated[Copies, Field(ge=2)] = 2
    weight: Weight = 20.0
    entropy: Weight = 0.5

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``ce``, ``divergence``, ``entropy`` and ``accuracy``, under noise."""
        logits = NoisyCopies.drawn(model, batch.images, self.noise, self.copies, context).logits(batch.images)
        labels = batch.labels.repeat_interleave(self.copies)
        loss = functional.cross_entropy(logits.flatten(0, 1), labels)
        mean = log_mean_softmax(logits)
        apart = (mean.exp()[:, None] * (mean[:, None] - logits.log_softmax(2))).sum(2).mean()
        undecided = -(mean.exp() * mean).sum(1).mean()
        terms = {
            "ce": loss.detach(),
            "divergence": apart.detach(),
            "entropy": undecided.detach(),
            "accuracy": accuracy(logits.flatten(0, 1), labels),
        }
        return Loss(loss + self.weight * apart + self.entropy * undecided, terms)
