r"""Globally robust networks: an additional logit for images too near to a decision boundary (Leino et al. 2021)."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from hauberk.batch import Batch
from hauberk.errors import HauberkError
from hauberk.objectives.base import Context, Loss, Objective, accuracy
from hauberk.objectives.logit_speeds import Lipschitz, measure
from hauberk.objectives.ramp import Amount, amount
from hauberk.threats import CONFIG

Classes = tuple[Annotated[int, Field(ge=0)], ...]


def margins(logits: Tensor, pairwise: Tensor, eps: float, most: int) -> Tensor:
    r"""By how much each set of the k largest logits stays ahead of all others within eps, k = 1 ... ``most``.

    .. math:: m_k = \min_{j \in F^k}\Big[z_j - \max_{i \notin F^k}\big(z_i + \epsilon K_{ji}\big)\Big]

    Members of :math:`F^k` are told apart by their place in the order and not by their values, so equal logits are
    different classes; the authors' code compares values, and takes a rival with an equal logit for a member.

    Args:
        logits: shape (B, K).
        pairwise: Lipschitz constants of logit differences, (K, K), logits per pixel unit.
        eps: radius, pixel units.
        most: largest k, below K.

    Returns:
        shape (B, most), in units of the logits; with :math:`m_k > 0`, no change shorter than eps alters the set.

    Source: Leino & Fredrikson 2021 (relaxed top-k robustness).
    """
    ordered, order = logits.sort(dim=1, descending=True, stable=True)
    speeds = pairwise[order[:, :most, None], order[:, None, :]]
    ahead = ordered[:, :most, None] - ordered[:, None, :] - eps * speeds
    # [j, k]: the nearest rival from place k on, then the least over members 0 ... j; at j = k - 1 it is m_k
    nearest = ahead.flip(2).cummin(2).values.flip(2)
    return nearest.cummin(1).values.diagonal(offset=1, dim1=1, dim2=2)


def inside(logits: Tensor, affinity: tuple[Classes, ...], most: int) -> Tensor:
    """Whether the k largest logits all belong to one of the sets of classes, (B, most), for k = 1 ... ``most``."""
    classes = logits.shape[1]
    member = torch.zeros(len(affinity), classes, dtype=torch.int64, device=logits.device)
    for row, members in enumerate(affinity):
        member[row, list(members)] = 1
    order = logits.sort(dim=1, descending=True, stable=True).indices[:, :most]
    return member[:, order].cumprod(2).amax(0) > 0


def bottom_logit(
    logits: Tensor, pairwise: Tensor, eps: float, top_k: int = 1, affinity: tuple[Classes, ...] = ()
) -> Tensor:
    r"""The logit of "not robust", :math:`z_\bot = \max_i z_i - \max_k m_k`, below the largest iff some guarantee holds.

    For k = 1 alone, :math:`z_\bot = \max_{i \ne j}(z_i + \epsilon K_{ji})` with j the predicted class.  The lecture
    writes :math:`K_i + K_j` for :math:`K_{ji}`, which is sound and looser.

    Args:
        logits: shape (B, K).
        pairwise: speeds of logit differences, (K, K).
        eps: radius, pixel units.
        top_k: guarantees that count: any set of the 1 ... top_k largest logits may be the one that stays.
        affinity: sets of classes that may be mistaken for each other; if given, a set of the k largest logits counts
            only where it lies inside one of them, and k goes up to the largest set.

    Returns:
        shape (B,), with a gradient.

    Raises:
        HauberkError: if ``top_k`` is not below the number of classes, or the affinity sets are not made of all classes.

    Source: Leino et al. 2021 (bottom logit); Leino & Fredrikson 2021 (top-k and affinity).
    """
    classes = logits.shape[1]
    if not 1 <= top_k < classes:
        raise HauberkError(f"expected top_k in 1..{classes - 1}, got {top_k}", "the set of all classes never changes")
    if not affinity:
        return logits.amax(1) - margins(logits, pairwise, eps, top_k).amax(1)
    if set().union(*affinity) != set(range(classes)):
        raise HauberkError(
            f"the affinity sets must name each of the classes 0..{classes - 1} and no other class",
            "give a class that belongs to no other a set of its own, for example [7]",
        )
    most = min(max(len(set(members)) for members in affinity), classes - 1)
    kept = margins(logits, pairwise, eps, most).masked_fill(~inside(logits, affinity, most), -math.inf)
    return logits.amax(1) - kept.amax(1)


@dataclass(frozen=True, config=CONFIG)
class GloRo(Objective):
    r"""Cross-entropy with the bottom logit, or TRADES with it in the place of an attack.

    .. math:: \mathrm{CE}(z, y) + \lambda\,\mathrm{KL}\big([\mathrm{softmax}\,z,\,0] \,\|\,
              \mathrm{softmax}[z, z_\bot]\big)

    Both distributions have the same odds among the classes, so the divergence collapses to
    :math:`\mathrm{lse}[z, z_\bot] - \mathrm{lse}(z) = \mathrm{softplus}(z_\bot - \mathrm{lse}(z))`.  With
    :math:`\lambda = 1` the sum is :math:`\mathrm{CE}([z, z_\bot], y)`, the cross-entropy of GloRo networks; other
    weights are their TRADES loss.  Both numbers may be ramps, so that the task is learned before its margin is.

    On plain convolutional networks use ``lipschitz: walk``, since the method works through the norms of the layers.

    Args:
        eps: the radius to be robust at, pixel units.
        weight: :math:`\lambda`.
        top_k: also accept that the set of the k largest logits, k up to this, is robust (RtK).
        affinity: sets of classes that may be mistaken for each other; see ``bottom_logit``.
        lipschitz: bound of the layers before the last, a number or ``walk``; see ``training_pairwise``.

    Source: Leino et al. 2021; Leino & Fredrikson 2021 (top-k and affinity).
    """

    eps: Amount
    weight: Amount = 1.0
    top_k: Annotated[int, Field(ge=1)] = 1
    affinity: tuple[Classes, ...] = ()
    lipschitz: Lipschitz = 1.0

    def __post_init__(self) -> None:
        if self.affinity and self.top_k != 1:
            raise ValueError("give either top_k or affinity: the sets already say how many classes may be named")
        if not all(self.affinity):
            raise ValueError("an affinity set needs at least one class")

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; terms ``ce``, ``divergence``, ``accuracy``, ``robust_accuracy`` and ``speed``.

        ``robust_accuracy`` is the share of right images whose bottom logit is below the largest, by training's bound;
        ``speed`` is that bound, L.
        """
        logits, pairwise, speed = measure(model, batch.images, self.lipschitz, context)
        eps, weight = amount(self.eps, context.progress), amount(self.weight, context.progress)
        bottom = bottom_logit(logits, pairwise, eps, self.top_k, self.affinity)
        ce = functional.cross_entropy(logits, batch.labels)
        divergence = functional.softplus(bottom - logits.logsumexp(1)).mean()
        largest, predicted = logits.detach().max(1)
        terms = {
            "ce": ce.detach(),
            "divergence": divergence.detach(),
            "accuracy": accuracy(logits, batch.labels),
            "robust_accuracy": ((predicted == batch.labels) & (largest > bottom.detach())).float().mean(),
            "speed": speed.detach(),
        }
        return Loss(ce + weight * divergence, terms)
