"""What an attack maximises: one value for each row, never reduced, computed on logits.

``ce`` and ``margin`` want the true label to lose, ``kl`` wants the output to move away from the clean one (it needs no
label, TRADES' inner problem), and the targeted forms want one class to win.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from hauberk.classifier import margins

LossName = Literal["ce", "margin", "kl"]


def attack_loss(name: LossName, logits: Tensor, labels: Tensor, clean_logits: Tensor | None = None) -> Tensor:
    r"""Untargeted loss of each row.

    Args:
        name: ``ce`` :math:`-\log p_y`, ``margin`` :math:`\max_{j\ne y} z_j - z_y`, or ``kl``
            :math:`\mathrm{KL}(p(x)\,\|\,p(x'))`.
        logits: shape (B, K).
        labels: shape (B,).
        clean_logits: logits at the clean image, needed by ``kl``, shape (B, K).

    Returns:
        shape (B,); larger is better for the attacker.
    """
    if name == "ce":
        return functional.cross_entropy(logits, labels, reduction="none")
    if name == "margin":
        return -margins(logits, labels)
    if clean_logits is None:
        raise ValueError("the kl loss needs the clean logits")
    clean = clean_logits.log_softmax(1)
    return (clean.exp() * (clean - logits.log_softmax(1))).sum(1)


def targeted_loss(name: LossName, logits: Tensor, targets: Tensor) -> Tensor:
    r"""Loss whose maximum makes the target class win, shape (B,).

    :math:`\log p_t` for ``ce`` and ``kl``, :math:`z_t - \max_{j\ne t} z_j` for ``margin``.
    """
    if name == "margin":
        return margins(logits, targets)
    return -functional.cross_entropy(logits, targets, reduction="none")


def target_classes(clean_logits: Tensor, labels: Tensor, rank: int) -> Tensor:
    """The class that is ``rank``-th (from 0) most likely at the clean image among the wrong ones, shape (B,)."""
    others = clean_logits.scatter(1, labels[:, None], -math.inf)
    return torch.argsort(others, dim=1, descending=True, stable=True)[:, rank]
