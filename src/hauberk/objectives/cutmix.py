"""CutMix around any objective: a box of each image comes from another image, and its label gets a share of the loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, NamedTuple

import torch
from pydantic import Field, InstanceOf
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hauberk.batch import Batch
from hauberk.errors import HauberkError
from hauberk.objectives.base import Context, Loss, Objective
from hauberk.threats import CONFIG


class Box(NamedTuple):
    """A rectangle of pixels: rows ``top`` to ``bottom``, columns ``left`` to ``right``, the ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def pixels(self) -> int:
        """How many pixels it has."""
        return (self.bottom - self.top) * (self.right - self.left)

    def pasted(self, images: Tensor, others: Tensor) -> Tensor:
        """The images with the others' pixels inside the box, a new tensor, (B, C, H, W)."""
        found = images.clone()
        rows, columns = slice(self.top, self.bottom), slice(self.left, self.right)
        found[:, :, rows, columns] = others[:, :, rows, columns]
        return found


def random_box(height: int, width: int, window: int | None, generator: torch.Generator) -> Box:
    r"""A box around a uniform pixel, cut off at the border.

    Its sides are :math:`\sqrt{a}\,H` and :math:`\sqrt{a}\,W` with a uniform in [0, 1] (the share of the paper, with its
    alpha = 1), or ``window`` pixels each.

    Args:
        height: H.
        width: W.
        window: side in pixels; None draws the area.
        generator: where the numbers come from.
    """
    area, y, x = torch.rand(3, generator=generator, device=generator.device).tolist()
    tall, wide = (window, window) if window else (int(height * area**0.5), int(width * area**0.5))
    top, left = int(y * height) - tall // 2, int(x * width) - wide // 2
    return Box(max(top, 0), min(top + tall, height), max(left, 0), min(left + wide, width))


@dataclass(frozen=True, config=CONFIG)
class CutMix(Objective):
    r"""An objective on mixed images, :math:`\lambda\,L(\tilde x, y) + (1 - \lambda)\,L(\tilde x, y')`.

    Each image gets a box of pixels of its partner, another image of the whole batch, the same box for all;
    :math:`\lambda` is the share of pixels that it keeps.  A loss that is linear in a distribution of labels, such as
    cross-entropy, is the one of the mixed labels.  So every objective can be the base, and no other part has to handle
    mixed labels.  Further views of the batch are mixed with the same box and partners.

    The base is computed once for each of the two labels.  An attack that does not look at labels (``loss: kl``, as in
    ``trades``) and every pass on the same images is shared between them; any other attack is made for each label, which
    doubles the cost and bounds the attack on the mixed label from above.  With ``trades`` as the base and ``training:
    {ema: ...}`` it is the augmentation of Rebuffi et al. 2021.

    Args:
        base: the objective; one that keeps memory of samples is refused.
        window: side of the box in pixels; None draws its area uniformly.

    Source: Yun et al. 2019, Eq. 1-2; Rebuffi et al. 2021.
    """

    base: InstanceOf[Objective]
    window: Annotated[int, Field(ge=1)] | None = None

    def __post_init__(self) -> None:
        if self.base.replays > 1:
            raise ValueError("cutmix cannot contain a base that takes several steps on each batch")

    def outside(self) -> str:
        """What the base depends on beside its fields."""
        return self.base.outside()

    def __call__(self, model: nn.Module, batch: Batch, context: Context) -> Loss:
        """The loss of one batch; the base's terms, weighted as their losses are, and ``kept``, which is lambda."""
        _, height, width = batch.image_shape
        box = random_box(height, width, self.window, context.generator)
        labels = context.whole(batch.labels)
        order = torch.randperm(len(labels), generator=context.generator, device=context.generator.device)
        partners = order.to(labels.device)[context.offset : context.offset + len(batch)]

        def mixed(images: Tensor) -> Tensor:
            return box.pasted(images, context.whole(images)[partners])

        augment = None if context.augment is None else lambda: mixed(context.view())
        sharing = replace(context, augment=augment, state={}, shared={})
        images = mixed(batch.images)
        own, others = (
            self.base(model, Batch(images, y, batch.ids), sharing) for y in (batch.labels, labels[partners])
        )
        if sharing.state:
            raise HauberkError(
                f"{type(self.base).__name__} remembers samples, and a mixed image belongs to two samples",
                "train it without cutmix",
            )
        kept = 1.0 - box.pixels / (height * width)
        terms = {name: kept * own.terms[name] + (1.0 - kept) * others.terms[name] for name in own.terms}
        terms["kept"] = torch.tensor(kept, device=images.device)
        return Loss(kept * own.total + (1.0 - kept) * others.total, terms)
