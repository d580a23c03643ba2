r"""Block reflectors: orthogonal layers of low rank, one matrix for vectors and one for each frequency of images.

.. math:: W = I - 2\,V (V^* V)^{-1} V^*
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.errors import HauberkError
from hauberk.layers.bound import SLACK, Bound, only_l2
from hauberk.layers.derived import Derived
from hauberk.layers.export import plain_linear
from hauberk.layers.frequency import check_circle, half_spectrum, to_frequencies, to_pixels
from hauberk.layers.norms import linear_norm
from hauberk.threats import Norm

_ENTRIES = 1 << 22  # entries of the frequencies' matrices held at a time


def projector_half(directions: Tensor) -> Tensor:
    r"""The pseudo-inverse :math:`(V^* V + \epsilon I)^{-1} V^*`, so that V times it projects onto the columns of V.

    The ridge keeps it defined where the columns depend on each other.  With it V times the result has eigenvalues in
    [0, 1), and the reflector stays within norm 1: it is orthogonal where V is well-conditioned, and no more than a
    contraction elsewhere.

    Args:
        directions: V, real or complex, shape (..., m, n).

    Returns:
        shape (..., n, m).
    """
    gram = directions.mH @ directions
    precision = torch.finfo(directions.dtype)
    mean = gram.diagonal(dim1=-2, dim2=-1).real.mean(-1)
    # the second term matters for zeros alone; its inverse can be squared without overflow
    ridge = (16.0 * precision.eps * mean + precision.tiny**0.4)[..., None, None]
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    half: Tensor = torch.linalg.solve(gram + ridge * eye, directions.mH)
    return half


class BlockReflector(nn.Module):
    r"""The matrix :math:`I - 2 V (V^\top V)^{-1} V^\top`, cut to (out, in), from a free V of shape (m, n).

    Args:
        out_features: rows kept, at most m.
        in_features: columns kept, at most m.
    """

    def __init__(self, out_features: int, in_features: int) -> None:
        super().__init__()
        self.out_features, self.in_features = out_features, in_features

    def forward(self, directions: Tensor) -> Tensor:
        """V of shape (m, n) to the weight, shape (out, in)."""
        eye = torch.eye(len(directions), dtype=directions.dtype, device=directions.device)
        return (eye - 2.0 * directions @ projector_half(directions))[: self.out_features, : self.in_features]


class BROLinear(nn.Linear):
    """A linear layer with orthonormal rows or columns; see ``BlockReflector``.

    The free parameter has the shape (max(in, out), rank), so a layer has half the parameters of a plain one at the
    default rank.

    Args:
        in_features: values that enter.
        out_features: values that leave.
        bias: whether to add a bias.
        rank: n, the dimension that is reflected; half of max(in, out) if not given.

    Raises:
        HauberkError: if the rank is not between 1 and max(in, out).

    Source: Lai et al. 2025, Proposition 1.

    Example:
        >>> from hauberk.layers import BROLinear
        >>> layer = BROLinear(8, 4).eval()
        >>> layer.lipschitz_bound((8,)).value <= 1.001
        True
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, rank: int | None = None) -> None:
        super().__init__(in_features, out_features, bias)
        side = max(in_features, out_features)
        self.weight = nn.Parameter(torch.randn(side, _rank(rank, side)))
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        parametrize.register_parametrization(self, "weight", BlockReflector(out_features, in_features), unsafe=True)

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:  # noqa: ARG002
        """The norm of the effective weight as it is."""
        return linear_norm(self.weight, norm)

    def export(self) -> nn.Linear:
        """A plain ``nn.Linear`` with the effective weight."""
        return plain_linear(self)


