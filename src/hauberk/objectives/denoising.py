"""Training the denoiser before a frozen classifier (Salman et al. 2020)."""

from __future__ import annotations

import torch
from pydantic.dataclasses import dataclass
from torch import nn
from torch.nn import functional

from hauberk.batch import Batch
from hauberk.defences.denoised import DenoisedClassifier
from hauberk.errors import HauberkError
from hauberk.noises import Gaussian
from hauberk.objectives.base import Context, Loss, Objective
from hauberk.objectives.noisy_copies import Weight
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class Denoising(Objective):
    r"""Squared error to the clean image, and cross-entropy to the class that the classifier gives it.

    .. math:: a\,\tfrac1d\,\|D(x + z) - x\|_2^2 + b\,\mathrm{CE}\big(c(D(x + z)), \arg\max_k c(x)_k\big),
              \qquad z \sim N(0, \sigma^2 I)

    with the denoiser D, the classifier c and the sigma of the denoised classifier.  With b = 0 it is the paper's MSE
    objective, which does not use the classifier; with a = 0 it is the stability objective.  Labels are not read.  The
    classifier is frozen and in eval mode, so that neither its weights nor its running statistics change.

    Set ``validate_every: 0``: accuracy on clean images does not say which denoiser is best.

    Args:
        mse: a.
        stability: b.

    Source: Salman et al. 2020, Section 3.1, Eq. 4 and 5.
    """

    mse: Weight = 1.0
    stability: Weight = 0.0

    def __post_init__(self) -> None:
        if not (self.mse or self.stability):
            raise ValueError("one of mse and stability must be above 0")

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``mse`` and, with b above 0, ``stability`` and ``agreement``."""
        if not isinstance(model, DenoisedClassifier):
            raise HauberkError(
                f"expected a classifier with a denoiser, got {type(model).__name__}",
                "build it with name: denoised, and train in float32",
            )
        noise = Gaussian(model.sigma).sample(context.randomness(len(batch)), *batch.images.shape[1:])
        noisy = batch.images + noise.to(batch.images)
        found = model.denoiser(noisy)
        error = functional.mse_loss(found, batch.images)
        loss, terms = self.mse * error, {"mse": error.detach()}
        if self.stability:
            with torch.no_grad():
                wanted = model.base(batch.images).argmax(1)
            logits = model.judged(found, noisy)
            apart = functional.cross_entropy(logits, wanted)
            terms["stability"] = apart.detach()
            terms["agreement"] = (logits.detach().argmax(1) == wanted).float().mean()
            loss = loss + self.stability * apart
        return Loss(loss, terms)
