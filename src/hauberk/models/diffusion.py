"""A diffusion model: a UNet that predicts the noise of noisy images, to be trained and sampled (Ho et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hauberk.capabilities import Generates, Traits
from hauberk.errors import HauberkError
from hauberk.models.building import check_task, with_spec
from hauberk.models.one_step_diffusion import diffusers
from hauberk.specs import Depth, Width

STEPS, FIRST, LAST = 1000, 1e-4, 0.02  # Ho et al. 2020, Section 4
Noise = Callable[[int], Tensor]


def linear_schedule(steps: int = STEPS) -> Tensor:
    r""":math:`\bar\alpha_t = \prod_{s \le t} (1 - \beta_s)` for betas evenly from 1e-4 to 0.02, float64, shape (T,)."""
    betas = torch.linspace(FIRST, LAST, steps, dtype=torch.float64)  # on the CPU: a table before training
    return (1.0 - betas).cumprod(0)


class DiffusionModel(nn.Module, Generates):
    r"""The noise that a network finds in :math:`\sqrt{\bar\alpha_t}\,u + \sqrt{1-\bar\alpha_t}\,\epsilon`, u = 2x - 1.

    Args:
        unet: called as ``unet(noisy, t, return_dict=False)[0]``, of a conditional one with ``class_labels`` too.
        input_shape: of one image, (C, H, W).
        num_classes: K.
        conditional: whether the network is told the class.
        alpha_bars: :math:`\bar\alpha_t`, shape (T,), falling.

    Source: Ho et al. 2020, Section 3.
    """

    traits = Traits()
    alpha_bars: Tensor

    def __init__(
        self, unet: nn.Module, input_shape: Sequence[int], num_classes: int, conditional: bool,
        alpha_bars: Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.unet, self.conditional = unet, conditional
        self.input_shape, self.num_classes = (input_shape[0], input_shape[1], input_shape[2]), num_classes
        # no weights: the schedule follows from the spec
        self.register_buffer("alpha_bars", linear_schedule() if alpha_bars is None else alpha_bars, persistent=False)

    def forward(self, noisy: Tensor, steps: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """The predicted noise, shape (B, C, H, W).

        Args:
            noisy: images around [-1, 1] with noise, (B, C, H, W).
            steps: t of each, int64, shape (B,).
            labels: the class of each image, int64, shape (B,), needed by a conditional model and not used by others.

        Raises:
            HauberkError: without steps: the model is not a classifier.
        """
        if steps is None:
            raise HauberkError(
                "a diffusion model has no logits",
                "train it with objective: {name: diffusion} and validate_every: 0, and draw samples with: hauberk "
                "generate RUN",
            )
        told = {"class_labels": labels} if self.conditional else {}
        noise: Tensor = self.unet(noisy, steps, return_dict=False, **told)[0]
        return noise

    @torch.no_grad()
    def sample(
        self, start: Tensor, labels: Tensor | None, steps: int, eta: float = 0.0, noise: Noise | None = None
    ) -> Tensor:
        r"""Images from noise by DDIM, pixels in [0, 1], shape (B, C, H, W).

        .. math:: x_s = \sqrt{a_s}\,\hat u + \sqrt{1-a_s-\sigma^2}\,\hat\epsilon + \sigma z, \qquad
                  \hat u = \mathrm{clip}_{[-1,1]}\frac{x_t - \sqrt{1-a_t}\,\epsilon_\theta}{\sqrt{a_t}}, \qquad
                  \sigma = \eta\sqrt{\frac{1-a_s}{1-a_t}\Big(1-\frac{a_t}{a_s}\Big)}

        with :math:`a = \bar\alpha`, where :math:`\hat\epsilon` is the noise that belongs to :math:`\hat u`, and
        :math:`a_s = 1` at the end.

        Args:
            start: standard normal numbers, (B, C, H, W).
            labels: classes, shape (B,), of a conditional model.
            steps: how many of the T steps are gone, evenly spread, the last one first.
            eta: 0 is deterministic, 1 is ancestral sampling.
            noise: standard normal numbers of the shape of ``start`` for a step t; only called with ``eta`` above 0.

        Source: Song et al. 2021 (DDIM), Eq. 12 and 16.
        """
        times = spread(steps, len(self.alpha_bars))
        table = self.alpha_bars.tolist()
        points = start
        for place in reversed(range(steps)):
            t, now = times[place], table[times[place]]
            before = table[times[place - 1]] if place else 1.0
            found = self(points, torch.full((len(start),), t, device=start.device), labels)
            clean = ((points - math.sqrt(1.0 - now) * found) / math.sqrt(now)).clamp(-1.0, 1.0)
            found = (points - math.sqrt(now) * clean) / math.sqrt(1.0 - now)
            sigma = eta * math.sqrt((1.0 - before) / (1.0 - now) * (1.0 - now / before))
            points = math.sqrt(before) * clean + math.sqrt(max(0.0, 1.0 - before - sigma**2)) * found
            if sigma > 0.0 and noise is not None:
                points = points + sigma * noise(t)
        return ((points + 1.0) / 2.0).clamp(0.0, 1.0)


def spread(steps: int, of: int) -> list[int]:
    """A number of the steps 0..T-1, evenly spread and rising; the last is T-1.

    Raises:
        HauberkError: if there are fewer than so many.
    """
    if not 1 <= steps <= of:
        raise HauberkError(f"expected 1 to {of} steps, got {steps}", "50 steps are usual")
    return [(i + 1) * of // steps - 1 for i in range(steps)]


def diffusion_unet(
    input_shape: Sequence[Width],
    num_classes: Width,
    widths: Sequence[Width] = (32, 64),
    layers: Depth = 2,
    groups: Width = 8,
    attention: bool = True,
    conditional: bool = True,
) -> nn.Module:
    """Build an untrained diffusion model around a ``diffusers`` UNet, for ``objective: {name: diffusion}``.

    It predicts noise, on 1000 steps with betas evenly from 1e-4 to 0.02, of pixels in [-1, 1].

    Args:
        input_shape: of one image, (C, H, W); the sides are multiples of 2 to the number of widths less one.
        num_classes: K.
        widths: channels of each level; between two levels the side is halved.
        layers: residual blocks of a level.
        groups: of the group norms, a divisor of each width.
        attention: whether the lowest level has self-attention.
        conditional: whether the network gets the class, by an embedding that is added to that of the step.

    Returns:
        a model that gives noise and no logits; ``spec`` holds this call.

    Raises:
        HauberkError: if diffusers is not installed, or the arguments do not fit each other.

    Source: Ho et al. 2020, Section 4 and Appendix B.
    """
    check_task(input_shape, num_classes, [0.0] * input_shape[0], [1.0] * input_shape[0])
    halved = 2 ** max(0, len(widths) - 1)
    if not widths or any(side % halved for side in input_shape[1:]) or any(w % groups for w in widths):
        raise HauberkError(
            f"widths {tuple(widths)} in {groups} groups do not fit images of {tuple(input_shape[1:])} pixels",
            f"the sides must be multiples of {halved}, and the widths multiples of the number of groups",
        )
    down = ["DownBlock2D"] * len(widths)
    up = ["UpBlock2D"] * len(widths)
    if attention:
        down[-1], up[0] = "AttnDownBlock2D", "AttnUpBlock2D"
    unet: nn.Module = diffusers().UNet2DModel(
        sample_size=tuple(input_shape[1:]), in_channels=input_shape[0], out_channels=input_shape[0],
        layers_per_block=layers, block_out_channels=tuple(widths), norm_num_groups=groups, add_attention=attention,
        attention_head_dim=groups, down_block_types=tuple(down), up_block_types=tuple(up),
        num_class_embeds=num_classes if conditional else None,
    )  # fmt: skip
    return with_spec(
        DiffusionModel(unet, input_shape, num_classes, conditional), "diffusion_unet", input_shape=input_shape,
        num_classes=num_classes, widths=widths, layers=layers, groups=groups, attention=attention,
        conditional=conditional,
    )  # fmt: skip
