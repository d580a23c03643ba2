"""A diffusion model of small images with dense layers, which needs no other package and trains in minutes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hauberk.capabilities import Traits
from hauberk.errors import HauberkError
from hauberk.models.building import check_task, with_spec
from hauberk.models.diffusion import DiffusionModel
from hauberk.specs import Depth, Width

EMBEDDED = 64  # numbers that a step becomes


class NoiseMLP(nn.Module):
    r"""Residual dense blocks over all pixels, each given the step and the class, called like a ``diffusers`` UNet.

    .. math:: h \leftarrow h + W_2\,\mathrm{silu}(W_1\,\mathrm{norm}(h) + V e), \qquad
              e = \mathrm{silu}(E(t)) + c_y

    with sines and cosines of the step in E.  The last layer begins at zero, so that training starts from no noise.

    Args:
        input_shape: of one image, (C, H, W).
        classes: K of a conditional model, else 0.
        width: units inside.
        depth: blocks.
    """

    traits = Traits()
    waves: Tensor

    def __init__(self, input_shape: Sequence[int], classes: int, width: int, depth: int) -> None:
        super().__init__()
        size = math.prod(input_shape)
        half = EMBEDDED // 2
        self.register_buffer("waves", torch.exp(-math.log(10_000.0) * torch.arange(half) / half), persistent=False)
        self.step = nn.Sequential(nn.Linear(EMBEDDED, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes, width) if classes else None
        self.first = nn.Linear(size, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(depth)])
        self.inner = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.told = nn.ModuleList([nn.Linear(width, width, bias=False) for _ in range(depth)])
        self.outer = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.last = nn.Linear(width, size)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(
        self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None, return_dict: bool = False
    ) -> tuple[Tensor]:
        """The predicted noise, (B, C, H, W), in a tuple."""
        if return_dict or (class_labels is None) != (self.label is None):
            raise HauberkError(
                "the network was not called in the way of a diffusion model", "call it through DiffusionModel"
            )
        angles = timestep[:, None].to(self.waves) * self.waves
        told = self.step(torch.cat([angles.sin(), angles.cos()], 1))
        if self.label is not None:
            told = told + self.label(class_labels)
        told = nn.functional.silu(told)
        hidden = self.first(sample.flatten(1))
        for norm, inner, embed, outer in zip(self.norms, self.inner, self.told, self.outer, strict=True):
            hidden = hidden + outer(nn.functional.silu(inner(norm(hidden)) + embed(told)))
        noise: Tensor = self.last(nn.functional.silu(hidden)).reshape(sample.shape)
        return (noise,)


def diffusion_mlp(
    input_shape: Sequence[Width], num_classes: Width, width: Width = 256, depth: Depth = 4, conditional: bool = True
) -> nn.Module:
    """Build an untrained diffusion model of small images, for ``objective: {name: diffusion}``.

    It predicts noise, on 1000 steps with betas evenly from 1e-4 to 0.02, of pixels in [-1, 1], as ``diffusion_unet``.

    Args:
        input_shape: of one image, (C, H, W), 1,024 values at most: dense layers do not use the neighbourhood of pixels.
        num_classes: K.
        width: units inside.
        depth: residual blocks.
        conditional: whether the network gets the class.

    Returns:
        a model that gives noise and no logits; ``spec`` holds this call.

    Raises:
        HauberkError: if the images are larger.
    """
    check_task(input_shape, num_classes, [0.0] * input_shape[0], [1.0] * input_shape[0])
    if math.prod(input_shape) > 1024:
        raise HauberkError(f"images of {tuple(input_shape)} are too large for dense layers", "use diffusion_unet")
    network = NoiseMLP(input_shape, num_classes if conditional else 0, width, depth)
    return with_spec(
        DiffusionModel(network, input_shape, num_classes, conditional), "diffusion_mlp", input_shape=input_shape,
        num_classes=num_classes, width=width, depth=depth, conditional=conditional,
    )  # fmt: skip
