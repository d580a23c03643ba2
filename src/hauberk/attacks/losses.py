"""What an attack maximises: one value for each row, never reduced, computed on logits.

``ce``, ``margin`` and ``dlr`` want the true label to lose, ``kl`` wants the output to move away from the clean one (it
needs no label, TRADES' inner problem), and the targeted forms want one class to win.  An ``AttackLoss`` reads further
outputs of the model, by which adaptive attacks are written.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from hauberk.classifier import margins
from hauberk.threats import CONFIG

LossName = Literal["ce", "margin", "dlr", "kl"]


@dataclass(frozen=True, config=CONFIG)
class AttackLoss(ABC):
    """A loss of the model's named outputs, registered under a name; a frozen dataclass like every method."""

    revision: ClassVar[int] = 1  # raised when its values change

    @abstractmethod
    def __call__(self, outputs: Mapping[str, Tensor], labels: Tensor, targets: Tensor | None) -> Tensor:
        """Value of each row, (B,); larger is better for the attacker.

        Args:
            outputs: named outputs of the model, ``logits`` (B, K) among them.
            labels: (B,).
            targets: the classes that a targeted search wants, (B,), or None.
        """


def attack_loss(name: LossName, logits: Tensor, labels: Tensor, clean_logits: Tensor | None = None) -> Tensor:
    r"""Untargeted loss of each row.

    Args:
        name: ``ce`` :math:`-\log p_y`, ``margin`` :math:`\max_{j\ne y} z_j - z_y`, ``dlr`` the margin divided by
            :math:`z_{\pi_1} - z_{\pi_3}`, the gap between the largest and the third largest logit (Croce & Hein 2020,
            Eq. 6; with two classes there is no third, and it is the margin), or ``kl``
            :math:`\mathrm{KL}(p(x)\,\|\,p(x'))`.
        logits: shape (B, K).
        labels: shape (B,).
        clean_logits: logits at the clean image, needed by ``kl``, shape (B, K).

    Returns:
        shape (B,); larger is better for the attacker.
    """
    if name == "ce":
        return functional.cross_entropy(logits, labels, reduction="none")
    if name == "margin" or (name == "dlr" and logits.shape[1] < 3):
        return -margins(logits, labels)
    if name == "dlr":
        top = logits.topk(3, dim=1).values
        return -margins(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)
    if clean_logits is None:
        raise ValueError("the kl loss compares with the clean logits, and none were given")
    clean = clean_logits.log_softmax(1)
    return (clean.exp() * (clean - logits.log_softmax(1))).sum(1)


def targeted_loss(name: LossName, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    r"""Loss whose maximum makes the target class win, shape (B,).

    :math:`\log p_t` for ``ce`` and ``kl``, :math:`z_t - \max_{j\ne t} z_j` for ``margin``, and for ``dlr``
    :math:`(z_t - z_y) / (z_{\pi_1} - (z_{\pi_3} + z_{\pi_4})/2)` (Croce & Hein 2020, Eq. 7), which is
    :math:`z_t - z_y` where there are fewer than four classes.
    """
    if name == "margin":
        return margins(logits, targets)
    if name == "dlr":
        ahead = (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None])).squeeze(1)
        if logits.shape[1] < 4:
            return ahead
        top = logits.topk(4, dim=1).values
        return ahead / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + 1e-12)
    return -functional.cross_entropy(logits, targets, reduction="none")


def target_classes(clean_logits: Tensor, labels: Tensor, rank: int) -> Tensor:
    """The class that is ``rank``-th (from 0) most likely at the clean image among the wrong ones, shape (B,)."""
    others = clean_logits.scatter(1, labels[:, None], -math.inf)
    return torch.argsort(others, dim=1, descending=True, stable=True)[:, rank]
