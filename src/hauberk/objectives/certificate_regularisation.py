"""Cross-entropy minus the certified radius: certificate regularisation (Singla et al. 2022)."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from hauberk.batch import Batch
from hauberk.objectives.base import Context, Loss, Objective, accuracy
from hauberk.objectives.logit_speeds import Lipschitz, measure, rivals
from hauberk.objectives.ramp import Length
from hauberk.threats import CONFIG


def label_radius(logits: Tensor, labels: Tensor, pairwise: Tensor) -> Tensor:
    r"""The certified radius of the label, :math:`\min_{i \ne y} (z_y - z_i) / K_{yi}`; negative if it is wrong.

    A rival that cannot come nearer (:math:`K_{yi} = 0`) does not count while it is behind, and gives 0 otherwise.
    Where no rival counts the radius would be infinite and have no gradient; it is set to 0.

    Args:
        logits: shape (B, K).
        labels: shape (B,).
        pairwise: Lipschitz constants of logit differences, (K, K), logits per pixel unit.

    Returns:
        shape (B,), pixel units, with a gradient in logits and constants.

    Source: Singla et al. 2022, Proposition 1.
    """
    gaps = logits.gather(1, labels[:, None]) - logits
    speeds = pairwise[labels]
    moving = speeds > 0
    reach = gaps / torch.where(moving, speeds, 1.0)
    level = torch.where(gaps > 0, math.inf, 0.0).to(reach)
    reach = torch.where(moving, reach, level).masked_fill(~rivals(labels, logits.shape[1]), math.inf)
    nearest = reach.amin(1)
    return torch.where(nearest.isfinite(), nearest, 0.0)


@dataclass(frozen=True, config=CONFIG)
class CertificateRegularisation(Objective):
    r"""Cross-entropy minus a share of the radius, :math:`T\,\mathrm{CE}(z / T, y) - \gamma\,\mathrm{mean}(R_+)`.

    .. math:: R = \min_{i \ne y} \frac{z_y - z_i}{K_{yi}}

    R is in pixel units.  A misclassified image has R < 0 and counts as 0: only the cross-entropy acts on it.  The
    reward is not bounded, so images with a large radius are still rewarded for a larger one; ``logit_annealing`` avoids
    that.

    The loss takes the radius to the label, and trains on the bound that ``lipschitz`` names, so its terms are not
    certificates.  ``radius`` is the mean over all images with 0 for wrong ones (average certified radius, ACR),
    ``radius_of_correct`` the mean over the right ones of a batch, as the authors' log has it.

    Args:
        gamma: weight of the radius; the authors use 0.1.
        temperature: T, in units of the logits.
        lipschitz: bound of the layers before the last, a number or ``walk``; see ``training_pairwise``.

    Source: Singla et al. 2022 (certificate regularisation).
    """

    gamma: Length = 0.1
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    lipschitz: Lipschitz = 1.0

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``ce``, ``radius``, ``radius_of_correct`` and ``accuracy``."""
        logits, pairwise, _ = measure(model, batch.images, self.lipschitz, context)
        ce = self.temperature * functional.cross_entropy(logits / self.temperature, batch.labels)
        radius = label_radius(logits, batch.labels, pairwise).clamp_min(0.0)
        right = (logits.detach().argmax(1) == batch.labels).to(radius)
        terms = {
            "ce": ce.detach(),
            "radius": radius.detach().mean(),
            "radius_of_correct": (radius.detach() * right).sum() / right.sum().clamp_min(1.0),
            "accuracy": accuracy(logits, batch.labels),
        }
        return Loss(ce - self.gamma * radius.mean(), terms)
