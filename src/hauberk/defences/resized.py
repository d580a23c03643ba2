"""A classifier of another resolution behind a resizing of its images, so that it can be mixed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from hauberk import registry
from hauberk.classifier import Traits
from hauberk.errors import HauberkError
from hauberk.specs import Width


class ResizedClassifier(nn.Module):
    """A base behind a bilinear resizing of its images, which is differentiable, linear and has no weights.

    Pixel centres are kept in place (``align_corners=False``).  Where an axis shrinks the image is low-passed first, so
    that no pixel is skipped.  Threats, budgets and distances are those of the input images.  The resizing has no
    Lipschitz bound here, so Lipschitz certificates refuse it.

    Args:
        base: the classifier that sees the resized images.
        size: their height and width.
    """

    traits = Traits()

    def __init__(self, base: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        if len(size) != 2 or min(size) < 1:
            raise HauberkError(f"expected a height and a width of at least 1, got {size}", "for example (128, 128)")
        self.base, self.size = base, size
        self.spec: dict[str, Any] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, C, H, W) to the base's logits at the resized images, (B, K)."""
        height, width = images.shape[2:]
        if (height, width) != self.size:
            shrinks = self.size[0] < height or self.size[1] < width
            images = functional.interpolate(
                images, size=self.size, mode="bilinear", align_corners=False, antialias=shrinks
            )
        logits: Tensor = self.base(images)
        return logits


def resized(base: nn.Module, size: Width | Sequence[Width]) -> ResizedClassifier:
    """Build a classifier that sees its images at another resolution.

    Args:
        base: a built model, or in a spec its description.
        size: height and width of the images that it sees; one number for both.
    """
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    model = ResizedClassifier(base, (height, width))
    model.spec = {"name": "resized", "base": registry.spec(base), "size": [height, width]}
    return model
