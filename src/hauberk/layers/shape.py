r"""Layers that pad or cut channels, subtract means, or scale and shift channels.

What swaps positions for channels is in torch and in the walk: ``nn.PixelUnshuffle`` (invertible downsampling) and
``nn.PixelShuffle`` (its inverse) are permutations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hauberk.errors import HauberkError
from hauberk.layers.activations import check_channels, per_channel
from hauberk.layers.bound import SLACK, Bound, check_norm, constant_size, unit_bound
from hauberk.layers.derived import Derived
from hauberk.threats import Norm


class PadChannels(nn.Module):
    """Append zero channels until there are n: an isometry.

    Args:
        channels: channels n that leave.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def extra_repr(self) -> str:
        """The number of channels that leave."""
        return str(self.channels)

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, ...) to (B, n, ...).

        Raises:
            HauberkError: if more than n channels enter.
        """
        missing = self._missing(features.shape[1:])
        zeros = features.new_zeros(features.shape[0], missing, *features.shape[2:])
        return torch.cat([features, zeros], dim=1) if missing else features

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """One: zeros do not change the norm."""
        self._missing(input_shape)
        return unit_bound(norm, "zero-padding")

    def _missing(self, shape: Sequence[int]) -> int:
        if not shape or shape[0] > self.channels:
            raise HauberkError(f"cannot pad {tuple(shape)} to {self.channels} channels", "use TruncateChannels")
        return self.channels - shape[0]


class PadToMultiple(nn.Module):
    """Append zero rows and columns until height and width are multiples of ``factor``: an isometry.

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

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:  # noqa: ARG002
        """One: zeros do not change the norm."""
        return unit_bound(norm, "zero-padding")


class TruncateChannels(nn.Module):
    """Keep the first n channels: a projection.

    Args:
        channels: channels n that leave, at least one.

    Raises:
        HauberkError: if nothing would be left.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 1:
            raise HauberkError(f"expected to keep one channel or more, got {channels}", "use TruncateChannels(1)")
        self.channels = channels

    def extra_repr(self) -> str:
        """The number of channels that leave."""
        return str(self.channels)

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, ...) to (B, n, ...).

        Raises:
            HauberkError: if fewer than n channels enter.
        """
        self._check(features.shape[1:])
        return features[:, : self.channels]

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """One: the norm does not grow when entries are left out."""
        self._check(input_shape)
        return unit_bound(norm, "projection")

    def _check(self, shape: Sequence[int]) -> None:
        if not shape or shape[0] < self.channels:
            raise HauberkError(f"cannot keep {self.channels} channels of {tuple(shape)}", "use PadChannels")


