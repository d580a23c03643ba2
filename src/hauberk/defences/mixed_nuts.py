"""MixedNUTS: the robust model's logits are mapped, so that it is confident where right, and mixed (Bai et al. 2024)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hauberk import registry
from hauberk.boundary import called
from hauberk.capabilities import HasParts, NamesItself
from hauberk.classifier import Traits, predictor_name
from hauberk.defences.mixed import mix_log_probabilities
from hauberk.errors import HauberkError
from hauberk.specs import Rows

ONE_HOT = 1e30  # a logit gap whose softmax is exactly 0 and 1
RAW_SHARE = 0.9  # of the surrogate's robust part, what is not bent


def normalise(logits: Tensor, top_k: int) -> Tensor:
    r"""Layer norm of each image's logits, :math:`(z - \mu_k) / \sqrt{v_k + 10^{-8}}`.

    Mean and variance (divisor k - 1) are those of the k largest logits.  Two numbers normalise to the same pair
    whatever their gap was, so two logits are centred only, :math:`z - \mu`.

    Args:
        logits: (B, K).
        top_k: k; at least 3 if there are more than two classes.

    Returns:
        float64, (B, K).

    Raises:
        HauberkError: if fewer than three logits of more than two are left to normalise by.
    """
    wide, kept = logits.double(), min(top_k, logits.shape[1])
    if logits.shape[1] == 2:
        return wide - wide.mean(1, keepdim=True)
    if kept < 3:
        raise HauberkError(
            f"expected at least 3 logits to normalise, got {kept}",
            "use a larger top_k: two numbers normalise to the same pair whatever their difference is",
        )
    top = wide.topk(kept, dim=1).values
    return (wide - top.mean(1, keepdim=True)) / (top.var(1, keepdim=True) + 1e-8).sqrt()


def sharpen(normalised: Tensor, scale: float, shift: float, power: float) -> Tensor:
    r""":math:`s\,\mathrm{sign}(a)\,|a|^p` with :math:`a = \mathrm{GELU}(z + c)`.

    GELU falls below -0.75, so an image whose largest normalised logit lies below -0.75 - c can change its class.  The
    search in ``hauberk.evaluation.nuts`` counts the classes of the mapped logits, so it takes that into account.

    Args:
        normalised: z, (B, K), from ``normalise``.
        scale: s.
        shift: c.
        power: p.
    """
    bent = functional.gelu(normalised + shift)
    return scale * bent.sign() * bent.abs().pow(power)


class _Mix(nn.Module):
    """Both bases' logits, stacked to (2, B, K), to the mix's log-probabilities (B, K)."""

    traits = Traits(gradient="none")

    def __init__(
        self, alpha: float, scale: float, shift: float, power: float, top_k: int, surrogate_alpha: float
    ) -> None:
        super().__init__()
        self.alpha, self.scale, self.shift, self.power = alpha, scale, shift, power
        self.top_k, self.surrogate_alpha = top_k, surrogate_alpha

    def forward(self, logits: Tensor) -> Tensor:
        accurate, robust = logits.double()
        winner = functional.one_hot(accurate.argmax(1), accurate.shape[1])
        sure = ONE_HOT * winner + 0.0 * accurate.detach()  # the product with 0 hands on NaN and infinity
        return mix_log_probabilities(sure, self._bent(robust), self.alpha).to(logits.dtype)

    def surrogate(self, logits: Tensor) -> Tensor:
        accurate, robust = logits.double()
        smooth = mix_log_probabilities(self._bent(robust), robust, RAW_SHARE)
        return mix_log_probabilities(accurate, smooth, self.surrogate_alpha).to(logits.dtype)

    def _bent(self, robust: Tensor) -> Tensor:
        return sharpen(normalise(robust, self.top_k), self.scale, self.shift, self.power)


class _Surrogate(nn.Module):
    """A classifier that an attack can follow, in place of the mix."""

    traits = Traits()

    def __init__(self, accurate: nn.Module, robust: nn.Module, mix: _Mix) -> None:
        super().__init__()
        self.accurate, self.robust = accurate, robust
        self._mix = mix.surrogate  # a bound method, so that the mix's own traits are not those of this module

    def forward(self, images: Tensor) -> Tensor:
        return self._mix(torch.stack([called(self.accurate, images), called(self.robust, images)]))


class MixedNuts(nn.Module, NamesItself, HasParts):
    r"""The accurate model's class, one-hot, mixed with the robust model's mapped logits.

    .. math::
        m_i = \log((1-\alpha)\,[i = \arg\max_j g_j] + \alpha\,\mathrm{softmax}(M(h))_i), \quad
        M(h) = s\,\mathrm{sign}(a)\,|a|^p, \quad a = \mathrm{GELU}(\mathrm{LN}_k(h) + c)

    computed in float64, with :math:`\mathrm{LN}_k` of two classes the centring alone (``normalise``).  Nothing is
    trained: ``hauberk.evaluation.nuts.nuts`` finds s, c, p and :math:`\alpha` from logits of validation images.

    One-hot outputs have no gradient, and steep maps have a vanishing one, so an attack that follows the mix itself
    meets masked gradients and overestimates its robustness.  The mix therefore declares ``gradient="none"``: attacks
    get exact values with the gradient of

    .. math::
        \log((1-\alpha')\,\mathrm{softmax}(g) + \alpha'(0.9\,\mathrm{softmax}(h) + 0.1\,\mathrm{softmax}(M(h))))

    Where the mix has a probability of exactly 1, cross-entropy at its exact values has no gradient to multiply that
    with: use the margin loss, or attack ``parts()["surrogate"]`` and try the points that were found on the mix.

    It is not a ``MixedClassifier``: certificates of the robust model's own logits do not hold for mapped logits.

    Args:
        accurate: the accurate model g.
        robust: the robust model h.
        alpha: weight of the robust model, strictly between 0 and 1.
        scale: s, positive.
        shift: c.
        power: p, at least 1; below, the map's slope at 0 is infinite.
        top_k: how many of the largest logits the layer norm is computed from, at least 3.
        surrogate_alpha: :math:`\alpha'`, strictly between 0 and 1; best the weight of the plain mix with the same
            guarantee.

    Raises:
        HauberkError: on a setting out of its range.

    Reference: Bai, Zhou, Patel & Sojoudi 2024 (MixedNUTS).
    """

    traits = Traits()

    def __init__(
        self, accurate: nn.Module, robust: nn.Module, alpha: float, scale: float, shift: float, power: float,
        top_k: int, surrogate_alpha: float,
    ) -> None:  # fmt: skip
        super().__init__()
        for name, weight in (("alpha", alpha), ("surrogate_alpha", surrogate_alpha)):
            if not 0.0 < weight < 1.0:
                raise HauberkError(
                    f"expected {name} strictly between 0 and 1, got {weight}", "at 0 and 1 only one model is used"
                )
        if not (0.0 < scale < math.inf and math.isfinite(shift) and 1.0 <= power < math.inf and top_k >= 3):
            raise HauberkError(
                f"expected scale > 0, a finite shift, power >= 1 and top_k >= 3, "
                f"got {scale}, {shift}, {power} and {top_k}",
                "hauberk.evaluation.nuts.nuts finds suitable values",
            )
        self.accurate, self.robust = accurate, robust
        self.mix = _Mix(alpha, scale, shift, power, top_k, surrogate_alpha)
        self.spec: dict[str, Any] = {}

    @property
    def alpha(self) -> float:
        """Weight of the robust model."""
        return self.mix.alpha

    @property
    def predictor(self) -> str:
        """How records call it; the surrogate does not decide, so it is not part of the name."""
        mix = self.mix
        settings = f"alpha={mix.alpha!r}, scale={mix.scale!r}, shift={mix.shift!r}, power={mix.power!r}"
        bases = f"{predictor_name(self.accurate)}, {predictor_name(self.robust)}"
        return f"mixed_nuts({settings}, top_k={mix.top_k!r}, {bases})"

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, C, H, W) to log-probabilities (B, K), of the bases' dtype."""
        logits: Tensor = self.mix(torch.stack([called(self.accurate, images), called(self.robust, images)]))
        return logits

    def train(self, mode: bool = True) -> MixedNuts:
        """The bases stay in eval mode: they are frozen."""
        super().train(mode)
        self.accurate.eval()
        self.robust.eval()
        return self

    def parts(self) -> dict[str, nn.Module]:
        """Classifiers on which an attack may search instead: ``accurate``, ``robust`` and ``surrogate``."""
        return {
            "accurate": self.accurate,
            "robust": self.robust,
            "surrogate": _Surrogate(self.accurate, self.robust, self.mix).eval(),
        }


def mixed_nuts(
    accurate: nn.Module,
    robust: nn.Module,
    alpha: float,
    scale: float,
    shift: float,
    power: float,
    top_k: Rows = 250,
    surrogate_alpha: float = 0.85,
) -> MixedNuts:
    """Build a MixedNUTS classifier.

    Args:
        accurate: a built model, or in a spec its description.
        robust: likewise.
        alpha: weight of the robust model, strictly between 0 and 1.
        scale: s, factor on the mapped logits.
        shift: c, what is added before the GELU.
        power: p, at least 1.
        top_k: how many of the largest logits the layer norm is computed from.
        surrogate_alpha: weight of the robust model in the surrogate that attacks follow.
    """
    model = MixedNuts(accurate, robust, alpha, scale, shift, power, top_k, surrogate_alpha)
    model.spec = {
        "name": "mixed_nuts", "accurate": registry.spec(accurate), "robust": registry.spec(robust), "alpha": alpha,
        "scale": scale, "shift": shift, "power": power, "top_k": top_k, "surrogate_alpha": surrogate_alpha,
    }  # fmt: skip
    return model
