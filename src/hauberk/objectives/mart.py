"""MART: adversarial training with more weight on images that are misclassified without an attack (Wang et al. 2020)."""

from __future__ import annotations

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hauberk.attacks.base import Attack
from hauberk.batch import Batch
from hauberk.objectives.base import Context, Loss, Objective, accuracy
from hauberk.objectives.noisy_copies import Weight
from hauberk.objectives.trades import divergence
from hauberk.threats import CONFIG


def boosted_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Cross-entropy plus a margin of each row, :math:`-\log p_y - \log(1 - \max_{k \ne y} p_k)`, (B,).

    The second logarithm is that of a sum of the other probabilities, so that nothing cancels; the released code adds
    small constants instead.  With two classes both are the same.

    Args:
        logits: (B, K), K at least 2.
        labels: (B,).
    """
    log_p = logits.log_softmax(1)
    rival = log_p.scatter(1, labels[:, None], -torch.inf).argmax(1)
    others = log_p.scatter(1, rival[:, None], -torch.inf).logsumexp(1)
    return -log_p.gather(1, labels[:, None])[:, 0] - others


@dataclass(frozen=True, config=CONFIG)
class MART(Objective):
    r""":math:`\mathrm{BCE}(p(x'), y) + \lambda\,(1 - p_y(x))\,\mathrm{KL}(p(x) \| p(x'))` with x' the attacked image.

    BCE is ``boosted_cross_entropy``.  The divergence counts where the clean image is classified wrongly or with little
    confidence.  Two forward passes are made in train mode, and gradients flow through all of both.

    Its accuracy under PGD-20 is about seven points higher than under AutoAttack: evaluate it with a suite.

    Args:
        attack: the inner maximisation, cross-entropy in the paper.
        weight: lambda.

    Source: Wang et al. 2020, Eq. 8-11.
    """

    attack: Attack
    weight: Weight = 5.0

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``bce``, ``divergence`` (weighted), ``accuracy``, ``adversarial_accuracy``."""
        points = context.attacked(self.attack, model, batch)
        clean, attacked = context.answers(model, batch.images), context.answers(model, points)
        sure = clean.softmax(1).gather(1, batch.labels[:, None])[:, 0]
        bce = boosted_cross_entropy(attacked, batch.labels).mean()
        apart = ((1.0 - sure) * divergence("kl", clean, attacked)).mean()
        terms = {
            "bce": bce.detach(),
            "divergence": apart.detach(),
            "accuracy": accuracy(clean, batch.labels),
            "adversarial_accuracy": accuracy(attacked, batch.labels),
        }
        return Loss(bce + self.weight * apart, terms)
