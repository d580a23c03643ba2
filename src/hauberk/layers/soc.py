r"""Skew orthogonal convolutions: the exponential of a skew-symmetric convolution, cut off after a few terms.

How many terms decides over soundness, not only over accuracy: for a skew-symmetric A, which is normal with imaginary
eigenvalues, the norm of :math:`S_K(A) = \sum_{i\le K} A^i / i!` is the largest :math:`|S_K(i\lambda)|`.  It stays at
most 1 up to :math:`\|A\| = 2\sqrt2` for K = 4, and up to more than 3.3 for K = 8, 12, 16; for K = 5 of published
training and K = 14 of published evaluation it exceeds 1 at once.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.errors import HauberkError
from hauberk.layers.bound import Bound, only_l2, raised, scaled
from hauberk.layers.derived import without_parametrisation
from hauberk.layers.gram import positive_bound
from hauberk.layers.norms import Padding, conv_norm
from hauberk.threats import Norm

REACH = 2.1  # largest norm of the skew convolution; 1 for kernels of one tap


# --- the norm of the series ----------------------------------------------------------------------------------


def series_bound(terms: int, reach: float) -> float:
    r"""The norm of the cut exponential of any skew-symmetric matrix of norm at most ``reach``, rounded up.

    .. math:: \max_{0\le t\le a} |S_K(it)|, \qquad |S_K(it)|^2 = P(t^2)

    P has rational coefficients.  On an interval it is at most the largest of its Bernstein coefficients, which are
    computed exactly; intervals are halved until that is within 1e-12 of the best value seen.  A result of 1.0 is
    proved: it means that no coefficient exceeds 1.

    Args:
        terms: highest power K.
        reach: a, finite and not negative.

    Raises:
        HauberkError: if the result overflows.

    Example:
        >>> from hauberk.layers import series_bound
        >>> round(series_bound(terms=4, reach=4.0), 3), round(series_bound(terms=16, reach=4.0), 3)
        (7.608, 1.0)
    """
    best, found = Fraction(1), Fraction(1)  # the value at 0
    intervals = [_bernstein(_squared_modulus(terms), Fraction(reach) ** 2)]
    while intervals:
        coefficients = intervals.pop()
        best = max(best, coefficients[0], coefficients[-1])
        top = max(coefficients)
        if top <= best * (1 + Fraction(1, 10**12)):
            found = max(found, top)
        else:
            intervals += _halved(coefficients)
    if found == 1:
        return 1.0
    try:
        return math.nextafter(math.sqrt(math.nextafter(float(found), math.inf)), math.inf)
    except OverflowError:
        raise HauberkError(f"the series of a matrix of norm {reach} overflows", "load an earlier checkpoint") from None


@functools.cache
def _squared_modulus(terms: int) -> tuple[Fraction, ...]:
    r"""Coefficients of P: :math:`P(s) = \sum_m s^m (-1)^m \sum_{j + k = 2m} (-1)^j / (j!\,k!)`, with j, k <= K."""
    factorial = math.factorial
    return tuple(
        Fraction((-1) ** m)
        * sum(
            (
                Fraction((-1) ** j, factorial(j) * factorial(2 * m - j))
                for j in range(max(0, 2 * m - terms), min(2 * m, terms) + 1)
            ),
            Fraction(0),
        )
        for m in range(terms + 1)
    )


def _bernstein(powers: Sequence[Fraction], right: Fraction) -> list[Fraction]:
    """Bernstein coefficients on [0, right] of a polynomial: b_j = sum_i C(j, i) / C(n, i) c_i right^i."""
    degree = len(powers) - 1
    scaled = [c * right**i / math.comb(degree, i) for i, c in enumerate(powers)]
    return [sum((math.comb(j, i) * scaled[i] for i in range(j + 1)), Fraction(0)) for j in range(degree + 1)]


def _halved(coefficients: list[Fraction]) -> list[list[Fraction]]:
    """Bernstein coefficients on the left and on the right half (de Casteljau)."""
    left, right, row = [coefficients[0]], [coefficients[-1]], coefficients
    while len(row) > 1:
        row = [(a + b) / 2 for a, b in itertools.pairwise(row)]
        left.append(row[0])
        right.append(row[-1])
    return [left, right[::-1]]


# --- the layer -----------------------------------------------------------------------------------------------


class SkewFilter(nn.Module):
    r"""Turn a free filter M into one whose convolution is skew-symmetric and of bounded norm.

    .. math:: A = \frac{r}{\sqrt{k_h k_w}}\,\frac{B}{\|B_T\|}, \qquad B = M - M'

    :math:`M'` has the channels swapped and the taps reversed; its convolution is the transpose, under zero padding and
    under circular padding.  :math:`B_T` is B as an out x (in kh kw) matrix: the convolution reads patches, in which a
    pixel appears at most kh kw times, so that its norm is at most :math:`\sqrt{k_h k_w}\,\|B_T\|`, and that of A at
    most r.  Of the four unfoldings in the paper a skew filter has two different ones; the other is nine times as
    costly and on random filters a sixth smaller.  Its power iteration bounds the norm from below, ``gram_bound`` from
    above.

    Args:
        groups: blocks of channels that do not meet.

    Source: Singla & Feizi 2021 (skew filters: SOC; four unfoldings: Fantastic Four); r = 0.7 * 3 for 3x3 kernels and 1
        for 1x1 as in their code.
    """

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, free: Tensor) -> Tensor:
        """Shape (m, m / groups, kh, kw) to the same shape."""
        taps = free.shape[2] * free.shape[3]
        skew = (free - _transpose(free, self.groups)).reshape(self.groups, free.shape[1], -1)
        scale = (REACH if taps > 1 else 1.0) / math.sqrt(taps) / positive_bound(skew)
        return (skew * scale[:, None, None]).reshape(free.shape)


class SOCConv2d(nn.Module):
    r"""A convolution that is orthogonal up to the truncation of a series, and 1-Lipschitz for 4, 8, 12 or 16 terms.

    .. math:: y = T \sum_{i=0}^{K} \frac{A^i}{i!}\,E\,x + b

    A is the skew convolution of ``weight`` with odd kernel and padding "same"; E makes channels of s x s blocks and
    appends channels of zeros, T keeps the first channels (of each group): both are contractions.  Horner's scheme
    takes K convolutions.  With K = 4 the gradient shrinks by at most 3 % where :math:`\|A\|` is 1.3, and by a third
    at 2.1.

    Args:
        in_channels: channels that enter.
        out_channels: channels that leave.
        kernel_size: odd, one number, or height and width.
        stride: divides height and width of the images.
        groups: blocks of channels that do not meet, as in ``nn.Conv2d``.
        bias: whether to add a bias.
        padding_mode: ``zeros`` or ``circular``, of ``kernel_size // 2`` pixels.
        terms: K, in evaluation and for the bound.
        terms_train: K in training, by default the same; the paper has 5, and 12 in evaluation.

    Raises:
        HauberkError: on an even kernel, another padding mode, groups that do not divide the channels, or terms < 1.

    Source: Singla & Feizi 2021 (SOC); that four terms do not stretch is the stability of the classical Runge-Kutta
        method on the imaginary axis.

    Example:
        >>> from hauberk.layers import SOCConv2d
        >>> layer = SOCConv2d(4, 4, 3).eval()
        >>> layer.lipschitz_bound((4, 8, 8)).value <= 1.001
        True
    """

    weight: Tensor

    def __init__(  # noqa: PLR0913 - the arguments of nn.Conv2d
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 3,
        stride: int = 1,
        *,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Padding = "zeros",
        terms: int = 4,
        terms_train: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        if any(k < 1 or k % 2 == 0 for k in self.kernel_size) or padding_mode not in ("zeros", "circular"):
            raise HauberkError(
                f"a skew convolution needs an odd kernel and padding with zeros or circularly, got {self.kernel_size} "
                f"and {padding_mode!r}",
                "use kernel_size=3 and padding_mode='zeros'",
            )
        if groups < 1 or in_channels % groups or out_channels % groups or stride < 1:
            raise HauberkError(
                f"{groups} groups with stride {stride} do not fit {in_channels} and {out_channels} channels",
                "use a number of groups that divides both",
            )
        if terms < 1 or (terms_train is not None and terms_train < 1):
            raise HauberkError(f"expected at least one term, got {terms} and {terms_train}", "use terms=4")
        self.in_channels, self.out_channels, self.stride, self.groups = in_channels, out_channels, stride, groups
        self.padding_mode: Padding = padding_mode
        self.terms, self.terms_train = terms, terms if terms_train is None else terms_train
        self.width = max(in_channels * stride**2, out_channels)
        filters = torch.empty(self.width, self.width // groups, *self.kernel_size)
        self.weight = nn.Parameter(nn.init.normal_(filters, std=self.width**-0.5))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        parametrize.register_parametrization(self, "weight", SkewFilter(groups))

    def extra_repr(self) -> str:
        """Channels, kernel, stride, groups, padding and terms."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"groups={self.groups}, bias={self.bias is not None}, padding_mode={self.padding_mode!r}, "
            f"terms={self.terms}, terms_train={self.terms_train}"
        )

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, in, H, W) to (B, out, H / stride, W / stride).

        Raises:
            HauberkError: if C, H, W do not fit.
        """
        self._check(features.shape[1:])
        if self.stride > 1:
            features = nn.functional.pixel_unshuffle(features, self.stride)
        features = self._channels(features, self.width)
        weight, power = self.weight, features
        bias = None if self.bias is None else self._channels(self.bias[None, :, None, None], self.width).flatten()
        heavy = weight.numel() > 16 * features[0].numel()  # whether dividing the filter costs more than dividing images
        for i in range(self.terms_train if self.training else self.terms, 0, -1):
            # Horner: x + A (x + A (...) / (i + 1)) / i; the bias comes last
            shift = bias if i == 1 else None
            if heavy:
                power = torch.add(features, self._skew(power, weight, shift), alpha=1.0 / i)
            else:
                power = self._skew(power, weight / i, shift).add_(features)
        return self._channels(power, self.out_channels)

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """``series_bound`` of the norm of the skew convolution as it is; ``input_shape`` is (C, H, W).

        The bound that ``SkewFilter`` divides by costs little; the frequencies of the feature map are computed only
        where it leaves the series above 1.

        Raises:
            HauberkError: on another norm, a shape that does not fit, NaN weights, or a filter that is not skew.
        """
        only_l2(norm)
        self._check(input_shape)
        weight = self.weight.detach()
        if not torch.equal(weight, -_transpose(weight, self.groups)) and bool(weight.isfinite().all()):
            raise HauberkError("the filter is not skew-symmetric", "change the free filter, not the effective filter")
        scale, exact = scaled(weight)
        taps = math.prod(self.kernel_size)
        unfolded = positive_bound(exact.reshape(self.groups, -1, exact[0].numel())).max()
        skew = raised(scale, math.sqrt(taps) * float(unfolded))
        value = series_bound(self.terms, skew)
        if value > 1.0:
            grid = [size // self.stride for size in input_shape[1:]]
            padding = [(k // 2, k // 2) for k in self.kernel_size]
            found = conv_norm(weight, grid, padding=padding, padding_mode=self.padding_mode, groups=self.groups)
            skew = min(skew, found.value)
            value = series_bound(self.terms, skew)
        return Bound(value, f"series of {self.terms} terms, skew norm at most {skew:.4f}", False)

    def export(self) -> nn.Module:
        """For a kernel of one tap a plain ``nn.Conv2d``; else this layer without its parametrisation.

        The series of a larger kernel is no convolution under zero padding, which cuts off at every step, and one with
        a kernel of 2 K + 1 taps a side under circular padding.  So the layer keeps its K convolutions, with the
        skew filter frozen in ``weight``, and keeps its bound, as long as the filter stays skew.
        """
        if self.kernel_size != (1, 1):
            return without_parametrisation(self)
        skew = self.weight.detach().reshape(self.groups, -1, self.width // self.groups)
        series = eye = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
        for i in range(self.terms, 0, -1):
            series = eye + skew @ series / i
        s, into, out = self.stride, self.in_channels // self.groups, self.out_channels // self.groups
        kernel = series.expand_as(skew)[:, :out, : into * s**2].reshape(self.out_channels, into, s, s)
        plain = nn.Conv2d(self.in_channels, self.out_channels, s, s, groups=self.groups, bias=self.bias is not None)
        plain.to(kernel).load_state_dict({"weight": kernel} | ({} if self.bias is None else {"bias": self.bias}))
        return plain.train(self.training)

    def _skew(self, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        down, across = self.kernel_size[0] // 2, self.kernel_size[1] // 2
        if self.padding_mode == "circular":  # joined by hand: the gradient of torch's circular padding is slow
            if down:
                features = torch.cat([features[:, :, -down:], features, features[:, :, :down]], 2)
            if across:
                features = torch.cat([features[..., -across:], features, features[..., :across]], 3)
            down = across = 0
        return nn.functional.conv2d(features, weight, bias, padding=(down, across), groups=self.groups)

    def _channels(self, features: Tensor, wanted: int) -> Tensor:
        """Append channels of zeros to each group, or drop its last ones."""
        extra = (wanted - features.shape[1]) // self.groups
        if not extra:
            return features
        grouped = features.reshape(len(features), self.groups, -1, *features.shape[2:])
        return nn.functional.pad(grouped, (0, 0, 0, 0, 0, extra)).flatten(1, 2)

    def _check(self, shape: Sequence[int]) -> None:
        if len(shape) != 3 or shape[0] != self.in_channels or any(size % self.stride for size in shape[1:]):
            raise HauberkError(
                f"expected images of {self.in_channels} channels whose sides are multiples of {self.stride}, "
                f"got {tuple(shape)}",
                "pad the images first, for example with PadToMultiple",
            )


def _transpose(kernel: Tensor, groups: int) -> Tensor:
    """The filter of the transposed convolution: channels swapped within each group, taps reversed."""
    return kernel.reshape(groups, -1, *kernel.shape[1:]).transpose(1, 2).flip(3, 4).flatten(0, 1)
