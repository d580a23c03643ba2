"""The mixed classifier: probabilities of an accurate and a robust model, mixed (Bai et al. 2024, Eq. 5)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from hauberk import registry
from hauberk.capabilities import HasParts, NamesItself
from hauberk.classifier import Traits, predictor_name
from hauberk.errors import HauberkError


def mix_log_probabilities(accurate: Tensor, robust: Tensor, alpha: float) -> Tensor:
    r"""Eq. 5 in a form that neither underflows nor loses gradients.

    .. math:: m_i = \log((1-\alpha)\,\mathrm{softmax}(g)_i + \alpha\,\mathrm{softmax}(h)_i)

    computed as ``logaddexp(log(1-alpha) + log_softmax(g), log(alpha) + log_softmax(h))``.

    Args:
        accurate: logits g of the accurate model, (B, K).
        robust: logits h of the robust model, (B, K).
        alpha: weight of the robust model, strictly between 0 and 1.

    Returns:
        log-probabilities, (B, K).
    """
    return torch.logaddexp(
        math.log1p(-alpha) + accurate.log_softmax(1), math.log(alpha) + robust.log_softmax(1)
    )


def opinion(logits: Tensor) -> Tensor:
    """The accurate model's logits, and zeros where one of them is NaN or infinite: then the robust model decides.

    Lemma 3.2 of Bai et al. 2024 allows any finite logits of the accurate model.
    """
    return torch.where(logits.isfinite().all(1, keepdim=True), logits, 0.0)


class Scaled(nn.Module):
    """A classifier with its logits times a factor.

    Args:
        base: the classifier.
        scale: the factor.
    """

    traits = Traits()

    def __init__(self, base: nn.Module, scale: float) -> None:
        super().__init__()
        self.base, self.scale = base, scale
        self.training = base.training

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, C, H, W) to logits (B, K)."""
        logits: Tensor = self.base(images)
        return self.scale * logits


class MixedClassifier(nn.Module, NamesItself, HasParts):
    """Two frozen classifiers mixed with a fixed weight; the output is log-probabilities, which serve as logits.

    Args:
        accurate: the accurate model g.
        robust: the robust model h.
        alpha: weight of the robust model in [0, 1]; 0 and 1 are the bases themselves, and the other is not run.
        accurate_scale: factor on g's logits before the softmax.
        robust_scale: factor on h's logits before the softmax.
    """

    traits = Traits()

    def __init__(
        self, accurate: nn.Module, robust: nn.Module, alpha: float, accurate_scale: float, robust_scale: float
    ) -> None:
        super().__init__()
        if not 0.0 <= alpha <= 1.0:
            raise HauberkError(f"expected alpha in [0, 1], got {alpha}", "alpha is the weight of the robust model")
        if not (0.0 < accurate_scale < math.inf and 0.0 < robust_scale < math.inf):
            raise HauberkError(
                f"expected positive scales, got {accurate_scale} and {robust_scale}",
                "a scale multiplies the logits: 0 would ignore the model, a negative scale would reverse its order",
            )
        self.accurate, self.robust, self.alpha = accurate, robust, alpha
        self.accurate_scale, self.robust_scale = accurate_scale, robust_scale
        self.spec: dict[str, Any] = {}

    @property
    def predictor(self) -> str:
        """How records call it."""
        scales = f", scales={self.accurate_scale!r}/{self.robust_scale!r}"
        if self.accurate_scale == self.robust_scale == 1.0:
            scales = ""
        return (
            f"mixed(alpha={self.alpha!r}{scales}, {predictor_name(self.accurate)}, {predictor_name(self.robust)})"
        )

    @property
    def least_alpha(self) -> float:
        """The smallest weight that the robust model can have, whatever the image; certificates read it."""
        return self.alpha

    def parts(self) -> dict[str, nn.Module]:
        """Classifiers on which an attack may search instead of the mix, see ``hauberk.attacks.part``.

        Returns:
            ``accurate`` and ``robust``: the bases with their scaled logits.
        """
        return {
            "accurate": Scaled(self.accurate, self.accurate_scale), "robust": Scaled(self.robust, self.robust_scale),
        }  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, C, H, W) to log-probabilities (B, K)."""
        if self.alpha == 0.0:
            return self._accurate(images).log_softmax(1)
        if self.alpha == 1.0:
            return self._robust(images).log_softmax(1)
        return mix_log_probabilities(self._accurate(images), self._robust(images), self.alpha)

    def _accurate(self, images: Tensor) -> Tensor:
        return opinion(self.accurate_scale * self.accurate(images.clone()))  # a copy: it may work in place

    def _robust(self, images: Tensor) -> Tensor:
        logits: Tensor = self.robust(images.clone())
        return self.robust_scale * logits


def mixed(
    accurate: nn.Module,
    robust: nn.Module,
    alpha: float,
    accurate_scale: float = 1.0,
    robust_scale: float = 1.0,
) -> MixedClassifier:
    """Build a mixed classifier.

    Args:
        accurate: a built model, or in a spec its description.
        robust: likewise.
        alpha: weight of the robust model in [0, 1].
        accurate_scale: factor on the accurate model's logits.
        robust_scale: factor on the robust model's logits.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from hauberk.batch import Batch
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).eval()
        >>> _ = net[1].weight.data.copy_(torch.tensor([[1.0, -1, 0, 0], [-1, 1, 0, 0]]))  # is pixel 0 brighter?
        >>> batch = Batch(torch.tensor([0.6, 0.5, 0, 0]).reshape(1, 1, 2, 2), torch.tensor([0]), torch.tensor([0]))
        >>> net.spec = {"name": "a linear net"}
        >>> from hauberk.defences import mixed
        >>> model = mixed(net, net, alpha=0.5).eval()
        >>> torch.allclose(model(batch.images).exp(), net(batch.images).softmax(1))
        True
    """
    model = MixedClassifier(accurate, robust, alpha, accurate_scale, robust_scale)
    model.spec = {
        "name": "mixed", "accurate": registry.spec(accurate), "robust": registry.spec(robust), "alpha": alpha,
        "accurate_scale": accurate_scale, "robust_scale": robust_scale,
    }  # fmt: skip
    return model
