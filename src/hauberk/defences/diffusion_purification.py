"""Diffusion purification: noise is added, and a diffusion model removes it again step by step (Nie et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hauberk import registry
from hauberk.capabilities import Generates, Random, Traits
from hauberk.defences.purified import PurifiedClassifier
from hauberk.errors import HauberkError
from hauberk.models.building import with_spec
from hauberk.models.one_step_diffusion import falling_table, noise_in, unet_and_table
from hauberk.randomness import Draw
from hauberk.specs import Depth

Sampler = Literal["ddpm", "ddim", "ode"]


class DiffusionPurifier(Random):
    r"""Forward noising to the time t*, and the reverse steps of a diffusion model.

    With :math:`y_t = x_t / \sqrt{\bar\alpha_t}` on pixels in [-1, 1], the noise of step t is
    :math:`\sigma_t = \sqrt{(1-\bar\alpha_t)/\bar\alpha_t}` times the image, and the model's answer is
    :math:`e = \epsilon_\theta(\sqrt{\bar\alpha_t}\,y_t, t)`.  It starts at :math:`y = x + \sigma_{t^*} z`, and a step
    from t to s (at the end :math:`\sigma_s = 0`) is

    - ``ddim``: :math:`y_s = y_t + (\sigma_s - \sigma_t)\,e`, Euler's step of the probability flow;
    - ``ode``: Heun's step of it, with the mean of e at both ends; the last one is Euler's;
    - ``ddpm``: :math:`y_s = y_t - \sigma_t e + \sqrt{\sigma_s^2 - u^2}\,e + u z'`, :math:`u^2 = \sigma_s^2 (1 -
      \sigma_s^2/\sigma_t^2)`, the reverse process with its posterior variance.

    Each row has noise of its own.  Gradients are exact: each step is computed again in the backward pass, so that one
    step's activations are held at a time.  The result is not clipped to [0, 1].

    Args:
        unet: a diffusion model of ``hauberk.models``, or a network that is called as ``unet(images, t,
            return_dict=False)[0]`` and predicts the noise.
        alpha_bars: :math:`\bar\alpha_t` of each step, in (0, 1], falling; shape (T,).
        t_star: how far the image is noised, as a share of T.
        steps: reverse steps, as equal in t as whole numbers allow.
        sampler: ``ddpm``, ``ddim`` or ``ode``.
        checkpointed: whether steps are computed again in the backward pass.

    Source: Nie et al. 2022, Algorithm 1; Song et al. 2021 (DDIM), Eq. 12.
    """

    def __init__(
        self, unet: nn.Module, alpha_bars: Tensor, t_star: float, steps: int, sampler: Sampler,
        checkpointed: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        table = falling_table(alpha_bars)
        last = round(t_star * len(table)) - 1
        if not (0.0 < t_star <= 1.0 and last >= 0 and 1 <= steps <= last + 1):
            raise HauberkError(
                f"expected t_star in (0, 1] and 1 to {max(last + 1, 1)} steps, got {t_star} and {steps}",
                "for example, a diffusion model of 1,000 steps allows up to 100 steps for t_star 0.1",
            )
        self.times = torch.linspace(last, 0, steps).round().long().tolist() if steps > 1 else [last]
        self.sigmas = [float(((1.0 - table[t]) / table[t]).sqrt()) for t in self.times] + [0.0]
        self.unet, self.sampler, self.checkpointed = unet, sampler, checkpointed

    def draw(self, key: Draw) -> nn.Module:
        """Noising and reverse steps with the noise of one draw."""
        return Purified(self, key)

    def seen(self, images: Tensor, t: int) -> Tensor:
        """The noise that the model sees in images (B, C, H, W) at step t."""
        if not isinstance(self.unet, Generates):
            return noise_in(self.unet, images, t)
        noise: Tensor = self.unet(images, torch.full((len(images),), t, device=images.device))
        return noise

    def step(self, noisy: Tensor, nth: int, noise: Tensor | None) -> Tensor:
        """The n-th step back, on y, (B, C, H, W)."""
        now, then = self.sigmas[nth], self.sigmas[nth + 1]
        slope = self.seen(noisy / math.sqrt(1.0 + now**2), self.times[nth])
        if noise is not None:
            fresh = then * math.sqrt(1.0 - then**2 / now**2)
            return noisy - now * slope + math.sqrt(then**2 - fresh**2) * slope + fresh * noise
        there = noisy + (then - now) * slope
        if self.sampler == "ddim" or then == 0.0:
            return there
        other = self.seen(there / math.sqrt(1.0 + then**2), self.times[nth + 1])
        return noisy + (then - now) * (slope + other) / 2.0


class Purified(nn.Module):
    """One draw of a diffusion purifier.

    Args:
        purifier: whose steps they are.
        key: of the draw.
    """

    traits = Traits()

    def __init__(self, purifier: DiffusionPurifier, key: Draw) -> None:
        super().__init__()
        self._purifier, self.key = (purifier,), key  # no module of this one's own: it would be drawn again
        self.unet = purifier.unet

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] to purified ones of the same shape."""
        (purifier,) = self._purifier
        noisy = 2.0 * images - 1.0 + purifier.sigmas[0] * self._noise("forward", images)
        for nth in range(len(purifier.times)):
            more = purifier.sampler == "ddpm" and nth + 1 < len(purifier.times)
            noise = self._noise(f"step {nth}", images) if more else None
            if purifier.checkpointed and torch.is_grad_enabled():
                noisy = checkpoint(purifier.step, noisy, nth, noise, use_reentrant=False, preserve_rng_state=False)
            else:
                noisy = purifier.step(noisy, nth, noise)
        return (noisy + 1.0) / 2.0

    def _noise(self, name: str, images: Tensor) -> Tensor:
        return self.key.child(name).rows(images).normal(*images.shape[1:]).to(images)


