r"""How far the logits of a model as it is deployed are from the frozen predictor's, and what rounding explains of it.

The proof is about the frozen predictor.  The deployed model computes with the same numbers and rounds more.  With u the
unit roundoff of its dtype, and the sizes of sums that ``ExactForward`` follows,

.. math:: \varepsilon = \sqrt2\,u \sum_l \Big(\prod_{m > l} L_m\Big)\,\big(\|x_{l+1}\| + L_l\,\|x_l\| + s_l\big)

estimates how far rounding moves the difference of two logits: on ordinary networks at most a tenth of it is observed,
usually a hundredth.  If the distance is more than :math:`2\varepsilon`, the deployed model is taken to be another
function, and the certificate abstains. A smaller distance that is not negligible against the gap is subtracted from the
gap, so that the deployed model keeps its class too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.batch import Batch
from hauberk.certificates.gate import winners
from hauberk.certificates.rounding import SHARE, FrozenForward
from hauberk.classifier import logits_of

EXPLAINED = 2.0  # so many estimates may lie between the two
COUNTS = 1e-3  # from this share of the gap on, what rounding moves comes off the gap
_PROBES = 8  # images on which it is measured how much of the estimate is there
_ELSEWHERE = 4.0  # so many times what is seen there, or at the image, may be there at other points of the ball


@dataclass(frozen=True)
class Comparison:
    """The deployed model beside the frozen one, for B images.

    Args:
        classes: its decisions, (B,) int64; -1 for none, and where two logits are level.
        distance: the largest difference, over pairs of classes, between the two models' logit gaps, (B,) float64.
        explained: what rounding may explain of it, (B,) float64.
        lost: what is subtracted from the gaps because the deployed model rounds, (B,) float64; 0 where it is
            negligible.
    """

    classes: Tensor
    distance: Tensor
    explained: Tensor
    lost: Tensor


@torch.no_grad()
def compare(
    model: nn.Module, forward: FrozenForward, batch: Batch, tile: int, logits: Tensor, rounding: Tensor
) -> Comparison:
    """Compare a model with its frozen copy.

    Args:
        model: the deployed classifier.
        forward: of its frozen copy.
        batch: images.
        tile: rows of every call of the model.
        logits: of the frozen copy, (B, K) float64.
        rounding: what ``forward`` says with them, (B,) float64.
    """
    with parametrize.cached():
        own = logits_of(model, batch, tile)
        estimate = estimated(model, forward, own.dtype, rounding)
        share = _share(model, forward, batch.images)
    distance = apart(own, logits)
    top = logits.topk(min(2, logits.shape[1]), 1).values
    gap = top[:, 0] - top[:, -1]
    seen = torch.minimum(estimate, _ELSEWHERE * torch.maximum(share * estimate, distance))
    # numbers below the normal ones have few digits, or none
    noise = torch.where(gap > torch.finfo(own.dtype).tiny / COUNTS, seen, estimate)
    counted = ~(noise <= COUNTS * gap)
    return Comparison(winners(own), distance, EXPLAINED * estimate, torch.where(counted, noise, 0.0))


def apart(own: Tensor, logits: Tensor) -> Tensor:
    """The largest difference, over pairs of classes, between the logit gaps of two models, (B,)."""
    moved = own.double() - logits
    spread: Tensor = moved.amax(1) - moved.amin(1)
    return spread.nan_to_num(nan=torch.inf, posinf=torch.inf)


def estimated(model: nn.Module, forward: FrozenForward, computed: torch.dtype, rounding: Tensor) -> Tensor:
    """What rounding in the dtype of the model moves the difference of two logits by, up to a small factor."""
    found = {t.dtype for group in (model.parameters(), model.buffers()) for t in group if t.is_floating_point()}
    coarsest = max((torch.finfo(dtype) for dtype in found | {computed}), key=lambda info: info.eps)
    # a value, its square included, may vanish below the root of the smallest number
    vanishing = float(coarsest.tiny * coarsest.eps) ** 0.5
    estimate: Tensor = rounding * (0.5 * coarsest.eps / SHARE) + vanishing * forward.values
    return estimate


def _share(model: nn.Module, forward: FrozenForward, images: Tensor) -> float:
    """The largest share of the estimate that is there on some fixed random images: rounding at one may be lucky."""
    if forward.share is None:
        generator = torch.Generator().manual_seed(1)
        probes = torch.rand(_PROBES, *images.shape[1:], generator=generator, dtype=torch.float64).to(images)
        logits, rounding = forward(probes.double())
        own = model(probes)
        seen = apart(own, logits) / estimated(model, forward, own.dtype, rounding)
        forward.share = float(seen.nan_to_num(nan=1.0).max().clamp(0.0, 1.0))
    return forward.share
