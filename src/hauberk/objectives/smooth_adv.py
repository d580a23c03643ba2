"""SmoothAdv: adversarial training of the smoothed classifier (Salman et al. 2019)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn
from torch.nn import functional

from hauberk.attacks.base import Attack
from hauberk.batch import Batch
from hauberk.noises import Noise
from hauberk.objectives.base import Context, Loss, Objective, accuracy
from hauberk.objectives.noisy_copies import Copies, NoisyCopies
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class SmoothAdv(Objective):
    r"""Cross-entropy under noise around points that mislead the soft smoothed classifier.

    .. math:: \tfrac1m \sum_j \mathrm{CE}(f(x' + z_j), y),\qquad
              x' \approx \arg\max_{x' \in B} -\log \tfrac1m \sum_j \mathrm{softmax}(f(x' + z_j))_y

    The attack and the loss see the same noise.  Its loss is ``ce`` of the mean softmax, so that the search follows the
    gradient of the logarithm of the mean, not the mean of gradients.  The model is in eval mode during the search.

    Salman et al. 2019.

    Args:
        attack: the inner maximisation, in the paper ``PGD(L2(eps), steps=T, step_size=2 eps / T)``; one that leaves
            images behind on its way (``friendly_pgd``, FAB, DeepFool) is refused.
        noise: its distribution; ``sigma: 0.25`` is short for Gaussian noise.
        copies: m, noisy copies of each image.
        warm_up: the share of training over which the budget grows from 0 to the threat's.
    """

    attack: Attack
    noise: Noise
    copies: Copies = 2
    warm_up: Annotated[float, Field(ge=0, le=1)] = 0.0

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``ce_adversarial`` and ``adversarial_accuracy``, under noise."""
        copies = NoisyCopies.drawn(model, batch.images, self.noise, self.copies, context)
        grown = min(1.0, context.progress / self.warm_up) if self.warm_up else 1.0
        budget = grown * self.attack.threat.eps
        points = self.attack.perturb(copies, batch.images, batch.labels, context.randomness(len(batch)), budget)
        logits, labels = copies.logits(points).flatten(0, 1), batch.labels.repeat_interleave(self.copies)
        loss = functional.cross_entropy(logits, labels)
        return Loss(loss, {"ce_adversarial": loss.detach(), "adversarial_accuracy": accuracy(logits, labels)})
