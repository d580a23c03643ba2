"""Curvature regularisation (CURE): a penalty on the change of the loss gradient along one direction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from hauberk.batch import Batch
from hauberk.classifier import evaluating
from hauberk.objectives.base import Context, Loss, Objective
from hauberk.objectives.noisy_copies import Weight
from hauberk.objectives.ramp import Amount, Ramp, amount
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG

Direction = Literal["sign", "grad", "gaussian"]
Losses = Callable[[Tensor], Tensor]


def slopes(losses: Losses, images: Tensor) -> Tensor:
    """The gradient of each image's own loss, (B, C, H, W), that can be differentiated again.

    Args:
        losses: images (B, C, H, W) to one loss for each, (B,), which depends on no other image.
        images: where.
    """
    leaf = images.detach().requires_grad_(True)
    # of the sum: the gradient of a mean would carry 1/B, and the regulariser 1/B^2
    (gradient,) = torch.autograd.grad(losses(leaf).sum(), leaf, create_graph=True)
    return gradient


def directions(kind: Direction, gradient: Tensor, randomness: Randomness) -> Tensor:
    r"""Unit vectors z of each image, :math:`\|z\|_2 = 1`; zero where the gradient is.

    Args:
        kind: ``sign`` is :math:`\mathrm{sign}(g)`, ``grad`` is g, ``gaussian`` is N(0, I), each over its own length.
        gradient: g, (B, C, H, W).
        randomness: one draw for each row.
    """
    way = gradient.detach()
    if kind == "gaussian":
        way = randomness.normal(*gradient.shape[1:]).to(gradient)
    if kind == "sign":
        way = way.sign()
    return functional.normalize(way.flatten(1), dim=1, eps=torch.finfo(way.dtype).tiny).reshape(way.shape)


def bends(losses: Losses, images: Tensor, kind: Direction, h: float, randomness: Randomness) -> Tensor:
    r""":math:`\|\nabla\ell(x + hz) - \nabla\ell(x)\|_2^2` of each image, (B,): about :math:`h^2\|Hz\|_2^2`.

    H is the Hessian of the loss in the image; for a quadratic loss it is exactly that.
    Gradients flow through both slopes, and none through z.  The point x + hz may lie outside of the pixel box: it
    serves to measure the curvature of the loss and is not an attack.

    Args:
        losses: as for ``slopes``.
        images: x, (B, C, H, W).
        kind: of z, see ``directions``.
        h: length of the step, pixel units.
        randomness: one draw for each row.
    """
    here = slopes(losses, images)
    there = slopes(losses, images + h * directions(kind, here, randomness))
    return (there - here).flatten(1).square().sum(1)


@dataclass(frozen=True, config=CONFIG)
class Curvature(Objective):
    r""":math:`\lambda\,\|\nabla\ell(x + hz) - \nabla\ell(x)\|_2^2` for one unit vector z, a regulariser for ``terms``.

    With ``standard`` as the base it is CURE: no attack is made, a step costs about five times standard training, and a
    net that is already trained needs only few epochs.  It flattens the loss along one direction only.

    The lecture divides the gradient by the loss, so that its z has no unit length.  The released code takes the norm
    without its square, of gradients of a mean (so that its lambda depends on the batch size), and its h, up to 3, is in
    normalised units, about 0.6 here.  Both slopes are taken in eval mode, with the running statistics of batch norm.
    Train in float32: bfloat16 is too coarse for small differences of gradients.

    Args:
        weight: lambda.
        direction: ``sign`` (the paper), ``grad`` (what the lecture means) or ``gaussian`` (the lecture's other choice,
            one draw a step of an expectation).
        h: pixel units; a number or a ramp.

    Source: Moosavi-Dezfooli et al. 2019, Eq. 5.
    """

    weight: Weight = 4.0
    direction: Direction = "sign"
    h: Amount = Ramp(start=0.0, end=0.3, over=0.25)

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The regulariser of one batch; term ``curvature``, before its weight."""
        held = {name: value.clone() for name, value in model.named_buffers()}  # another part's pass may move them

        def losses(images: Tensor) -> Tensor:
            logits: Tensor = functional_call(model, held, (images,))
            return functional.cross_entropy(logits, batch.labels, reduction="none")

        h, randomness = amount(self.h, context.progress), context.randomness(len(batch))
        with evaluating(model):
            bend = bends(losses, batch.images, self.direction, h, randomness).mean()
        return Loss(self.weight * bend, {"curvature": bend.detach()})
