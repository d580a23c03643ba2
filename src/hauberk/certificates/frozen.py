"""The frozen predictor, which is the function that Lipschitz certificates prove, and its bulk certification.

The bound is computed once; then each image costs its forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hauberk.certificates.gate import check_walked
from hauberk.certificates.lipschitz import reach
from hauberk.certificates.rounding import exact_forward
from hauberk.classifier import ABSTAIN, TILE, check_eval, check_images
from hauberk.threats import Norm


def lipschitz_radii(logits: Tensor, pairwise: Tensor, rounding: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""Classes and radii of many rows at once, as ``LipschitzCertificate`` has them one by one.

    .. math:: R = \min_{j \ne y} (z_y - z_j) / K_{yj}

    Args:
        logits: float64, shape (B, K).
        pairwise: float64, shape (K, K).
        rounding: what a gap must exceed, shape (B,); none by default.

    Returns:
        classes (B,) int64, -1 where a logit is not finite; radii (B,) float64, rounded down, 0 for ties and where
        nothing is proved.
    """
    top = logits.argmax(1)
    best, speeds = logits.gather(1, top[:, None]), pairwise[top]
    gaps = best - logits - (0.0 if rounding is None else rounding[:, None])
    rival = torch.ones_like(gaps, dtype=torch.bool).scatter_(1, top[:, None], False)
    distances = torch.from_numpy(reach(gaps.numpy(force=True), speeds.numpy(force=True))).to(gaps.device)
    radius = torch.where(rival, distances, math.inf).amin(1)
    finite = logits.isfinite().all(1)
    known = finite & radius.isfinite() & (radius > 0.0)
    lowered = torch.nextafter(radius * (1.0 - 1e-12), torch.zeros_like(radius))
    return torch.where(finite, top, ABSTAIN), torch.where(known, lowered, 0.0)


def freeze(model: nn.Module, input_shape: Sequence[int]) -> nn.Sequential:
    """The predictor that a Lipschitz certificate of the model certifies, as a separate classifier.

    Its numbers are those that the model computes with in its own dtype, computed once (``layers.freezing``), and it
    evaluates them in float64.  It takes images of any floating dtype, has an ordinary ``state_dict`` without
    parametrisations, and can be certified, attacked and saved like every classifier.

    Args:
        model: a classifier in eval mode; it is copied.
        input_shape: shape of one image, (C, H, W).

    Returns:
        from (B, C, H, W) to float64 logits (B, K).

    Raises:
        HauberkError: if the walk refuses the model, it decides otherwise than by logits, or has half precision.
    """
    check_eval(model)
    check_walked(model)
    return exact_forward(model, input_shape)[1].predictor


class FrozenLipschitz:
    """Bulk certification of the frozen predictor of a model, of which the bound is computed once.

    It does not look at the decisions of the model in its own precision, which ``LipschitzCertificate`` does;
    evaluations and records use that one.

    Args:
        model: a classifier in eval mode; it is copied.
        input_shape: shape of one image, (C, H, W).
        norm: in which images move.

    Raises:
        HauberkError: if the walk refuses the model, it decides otherwise than by logits, or has half precision.
    """

    def __init__(self, model: nn.Module, input_shape: Sequence[int], norm: Norm = "l2") -> None:
        check_eval(model)
        check_walked(model)
        bounds, self.forward = exact_forward(model, input_shape)
        self.model = self.forward.predictor
        self.pairwise = bounds.pairwise(norm)
        self.norm = norm

    @torch.no_grad()
    def __call__(self, images: Tensor, tile: int = TILE) -> tuple[Tensor, Tensor]:
        """Classes (B,) and radii (B,) of images of shape (B, C, H, W) in [0, 1]; see ``lipschitz_radii``."""
        check_images(images)
        parts = [self.forward(part.double()) for part in torch.split(images, tile)]
        logits, rounding = (torch.cat(column) for column in zip(*parts, strict=True))
        return lipschitz_radii(logits, self.pairwise, rounding)
