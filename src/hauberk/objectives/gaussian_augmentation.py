"""Cross-entropy under noise, the training that randomised smoothing builds on."""

from __future__ import annotations

from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from hauberk.batch import Batch
from hauberk.noises import Noise
from hauberk.objectives.base import Context, Loss, Objective, accuracy
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class GaussianAugmentation(Objective):
    r""":math:`\mathrm{CE}(f(x + z), y)` with noise z, Gaussian in the paper.

    Cohen et al. 2019, Section 3.3.
    The noisy images are not clipped to [0, 1]: the certificate smooths with the same, unclipped noise.

    Args:
        noise: its distribution; ``sigma: 0.25`` is short for Gaussian noise.
    """

    noise: Noise

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``ce`` and ``accuracy``, both under noise."""
        noise = self.noise.sample(context.randomness(len(batch)), *batch.images.shape[1:])
        logits: Tensor = model(self.noise.added(batch.images, noise))
        loss = functional.cross_entropy(logits, batch.labels)
        return Loss(loss, {"ce": loss.detach(), "accuracy": accuracy(logits, batch.labels)})