class Centring(nn.Module):
    r"""Subtract from each sample its own mean, :math:`x - \tfrac1n \mathbf 1 \mathbf 1^\top x`: a projection.

    Unlike the division of layer normalisation by a deviation, this is linear and has a known norm.

    Args:
        per_channel: whether each channel has its mean over positions taken away, or the sample the mean of all.
    """

    def __init__(self, per_channel: bool = True) -> None:
        super().__init__()
        self.per_channel = per_channel

    def extra_repr(self) -> str:
        """Whose mean is taken."""
        return f"per_channel={self.per_channel}"

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, ...) to the same shape."""
        axes = list(range(2 if self.per_channel else 1, features.dim()))
        # torch takes no axes for all of them
        return features - (features.mean(axes, keepdim=True) if axes else features)

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """One in L2, 2 - 2/n in L1 and Linf, for means of n values; zero if n is 1."""
        check_norm(norm)
        if not input_shape or min(input_shape) < 1:
            raise HauberkError(f"expected a shape (C, ...), got {tuple(input_shape)}", "leave the batch axis out")
        count = math.prod(input_shape[1:] if self.per_channel else input_shape)
        if count == 1:
            return Bound(0.0, "a value less itself", True)
        if norm == "l2" or count == 2:
            return Bound(1.0, "projection", True)
        return Bound((2.0 - 2.0 / count) * (1.0 + SLACK), "row sums of a projection", True)


class BatchCentring(Derived):
    r"""Subtract the mean of each channel: of the batch in training, a running one in eval mode.

    .. math:: m \leftarrow (1 - \rho)\,m + \rho\,\bar x \ \text{(training)}, \qquad x - m + b \ \text{(eval)}

    In eval mode it is a constant shift and stretches nothing.  In training the output for one image depends on the
    others through their mean, so there is no bound for a single image, and none is given.

    Args:
        channels: channels C.
        momentum: weight :math:`\rho` of the newest batch, in (0, 1].
        bias: whether to add a learnable shift b of each channel.

    Raises:
        HauberkError: on a momentum outside (0, 1].
    """

    running_mean: Tensor

    def __init__(self, channels: int, momentum: float = 0.1, bias: bool = True) -> None:
        super().__init__()
        if not 0.0 < momentum <= 1.0:
            raise HauberkError(f"expected a momentum in (0, 1], got {momentum}", "use momentum=0.1")
        self.channels, self.momentum = channels, momentum
        self.register_buffer("running_mean", torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def extra_repr(self) -> str:
        """Channels and momentum."""
        return f"{self.channels}, momentum={self.momentum}, bias={self.bias is not None}"

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, ...) to the same shape.

        Raises:
            HauberkError: on another number of channels.
        """
        check_channels(features.shape[1:], self.channels)
        if not self.training:
            return features - per_channel(self.numbers(features.shape[1:])["shift"], features)
        mean = features.mean([axis for axis in range(features.dim()) if axis != 1])
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        return features - per_channel(self._shift(mean), features)

    def derive(self, input_shape: Sequence[int]) -> dict[str, Tensor]:  # noqa: ARG002
        """The shift of each channel, from the running mean."""
        return {"shift": self._shift(self.running_mean)}

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """One in eval mode.

        Raises:
            HauberkError: in train mode, on another number of channels, or if the mean or bias is NaN or infinite.
        """
        check_channels(input_shape, self.channels)
        if self.training:
            raise HauberkError(
                "in train mode the output for one image depends on the others through their mean",
                "call model.eval() first",
            )
        shift = self.numbers(input_shape)["shift"]
        if not bool(shift.isfinite().all()):
            raise HauberkError(
                "the mean or bias holds NaN or infinity", "training diverged: load an earlier checkpoint"
            )
        return unit_bound(norm, "constant shift")

    def _shift(self, mean: Tensor) -> Tensor:
        return mean if self.bias is None else mean - self.bias


class ChannelAffine(nn.Module):
    r"""Scale and shift each channel, :math:`a_c x + b_c`: what batch norm is after training.

    Args:
        scale: a, shape (C,).
        shift: b, shape (C,).
        removed: what was added up to make b and may have cancelled in it, shape (C,).
    """

    scale: Tensor
    shift: Tensor
    removed: Tensor

    def __init__(self, scale: Tensor, shift: Tensor, removed: Tensor) -> None:
        super().__init__()
        for name, value in (("scale", scale), ("shift", shift), ("removed", removed)):
            self.register_buffer(name, value)

    def extra_repr(self) -> str:
        """The number of channels."""
        return str(len(self.scale))

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, ...) to the same shape.

        Raises:
            HauberkError: on another number of channels.
        """
        check_channels(features.shape[1:], len(self.scale))
        return features * per_channel(self.scale, features) + per_channel(self.shift, features)

    def inner_size(self, features: Tensor, constant: float) -> Tensor:  # noqa: ARG002
        """The size of the subtracted constant, which may cancel with large features."""
        return constant_size(self.removed, features)

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """The largest scale, the same in every norm.

        Raises:
            HauberkError: on another number of channels, or if the scale or shift is NaN or infinite.
        """
        check_norm(norm)
        check_channels(input_shape, len(self.scale))
        if not bool(torch.stack([self.scale, self.shift]).isfinite().all()):
            raise HauberkError("scale or shift holds NaN or infinity", "training diverged: load an earlier checkpoint")
        return Bound(float(self.scale.detach().double().abs().max()), "largest scale of a channel", True)
