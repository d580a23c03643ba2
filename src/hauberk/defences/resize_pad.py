"""Images are resized to a random size and padded to a fixed one at a random place (Xie et al. 2018)."""

from __future__ import annotations

from torch import Tensor, nn

from hauberk import registry
from hauberk.capabilities import Random, Traits
from hauberk.defences.purified import PurifiedClassifier
from hauberk.errors import HauberkError
from hauberk.models.building import with_spec
from hauberk.randomness import Draw
from hauberk.specs import Width


class ResizePad(Random):
    r"""Resize each image to r x r pixels by nearest neighbours, and put it at a random place of a black square.

    .. math:: r \sim U\{r_0, \dots, r_1\}, \qquad a, b \sim U\{0, \dots, s - r\}

    with the row a and the column b of the square of s x s pixels at which the image begins.  Each image has r, a and b
    of its own.  A draw is a linear map, so gradients are exact and an attack needs only EOT.

    Args:
        low: the smallest size r.
        high: the largest size r.
        size: s, height and width of the output.

    Source: Xie et al. 2018, Section 3.2.
    """

    def __init__(self, low: int, high: int, size: int) -> None:
        super().__init__()
        if not 1 <= low <= high <= size:
            raise HauberkError(
                f"expected 1 <= low <= high <= size, got {low}, {high} and {size}", "for 32x32 images: 33, 36 and 37"
            )
        self.low, self.high, self.size = low, high, size

    def draw(self, key: Draw) -> nn.Module:
        """The map with one size and place for each image."""
        return Placed(self.low, self.high, self.size, key)


class Placed(nn.Module):
    """The map of one draw, see ``ResizePad``.

    Args:
        low: the smallest size.
        high: the largest size.
        size: of the output.
        key: of the draw.
    """

    traits = Traits()

    def __init__(self, low: int, high: int, size: int, key: Draw) -> None:
        super().__init__()
        self.low, self.high, self.size, self.key = low, high, size, key

    def places(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Size r, first row a and first column b of each image, (B,) each."""
        bits = self.key.rows(images).bits(3)
        sides = self.low + bits[:, 0] % (self.high - self.low + 1)
        free = self.size - sides + 1
        return sides, bits[:, 1] % free, bits[:, 2] % free

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to (B, C, s, s)."""
        sides, top, left = self.places(images)
        for axis, first in ((2, top), (3, left)):
            images = _moved(images, axis, sides, first, self.size)
        return images


def _moved(images: Tensor, axis: int, sides: Tensor, first: Tensor, size: int) -> Tensor:
    """Along one axis, pixel i of the result is pixel floor((i - first) n / side) of n, and 0 outside."""
    length = images.shape[axis]
    steps = sides.new_tensor(range(size))[None] - first[:, None]
    inside = (steps >= 0) & (steps < sides[:, None])
    source = (steps * length // sides[:, None]).clamp(0, length - 1)
    shape = [len(images), 1, 1, 1]
    shape[axis] = size
    whole = list(images.shape)
    whole[axis] = size
    return images.gather(axis, source.reshape(shape).expand(whole)) * inside.reshape(shape).to(images)


def resize_pad(base: nn.Module, low: Width = 33, high: Width = 36, size: Width = 37) -> nn.Module:
    """Build a classifier behind random resizing and padding; its votes are ``polled``.

    Args:
        base: a built model, or in a spec its description; it must take images of any size (global pooling).
        low: the smallest height and width that an image is resized to.
        high: the largest.
        size: height and width after padding.

    Returns:
        a classifier whose sizes and places take their noise by key; ``spec`` holds this call.

    Raises:
        HauberkError: unless 1 <= low <= high <= size.
    """
    model = PurifiedClassifier(base, ResizePad(low, high, size)).train(base.training)
    return with_spec(model, "resize_pad", base=registry.spec(base), low=low, high=high, size=size)
