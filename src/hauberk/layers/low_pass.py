"""A low-pass filter by the discrete cosine transform, which is 1-Lipschitz in L2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from hauberk.errors import HauberkError
from hauberk.layers.bound import Bound, times
from hauberk.layers.norms import linear_norm
from hauberk.threats import Norm


class LowPass(nn.Module):
    r"""Keep the low frequencies of each channel, :math:`y = \Phi^\top \Lambda\,\Phi\,x`: an orthogonal projection.

    :math:`\Phi` is the orthonormal two-dimensional DCT-II, whose lowest frequency (the mean, DC) has the index (0, 0);
    :math:`\Lambda` keeps the corner of :math:`\lceil \kappa H \rceil \times \lceil \kappa W \rceil` indices around it.
    Rows and columns are filtered one after the other, by matrices :math:`\Phi_k^\top \Phi_k`.

    The published code of HyCAS centres its mask at (H/2, W/2), where the middle frequencies of a DCT-II lie, so that it
    removes the mean.

    Args:
        keep: share :math:`\kappa` of the frequencies of each axis, in (0, 1].

    Raises:
        HauberkError: on another share.

    Source: Dhar et al. 2026 (HyCAS), the frequency-aware deterministic projection.

    Example:
        >>> import torch
        >>> from hauberk.layers import LowPass
        >>> flat = torch.full((1, 1, 8, 8), 0.3)
        >>> torch.allclose(LowPass(keep=0.5)(flat), flat)
        True
    """

    def __init__(self, keep: float = 0.5) -> None:
        super().__init__()
        if not 0.0 < keep <= 1.0:
            raise HauberkError(f"expected a share of frequencies in (0, 1], got {keep}", "use for example 0.5")
        self.keep = keep

    def extra_repr(self) -> str:
        """The share."""
        return f"keep={self.keep}"

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, H, W) to the same shape."""
        if self.keep == 1.0:
            return features
        rows, columns = (self._projection(size).to(features) for size in features.shape[-2:])
        return rows @ features @ columns

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """In L2 one, up to rounding; in L1 and Linf the sums of the projections' columns and rows."""
        if len(input_shape) != 3:
            raise HauberkError(f"expected a shape (C, H, W), got {tuple(input_shape)}", "leave the batch axis out")
        if self.keep == 1.0:
            return Bound(1.0, "identity", True)
        rows, columns = (linear_norm(self._projection(size), norm) for size in input_shape[1:])
        return Bound(times(rows.value, columns.value), "projection onto low frequencies", True)

    def _projection(self, size: int) -> Tensor:
        return _projection(size, math.ceil(self.keep * size))


@lru_cache(64)
def _projection(size: int, kept: int) -> Tensor:
    r""":math:`\Phi_k^\top \Phi_k`, shape (size, size), float64, with the first k rows of the DCT-II matrix."""
    frequency = torch.arange(kept, dtype=torch.float64)[:, None]  # on the CPU: kept for inputs of every device
    position = torch.arange(size, dtype=torch.float64)[None]  # on the CPU as well
    waves = torch.cos(math.pi / size * (position + 0.5) * frequency) * math.sqrt(2.0 / size)
    waves[0] /= math.sqrt(2.0)
    return waves.T @ waves
