"""Training a detector of attacks on a frozen classifier (Metzen et al. 2017)."""

from __future__ import annotations

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from hauberk.attacks.base import Attack
from hauberk.batch import Batch
from hauberk.classifier import evaluating
from hauberk.defences.activations import activations_of
from hauberk.defences.detector import DetectedClassifier
from hauberk.errors import HauberkError
from hauberk.objectives.base import Context, Loss, Objective
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class Detector(Objective):
    r"""Binary cross-entropy of the head, :math:`\tfrac12(\mathrm{softplus}(d(x)) + \mathrm{softplus}(-d(x')))`.

    Here d is the logit of "attacked" and x' the attacked image (Metzen et al. 2017, Section 3.2).  The base runs in
    eval mode and without gradients, so neither its weights nor its running statistics change.  An attack with a loss of
    logits gives their static adversary, which fools only the classifier; an attack with ``detector_joint`` takes the
    head at that step into account, as their dynamic adversary does (Section 3.3).

    Set ``validate_every: 0``: the accuracy of the base does not change, so it cannot choose an epoch.

    Args:
        attack: makes the images that the head learns to tell from clean images.
    """

    attack: Attack

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``bce``, ``true_positives`` and ``false_positives`` (shares at logit 0)."""
        if not isinstance(model, DetectedClassifier):
            raise HauberkError(
                f"expected a classifier with a detector, got {type(model).__name__}",
                "build it with name: detected, and train in float32",
            )
        attacked = self.attack.perturb(model, batch.images, batch.labels, context.randomness(len(batch)))
        with torch.no_grad(), evaluating(model.base):
            _, (activation,) = activations_of(model.base, [model.layer], torch.cat([batch.images, attacked]))
        scores: Tensor = model.head(activation).squeeze(1)
        clean, under_attack = scores[: len(batch)], scores[len(batch) :]
        loss = 0.5 * (functional.softplus(clean).mean() + functional.softplus(-under_attack).mean())
        terms = {
            "bce": loss.detach(),
            "true_positives": (under_attack.detach() > 0).float().mean(),
            "false_positives": (clean.detach() > 0).float().mean(),
        }
        return Loss(loss, terms)
