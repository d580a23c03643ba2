"""Denoised smoothing: a denoiser before a classifier that was trained without noise (Salman et al. 2020)."""

from __future__ import annotations

import math
from typing import Any, Self

from torch import Tensor, nn

from hauberk import registry
from hauberk.capabilities import Decides, Denoises
from hauberk.classifier import Traits
from hauberk.errors import HauberkError
from hauberk.models.building import with_spec


class DenoisedClassifier(nn.Module):
    r"""A frozen classifier behind a denoiser, :math:`f(x) = c(D(x))`, which is to be smoothed.

    Smoothing votes over :math:`f(x + z) = c(D(x + z))`.  The denoiser is a part of f, and the certificate of randomised
    smoothing holds for every function f, so that nothing about denoiser or classifier enters the proof: a better
    denoiser makes radii larger, a worse one never makes them false.

    The classifier needs no gradient and stays in eval mode whatever the mode of the whole, so that only the denoiser is
    trained.

    Args:
        base: the classifier c, of which only the logits are used.
        denoiser: D, from (B, C, H, W) to the same shape.
        sigma: standard deviation of the noise that the denoiser is made for, in pixel units.

    Source: Salman et al. 2020 (Denoised smoothing), Section 3.
    """

    traits = Traits()

    def __init__(self, base: nn.Module, denoiser: nn.Module, sigma: float) -> None:
        super().__init__()
        if isinstance(base, Decides):
            raise HauberkError(
                f"{type(base).__name__} has a decision rule of its own, and only its logits would be used",
                "put the denoiser before the network inside it; smoothing then goes around both",
            )
        if not 0.0 < sigma < math.inf:
            raise HauberkError(f"expected a positive sigma, got {sigma}", "for example 0.25, in pixel units")
        self.base, self.denoiser, self.sigma = base, denoiser, sigma
        self.base.requires_grad_(False)
        self.train(self.training)
        self.spec: dict[str, Any] = {}

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the denoiser; the classifier stays in eval mode."""
        super().train(mode)
        self.base.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, C, H, W) to the classifier's logits at the denoised images, (B, K).

        Raises:
            HauberkError: if the denoiser changes the shape.
        """
        return self.judged(self.denoiser(images), images)

    def judged(self, clean: Tensor, images: Tensor) -> Tensor:
        """The classifier's logits at images that are denoised already, (B, K)."""
        if clean.shape != images.shape:
            raise HauberkError(
                f"the denoiser returns shape {tuple(clean.shape)} for images of shape {tuple(images.shape)}",
                "it must return images of the same shape",
            )
        logits: Tensor = self.base(clean)
        return logits


def check_sigma(model: nn.Module, sigma: float) -> None:
    """Raise if a model that is to be called on noisy images holds a denoiser made for another standard deviation.

    The votes would be valid, but they would be those of another classifier than intended.

    Args:
        model: what sees the noisy images.
        sigma: standard deviation of their noise.
    """
    for module in model.modules():
        if isinstance(module, DenoisedClassifier) and not math.isclose(module.sigma, sigma):
            raise HauberkError(
                f"the denoiser was made for noise of sigma {module.sigma:g}, but the smoothing has sigma {sigma:g}",
                f"smooth with sigma {module.sigma:g}, or set sigma: {sigma:g} in denoised if that noise is intended",
            )


def denoised(base: nn.Module, denoiser: nn.Module, sigma: float | None = None) -> nn.Module:
    """Build a classifier with a denoiser before it, to be trained by ``denoising`` or used as it is, and smoothed.

    Args:
        base: the classifier, a built model, or in a spec its description; it is frozen.
        denoiser: a network from images to images, such as ``dncnn``; of a model that holds a denoised classifier, such
            as a run of one, its denoiser is taken.
        sigma: standard deviation of the noise that the denoiser is made for; None takes it from the denoiser, where
            that comes from a run or a diffusion model.

    Raises:
        HauberkError: if the sigma is not known, not positive, or not that of a denoiser that is for one sigma only, or
            if the model holds several denoised classifiers.
    """
    held = [module for module in denoiser.modules() if isinstance(module, DenoisedClassifier)]
    if len(held) > 1:
        raise HauberkError(f"the model holds {len(held)} denoised classifiers", "give the run of one of them")
    known = held[0].sigma if held else None
    network = held[0].denoiser if held else denoiser
    if isinstance(network, Denoises):
        known = network.sigma
        if sigma is not None and not math.isclose(sigma, known):
            raise HauberkError(
                f"the denoiser was made for noise of sigma {known:g}, not for sigma {sigma:g}",
                "leave out sigma in denoised, or correct the sigma of the denoiser",
            )
    chosen = known if sigma is None else sigma
    if chosen is None:
        raise HauberkError(
            "the noise level of the denoiser is not known",
            "give the sigma that it was made for, for example sigma: 0.25",
        )
    return with_spec(
        DenoisedClassifier(base, network, chosen), "denoised", base=registry.spec(base),
        denoiser=registry.spec(network), sigma=chosen,
    )  # fmt: skip
