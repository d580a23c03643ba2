"""Stability training: equal outputs with and without noise (Zheng et al. 2016; Li et al. 2019)."""

from __future__ import annotations

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from hauberk.batch import Batch
from hauberk.noises import Noise
from hauberk.objectives.base import Context, Loss, Objective, accuracy
from hauberk.objectives.noisy_copies import Weight
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class Stability(Objective):
    r"""Cross-entropy on clean images, plus the cross-entropy of the noisy output relative to the clean one.

    .. math:: \mathrm{CE}(f(x), y) - \lambda \sum_k F_k(x)\,\log F_k(x + z)

    with F the softmax of f.  Gradients flow into both.  Both passes are one, so that batch norm sees the mixture.

    Zheng et al. 2016; Li et al. 2019; with uniform noise the best training for L1 in Yang et al. 2020.

    Args:
        noise: its distribution; ``sigma: 0.25`` is short for Gaussian noise.
        weight: lambda.
    """

    noise: Noise
    weight: Weight = 6.0

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``ce``, ``stability``, ``accuracy`` (clean) and ``noisy_accuracy``."""
        noise = self.noise.sample(context.randomness(len(batch)), *batch.images.shape[1:])
        logits: Tensor = model(torch.cat([batch.images, self.noise.added(batch.images, noise)]))
        clean, noisy = logits.chunk(2)
        loss = functional.cross_entropy(clean, batch.labels)
        apart = -(clean.softmax(1) * noisy.log_softmax(1)).sum(1).mean()
        terms = {
            "ce": loss.detach(),
            "stability": apart.detach(),
            "accuracy": accuracy(clean, batch.labels),
            "noisy_accuracy": accuracy(noisy, batch.labels),
        }
        return Loss(loss + self.weight * apart, terms)
