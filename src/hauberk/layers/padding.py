"""Zero-padding as a layer: an isometry."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from hauberk.layers.bound import Bound


class PadToMultiple(nn.Module):
    """Append zero rows and columns until height and width are multiples of ``factor``.

    Args:
        factor: for example 2 before ``nn.PixelUnshuffle(2)``.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def extra_repr(self) -> str:
        """The factor."""
        return str(self.factor)

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, H, W) to (B, C, H', W')."""
        bottom, right = (-features.shape[axis] % self.factor for axis in (2, 3))
        return nn.functional.pad(features, (0, right, 0, bottom)) if bottom or right else features

    def lipschitz_bound(self, input_shape: Sequence[int]) -> Bound:  # noqa: ARG002
        """One: zeros add no length."""
        return Bound(1.0, "zero-padding", True)
