"""A model over fixed noisy copies of each image, which several methods for smoothed classifiers train through."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from hauberk.errors import HauberkError
from hauberk.noises import Noise
from hauberk.objectives.base import Context

Copies = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class NoisyCopies(nn.Module):
    r"""The soft smoothed classifier on fixed noise, :math:`\log \tfrac1m \sum_j \mathrm{softmax}(f(x + z_j))`.

    Args:
        model: f.
        draws: the noise of each image, (B, m, C, H, W).
        noise: its distribution.
    """

    def __init__(self, model: nn.Module, draws: Tensor, noise: Noise) -> None:
        super().__init__()
        self.model, self.draws, self.noise = model, draws, noise

    @classmethod
    def drawn(cls, model: nn.Module, images: Tensor, noise: Noise, copies: int, context: Context) -> NoisyCopies:
        """With fresh noise for a batch of training images."""
        draws = noise.sample(context.randomness(len(images)), copies, *images.shape[1:]).to(images)
        return cls(model, draws, noise)

    def logits(self, images: Tensor) -> Tensor:
        """Those of each copy, (B, m, K); the noisy images are not clipped, as the certificate's are not.

        Raises:
            HauberkError: on another number of rows, since the noise belongs to all rows.
        """
        if len(images) != len(self.draws):
            raise HauberkError(
                f"{len(self.draws)} images have noise here, but the attack gave {len(images)} of them",
                "use an attack that keeps all images to its end: pgd or apgd",
            )
        noisy = self.noise.added(images[:, None], self.draws)
        answers: Tensor = self.model(noisy.flatten(0, 1))
        return answers.view(*noisy.shape[:2], -1)

    def forward(self, images: Tensor) -> Tensor:
        """Log of the mean softmax, (B, K)."""
        return log_mean_softmax(self.logits(images))


def log_mean_softmax(logits: Tensor) -> Tensor:
    """The logarithm of the mean softmax over copies, (B, m, K) to (B, K)."""
    return logits.log_softmax(2).logsumexp(1) - math.log(logits.shape[1])
