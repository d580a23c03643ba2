"""Activations that neither stretch distances nor shrink gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hauberk.errors import HauberkError
from hauberk.layers.bound import Bound


class MaxMin(nn.Module):
    r"""Sort pairs of channels: the maxima first, then the minima.

    .. math:: \mathrm{MaxMin}(a, b) = (\max(a, b), \min(a, b))

    where a and b are the first and the second half of the channels.  The Jacobian is a permutation almost everywhere,
    so the layer is 1-Lipschitz and preserves the norm of gradients (Anil et al. 2019, GroupSort with groups of two).
    """

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, ...) to the same shape.

        Raises:
            HauberkError: if C is odd.
        """
        channels = features.shape[1]
        if channels % 2:
            raise HauberkError(f"MaxMin pairs channels: expected an even number, got {channels}", "use an even width")
        first, second = features[:, : channels // 2], features[:, channels // 2 :]
        return torch.cat([torch.maximum(first, second), torch.minimum(first, second)], dim=1)

    def lipschitz_bound(self, input_shape: Sequence[int]) -> Bound:  # noqa: ARG002
        """One: sorting never moves two vectors apart."""
        return Bound(1.0, "sorting", True)
