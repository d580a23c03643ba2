r"""Sandwich layers: a nonlinearity between two halves of an orthogonal matrix.

.. math:: y = \sqrt2\,A^\top \Psi\,\mathrm{relu}(\sqrt2\,\Psi^{-1} B x + b), \qquad A A^\top + B B^\top = I
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.errors import HauberkError
from hauberk.layers.bound import SLACK, Bound, constant_size, only_l2, times
from hauberk.layers.cayley import Cayley
from hauberk.layers.derived import Derived, without_parametrisation
from hauberk.layers.frequency import check_circle, half_spectrum, to_frequencies, to_pixels
from hauberk.layers.norms import linear_norm
from hauberk.threats import Norm


def hidden_size(bias: Tensor | None, outward: Tensor, features: Tensor, constant: float) -> Tensor:
    r"""An upper bound on :math:`\sqrt2\,\|A\|\,\|\Psi\,\mathrm{relu}(\sqrt2\,\Psi^{-1} B x + b)\|`, shape (B,).

    A and B have norm 1 by construction; if they were changed the layer's constant is larger.
    """
    entered: Tensor = torch.linalg.vector_norm(features.flatten(1), dim=1)
    shift = entered.new_zeros(len(features)) if bias is None else constant_size(outward * bias, features)
    return max(constant, 1.0) * 2.0 * (entered + shift / math.sqrt(2.0))


def scales(log_psi: Tensor) -> dict[str, Tensor]:
    r"""The factors of the hidden channels, :math:`\sqrt2\,\Psi^{-1}` on the way in and :math:`\sqrt2\,\Psi` out."""
    psi = log_psi.exp()
    return {"inward": math.sqrt(2.0) / psi, "outward": math.sqrt(2.0) * psi}


def product(numbers: Mapping[str, Tensor]) -> float:
    """The largest product of the two factors: 2 but for rounding.

    Raises:
        HauberkError: if one of them is not finite.
    """
    inward, outward = (numbers[name].detach().cpu().double() for name in ("inward", "outward"))
    if not bool((inward.isfinite() & outward.isfinite()).all()):
        raise HauberkError("the scales hold NaN or infinity", "training diverged: load an earlier checkpoint")
    return float((inward * outward).abs().max()) * (1.0 + SLACK)


class SandwichLinear(Derived):
    r"""A linear layer with its activation inside, 1-Lipschitz, more general than a product of norms allows.

    Proof.  Between two points the relu acts as a diagonal matrix D with entries in [0, 1], so that the layer acts as
    :math:`J = 2 A^\top D B` (the diagonal matrices change places, and :math:`\Psi` cancels).  For unit vectors u and v
    let :math:`a = A u` and :math:`c = B v`.  Then

    .. math:: u^\top J v = 2 \sum_i D_{ii} a_i c_i \le \sum_i 2 \max(a_i c_i, 0) \le \tfrac12 \|a + c\|^2
              \le \tfrac12 \big\|[A\ B]\big\|^2 (\|u\|^2 + \|v\|^2) = \big\|[A\ B]\big\|^2

    since :math:`(a_i - c_i)^2 \ge 0`.  So the bound is the squared norm of the matrix that was computed; it needs no
    exact orthogonality.  ``Cayley`` makes [A B] with orthonormal rows.

    Args:
        in_features: values that enter.
        out_features: values that leave.
        bias: whether to add b.

    Source: Wang & Manchester 2023, the sandwich layer; the proof above needs less than theirs.

    Example:
        >>> from hauberk.layers import SandwichLinear
        >>> layer = SandwichLinear(8, 4).eval()
        >>> layer.lipschitz_bound((8,)).value <= 1.001
        True
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(out_features, out_features + in_features))
        self.log_psi = nn.Parameter(torch.zeros(out_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        nn.init.xavier_normal_(self.weight)
        parametrize.register_parametrization(self, "weight", Cayley())

    def extra_repr(self) -> str:
        """Features in and out."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, ..., in) to (B, ..., out)."""
        a, b = self._halves(self.weight)
        numbers = self.numbers(features.shape[1:])
        hidden = nn.functional.linear(features, numbers["inward"][:, None] * b, self.bias)
        return nn.functional.linear(nn.functional.relu(hidden), a.T * numbers["outward"])

    def derive(self, input_shape: Sequence[int]) -> dict[str, Tensor]:  # noqa: ARG002
        """See ``scales``."""
        return scales(self.log_psi)

    def inner_size(self, features: Tensor, constant: float) -> Tensor:
        """See ``hidden_size``."""
        return hidden_size(self.bias, self.numbers(features.shape[1:])["outward"], features, constant)

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """Twice the product of the norms of A' and B as they are; in L2 the squared norm of [A B] if that is less."""
        weight = self.weight.detach()
        a, b = self._halves(weight)
        value = 2.0 * linear_norm(a.T, norm).value * linear_norm(b, norm).value
        if norm == "l2":
            value = min(value, times(linear_norm(weight).value, linear_norm(weight).value))
        return Bound(value * 0.5 * product(self.numbers(input_shape)) * (1.0 + SLACK), "sandwich", False)

    def _halves(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return weight[:, : self.out_features], weight[:, self.out_features :]

    def export(self) -> nn.Module:
        """The layer with an ordinary weight [A | B]; it is no single layer of torch."""
        return without_parametrisation(self)


class SandwichConv2d(Derived):
    r"""A circular convolution with its activation inside; see ``SandwichLinear``.

    A and B are circular convolutions, made by the Cayley transform at each frequency of the feature map;
    :math:`\Psi` has one entry a channel.  Their spatial kernels fill the whole image, so there is no effective weight
    of the size of the free one, and no plain layer to export to.  A stride s turns blocks of s x s pixels into channels
    first.

    Args:
        in_channels: channels that enter.
        out_channels: channels that leave.
        kernel_size: of the free weight; the feature map (after the stride) must be as large.
        stride: one number that divides height and width.
        bias: whether to add b.

    Source: Wang & Manchester 2023, the convolutional sandwich layer.
    """

    by_shape = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int], *, stride: int = 1,
        bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride
        self.kernel_size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        self.free = nn.Parameter(
            torch.empty(out_channels, out_channels + in_channels * stride**2, *self.kernel_size)
        )  # fmt: skip
        self.log_psi = nn.Parameter(torch.zeros(out_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.halves = Cayley()
        nn.init.xavier_normal_(self.free)

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
        numbers = self.numbers(features.shape[1:])
        weight, inward, outward = numbers["weight"], numbers["inward"], numbers["outward"]
        hidden = inward[:, None, None] * to_pixels(weight[..., self.out_channels :] @ to_frequencies(blocks), size)
        if self.bias is not None:
            hidden = hidden + self.bias[:, None, None]
        sent = to_frequencies(outward[:, None, None] * nn.functional.relu(hidden))
        return to_pixels(weight[..., : self.out_channels].mH @ sent, size)

    def derive(self, input_shape: Sequence[int]) -> dict[str, Tensor]:
        """[A B] at each frequency of the feature map, and ``scales``."""
        size = [n // self.stride for n in input_shape[1:]]
        return {"weight": self.halves(half_spectrum(self.free, size)), **scales(self.log_psi)}

    def inner_size(self, features: Tensor, constant: float) -> Tensor:
        """See ``hidden_size``."""
        return hidden_size(self.bias, self.numbers(features.shape[1:])["outward"], features, constant)

    @torch.no_grad()
    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """As of ``SandwichLinear``, with the largest singular values over all frequencies; known in L2 only."""
        only_l2(norm)
        check_circle(input_shape, self.in_channels, self.kernel_size, self.stride)
        numbers = self.numbers(input_shape)
        weight = numbers["weight"]
        if not bool(weight.isfinite().all()):
            raise HauberkError("the weights hold NaN or infinity", "training diverged: load an earlier checkpoint")
        weight = weight.to(torch.complex128)
        whole, a, b = (
            float(torch.linalg.svdvals(part).max()) * (1.0 + SLACK)
            for part in (weight, weight[..., : self.out_channels], weight[..., self.out_channels :])
        )
        value = min(whole**2, 2.0 * a * b) * 0.5 * product(numbers)
        return Bound(value * (1.0 + SLACK), "sandwich", False)