class BROConv2d(Derived):
    r"""An orthogonal circular convolution: at each frequency of the feature map a block reflector.

    .. math:: \hat y(\omega) = \big(I - 2\,\hat V (\hat V^* \hat V)^{-1} \hat V^*\big)(\omega)\,\hat x(\omega)

    with :math:`\hat V(\omega)` the Fourier transform of a free kernel V.  The spatial kernel of the result fills the
    whole image, so there is no effective weight of the size of V, and no plain layer to export to.  With fewer inputs
    than outputs it is an isometry, with fewer outputs it cuts channels off.  A stride s turns blocks of s x s pixels
    into channels first.

    Args:
        in_channels: channels that enter.
        out_channels: channels that leave.
        kernel_size: of V; the feature map (after the stride) must be as large.
        stride: one number that divides height and width.
        bias: whether to add a bias.
        rank: n, the dimension that is reflected at each frequency; half of the channels if not given.

    Raises:
        HauberkError: if the rank is out of range.

    Source: Lai et al. 2025, the BRO convolution.

    Example:
        >>> from hauberk.layers import BROConv2d
        >>> layer = BROConv2d(4, 4, 3).eval()
        >>> layer.lipschitz_bound((4, 8, 8)).value <= 1.001
        True
    """

    by_shape = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int = 1,
        bias: bool = True,
        rank: int | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride
        self.kernel_size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        self.blocks = in_channels * stride**2
        side = max(self.blocks, out_channels)
        self.directions = nn.Parameter(torch.randn(side, _rank(rank, side), *self.kernel_size) / side**0.5)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def extra_repr(self) -> str:
        """Channels, kernel and stride."""
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, in, H, W) to (B, out, H / stride, W / stride).

        Raises:
            HauberkError: if the size is not a multiple of the stride, or smaller than the kernel.
        """
        check_circle(features.shape[1:], self.in_channels, self.kernel_size, self.stride)
        blocks = nn.functional.pixel_unshuffle(features, self.stride) if self.stride > 1 else features
        size = blocks.shape[2:]
        spectrum = to_frequencies(blocks)
        numbers = self.numbers(features.shape[1:])
        spectrum = self._fit(spectrum) - 2.0 * numbers["outward"] @ (numbers["inward"] @ spectrum)
        result = to_pixels(spectrum, size)
        return result if self.bias is None else result + self.bias[:, None, None]

    def derive(self, input_shape: Sequence[int]) -> dict[str, Tensor]:
        """V and its pseudo-inverse at each frequency, of which the rows and columns that are used."""
        directions = half_spectrum(self.directions, [n // self.stride for n in input_shape[1:]])
        inward = projector_half(directions)[:, :, : self.blocks]
        return {"outward": directions[:, : self.out_channels], "inward": inward}

    def inner_size(self, features: Tensor, constant: float) -> Tensor:  # noqa: ARG002
        r"""The size of what is taken off, at most :math:`2\,\|V\|_F\,\|V^+\|_F\,\|x\|` at the worst frequency."""
        outward, inward = (torch.linalg.matrix_norm(m) for m in self.numbers(features.shape[1:]).values())
        entered: Tensor = torch.linalg.vector_norm(features.flatten(1), dim=1)
        return 2.0 * float((outward * inward).max()) * entered

    @torch.no_grad()
    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """The largest singular value of the matrices of all frequencies, as they are; known in L2 only."""
        only_l2(norm)
        check_circle(input_shape, self.in_channels, self.kernel_size, self.stride)
        size = [n // self.stride for n in input_shape[1:]]
        numbers = self.numbers(input_shape)
        if not all(bool(matrices.isfinite().all()) for matrices in numbers.values()):
            raise HauberkError("the weights hold NaN or infinity", "training diverged: load an earlier checkpoint")
        largest, at_once = 0.0, max(1, _ENTRIES // (self.out_channels * self.blocks))
        eye = self._fit(torch.eye(self.blocks, dtype=torch.complex128, device=numbers["inward"].device)[None])
        for outward, inward in zip(*(torch.split(m, at_once) for m in numbers.values()), strict=True):
            matrices = eye - 2.0 * outward.to(torch.complex128) @ inward.to(torch.complex128)
            # what rounding of the product may hide, where large directions meet a large pseudo-inverse
            off = torch.linalg.matrix_norm(outward) * torch.linalg.matrix_norm(inward) * outward.shape[2] * 2.0**-50
            largest = max(largest, float((torch.linalg.svdvals(matrices)[:, 0] + off).max()))
        return Bound(largest * (1.0 + SLACK), f"singular values per frequency, {size[0]}x{size[1]}", True)

    def _fit(self, spectrum: Tensor) -> Tensor:
        """Channels on axis 1 cut, or filled up with zeros, to as many as leave."""
        missing = self.out_channels - spectrum.shape[1]
        if missing > 0:
            return nn.functional.pad(spectrum, (0, 0, 0, missing))
        return spectrum[:, : self.out_channels]


def _rank(rank: int | None, side: int) -> int:
    chosen = max(1, math.ceil(side / 2)) if rank is None else rank
    if not 1 <= chosen <= side:
        raise HauberkError(
            f"expected a rank between 1 and {side}, got {rank}", "leave it out to use half of the channels"
        )
    return chosen