def diffusion_purification(
    base: nn.Module,
    diffusion: nn.Module | None = None,
    folder: str | None = None,
    unet: Mapping[str, Any] | None = None,
    scheduler: Mapping[str, Any] | None = None,
    t_star: Annotated[float, Field(gt=0, le=1)] = 0.1,
    steps: Depth = 10,
    sampler: Sampler = "ddpm",
) -> nn.Module:
    """Build a classifier behind diffusion purification, with a model of one's own or a ``diffusers`` UNet.

    Args:
        base: a built model, or in a spec its description.
        diffusion: an unconditional diffusion model, such as a run of ``diffusion_unet``.
        folder: instead of ``diffusion``, the folder of a UNet with its weights, see ``one_step_diffusion``.
        unet: settings of an untrained ``UNet2DModel``, in the place of a folder.
        scheduler: settings of its schedule.
        t_star: how far images are noised, as a share of the schedule; 0.1 is the paper's for Linf 8/255 on CIFAR-10.
        steps: reverse steps; the paper takes 1,000 t_star of them.
        sampler: ``ddpm`` (with noise), ``ddim`` or ``ode`` (Heun, two calls a step).

    Returns:
        a classifier whose noise is taken by key; ``spec`` holds this call without the folder.

    Raises:
        HauberkError: if diffusers is not installed, the folder is incomplete, the UNet does not predict noise, or
            there are more steps than the schedule has up to t_star.
    """
    network, table, told = _own(diffusion) if diffusion is not None else unet_and_table(folder, unet, scheduler)
    if diffusion is not None and (folder is not None or unet is not None or scheduler is not None):
        raise HauberkError(
            "expected either a diffusion model or the folder or settings of a UNet, got both", "leave one of them out"
        )
    purifier = DiffusionPurifier(network, table, t_star, steps, sampler)
    model = PurifiedClassifier(base, purifier.train(base.training)).train(base.training)
    return with_spec(
        model, "diffusion_purification", base=registry.spec(base), **told, t_star=t_star, steps=steps, sampler=sampler
    )


def _own(model: nn.Module) -> tuple[nn.Module, Tensor, dict[str, Any]]:
    if not isinstance(model, Generates) or model.conditional:
        raise HauberkError(
            f"{type(model).__name__} is not an unconditional diffusion model", "train one with conditional: false"
        )
    return model, model.alpha_bars, {"diffusion": registry.spec(model)}
