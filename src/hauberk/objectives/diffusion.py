"""Training a diffusion model to predict the noise in noisy images (Ho et al. 2020)."""

from __future__ import annotations

from pydantic.dataclasses import dataclass
from torch import nn

from hauberk.batch import Batch
from hauberk.capabilities import Generates
from hauberk.errors import HauberkError
from hauberk.objectives.base import Context, Loss, Objective
from hauberk.threats import CONFIG


@dataclass(frozen=True, config=CONFIG)
class Diffusion(Objective):
    r"""Squared error of the predicted noise, the mean over pixels, at a step drawn for each image.

    .. math:: \tfrac1d\,\big\|\epsilon_\theta(\sqrt{\bar\alpha_t}\,u + \sqrt{1-\bar\alpha_t}\,\epsilon,\ t,\ y)
              - \epsilon\big\|_2^2, \qquad u = 2x - 1, \quad t \sim U\{0, \dots, T-1\}, \quad \epsilon \sim N(0, I)

    Only a conditional model gets the label y. Set ``validate_every: 0``, since a diffusion model has no accuracy;
    ``ema`` improves the result.

    Source: Ho et al. 2020, Eq. 14 (``L_simple``) and Algorithm 1.
    """

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; its term is ``mse``."""
        if not isinstance(model, Generates):
            raise HauberkError(
                f"expected a diffusion model, got {type(model).__name__}",
                "build it with name: diffusion_unet, and train in float32",
            )
        rows, count = context.randomness(len(batch)), len(model.alpha_bars)
        steps = (rows.uniform() * count).long().clamp(max=count - 1)
        noise = rows.normal(*batch.images.shape[1:]).to(batch.images)
        kept = model.alpha_bars[steps].to(batch.images)[:, None, None, None]
        noisy = kept.sqrt() * (2.0 * batch.images - 1.0) + (1.0 - kept).sqrt() * noise
        errors = (model(noisy, steps, batch.labels) - noise).square().flatten(1).mean(1)
        return Loss(errors.mean(), {"mse": errors.detach().mean()})
