"""The nearest-neighbour classifier: weak but robust, the direction oracle of locally biased smoothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from hauberk.boundary import check_images, check_labels
from hauberk.classifier import Traits
from hauberk.errors import HauberkError
from hauberk.specs import Rows, Width
from hauberk.threats import Norm, norms

SEARCHED = 4096  # references compared with the images at a time
POWER: dict[Norm, float] = {"l1": 1.0, "l2": 2.0, "linf": math.inf}


class NearestNeighbour(nn.Module):
    r"""The class of the nearest stored image; the logits are :math:`z_c = -\min_{i: y_i = c} \|x - x_i\|`.

    A logit moves by no more than the image does, so the class cannot change within half the gap between the two largest
    logits, in the norm of the distances.  Before ``remember`` all logits are NaN.

    Args:
        input_shape: (C, H, W).
        num_classes: K.
        count: how many images are stored; all of them are part of the weights.
        norm: of the distances.
    """

    traits = Traits()
    references: Tensor
    labels: Tensor

    def __init__(self, input_shape: Sequence[int], num_classes: int, count: int, norm: Norm) -> None:
        super().__init__()
        if norm not in POWER:
            raise HauberkError(f"there is no norm {norm!r}", ", ".join(POWER))
        if num_classes < 2 or count < num_classes:
            raise HauberkError(
                f"expected at least 2 classes with an image each, got {num_classes} classes and {count} images",
                "store images of every class",
            )
        self.num_classes, self.norm = num_classes, norm
        self.register_buffer("references", torch.full((count, *input_shape), math.nan))
        self.register_buffer("labels", torch.arange(count) % num_classes)
        self.spec: dict[str, Any] = {}

    def remember(self, images: Tensor, labels: Tensor) -> Self:
        """Store images (N, C, H, W) in [0, 1] with their labels (N,); training images, never test images.

        Raises:
            HauberkError: on other shapes or numbers of images or labels than given to the constructor, or a class
                without images.
        """
        if images.shape != self.references.shape:
            raise HauberkError(
                f"expected images of shape {tuple(self.references.shape)}, got {tuple(images.shape)}",
                "give count and input_shape of the images that are stored",
            )
        check_images(images)
        check_labels(labels, self.num_classes, len(images))
        missing = set(range(self.num_classes)) - set(torch.unique(labels).tolist())
        if missing:
            raise HauberkError(f"there is no image of class {min(missing)}", "store images of every class")
        self.references.copy_(images)
        self.labels.copy_(labels)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, C, H, W) to logits (B, K)."""
        change = (images[:, None] - self.references[self._nearest(images)]).flatten(2)
        if self.norm == "l2":  # the root has no derivative at 0, where an image is stored itself
            return -change.square().sum(2).clamp_min(torch.finfo(change.dtype).tiny).sqrt()
        return -norms(change.flatten(0, 1), self.norm).reshape(change.shape[:2])

    @torch.no_grad()
    def _nearest(self, images: Tensor) -> Tensor:
        """For each image and class the index of the nearest reference, (B, K)."""
        flat, power = images.flatten(1), POWER[self.norm]
        least = torch.full((len(flat), self.num_classes), math.inf, dtype=flat.dtype, device=flat.device)
        index = torch.zeros_like(least, dtype=torch.int64)
        for start in range(0, len(self.references), SEARCHED):
            part, labels = self.references[start : start + SEARCHED].flatten(1), self.labels[start : start + SEARCHED]
            # not by a matrix product: it cancels digits, and a row would depend on its place
            apart = torch.cdist(flat, part, p=power, compute_mode="donot_use_mm_for_euclid_dist")
            for c in torch.unique(labels).tolist():
                own = (labels == c).nonzero().flatten()
                value, place = apart[:, own].min(1)
                closer = value < least[:, c]
                least[:, c] = torch.where(closer, value, least[:, c])
                index[:, c] = torch.where(closer, start + own[place], index[:, c])
        return index


def nearest_neighbour(
    input_shape: Sequence[Width], num_classes: Width, count: Rows, norm: Norm = "l2"
) -> NearestNeighbour:
    """Build a nearest-neighbour classifier without images; ``remember`` or a state dictionary adds them.

    Args:
        input_shape: (C, H, W).
        num_classes: K.
        count: how many images will be stored.
        norm: of the distances, ``l1``, ``l2`` or ``linf``.
    """
    model = NearestNeighbour(input_shape, num_classes, count, norm)
    model.spec = {
        "name": "nearest_neighbour", "input_shape": list(input_shape), "num_classes": num_classes, "count": count,
        "norm": norm,
    }  # fmt: skip
    return model
