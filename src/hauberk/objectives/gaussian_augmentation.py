"""Cross-entropy under Gaussian noise, the training that randomised smoothing builds on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from hauberk.batch import Batch
from hauberk.objectives.base import Context, Loss, Objective, accuracy
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class GaussianAugmentation(Objective):
    r""":math:`\mathrm{CE}(f(x + \sigma\varepsilon), y)` with :math:`\varepsilon \sim N(0, I)`.

    Cohen et al. 2019, Section 3.3.
    The noisy images are not clipped to [0, 1]: the certificate smooths with the same, unclipped noise.

    Args:
        sigma: standard deviation in pixel units, [0, 1] scale.
    """

    sigma: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``ce`` and ``accuracy``, both under noise."""
        noise = context.randomness(len(batch)).normal(*batch.images.shape[1:])
        logits: Tensor = model(batch.images + self.sigma * noise)
        loss = functional.cross_entropy(logits, batch.labels)
        return Loss(loss, {"ce": loss.detach(), "accuracy": accuracy(logits, batch.labels)})
