"""Training a denoiser against attacks, guided by the outputs of a frozen classifier (Liao et al. 2018)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from hauberk.attacks.base import Attack
from hauberk.batch import Batch
from hauberk.defences.purified import PurifiedClassifier
from hauberk.errors import HauberkError
from hauberk.objectives.base import Context, Loss, Objective, accuracy
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class GuidedDenoising(Objective):
    r"""The mean absolute difference of a classifier's outputs at the denoised and at the clean image.

    .. math:: \tfrac1n \|F_l(D(x')) - F_l(x)\|_1, \qquad x' = \text{attack on } c \text{ at } x
              \text{ within } \epsilon u, \quad u \sim U[0, 1)

    with the denoiser D and the frozen classifier c in eval mode.  F is the identity (``pixel``), the output of the last
    convolution (``feature``) or the logits (``logit``); ``class`` takes the cross-entropy of c(D(x')) to the label.
    Attacks are found on c without the denoiser, anew for each batch; u is drawn for each image, so that
    budgets from 0 to the threat's are seen.

    The denoiser is trained against attacks on c. It is not a defence against attacks on denoiser and classifier
    together.

    Args:
        attack: on the classifier; its threat has the largest budget.
        guide: which F.

    Source: Liao et al. 2018, Eq. 5-8.
    """

    attack: Attack
    guide: Literal["pixel", "feature", "logit", "class"] = "logit"

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``distance`` (``ce`` of ``class``) and ``accuracy`` behind the denoiser."""
        if not (isinstance(model, PurifiedClassifier) and model.guided):
            raise HauberkError(
                f"expected a classifier with a guided denoiser, got {type(model).__name__}",
                "build it with name: guided_denoiser, and train in float32",
            )
        randomness = context.randomness(len(batch))
        budget = self.attack.threat.eps * randomness.uniform().to(batch.images)
        attacked = self.attack.perturb(model.base, batch.images, batch.labels, randomness, budget)
        found = model.purifier(attacked)
        seen, logits = _seen(model.base, found, self.guide)
        right = accuracy(logits, batch.labels)
        if self.guide == "class":
            loss = functional.cross_entropy(logits, batch.labels)
            return Loss(loss, {"ce": loss.detach(), "accuracy": right})
        with torch.no_grad():
            wanted, _ = _seen(model.base, batch.images, self.guide)
        loss = (seen - wanted).abs().mean()
        return Loss(loss, {"distance": loss.detach(), "accuracy": right})


def _seen(base: nn.Module, images: Tensor, guide: str) -> tuple[Tensor, Tensor]:
    """What guides, F of the images, and the logits."""
    if guide != "feature":
        logits: Tensor = base(images)
        return (images if guide == "pixel" else logits), logits
    layers = [module for module in base.modules() if isinstance(module, nn.Conv2d)]
    if not layers:
        raise HauberkError(
            f"{type(base).__name__} has no convolution whose output could guide the denoiser", "set guide: logit"
        )
    kept: list[Tensor] = []
    handle = layers[-1].register_forward_hook(lambda _module, _inputs, output: kept.append(output.clone()))
    try:
        logits = base(images)
    finally:
        handle.remove()
    return kept[-1], logits
