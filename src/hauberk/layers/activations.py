"""Activations that neither stretch distances nor shrink gradients: sorting, absolute values and N-activations.

Channels are grouped as in MaxMin: a group of size g takes one channel from each g-th part of them, so that member i of
group j is channel ``i * C / g + j``.  Learnable parameters have one dimension, which keeps weight decay off them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hauberk.errors import HauberkError
from hauberk.layers.bound import Bound, unit_bound
from hauberk.threats import Norm

# --- what layers of this kind share ----------------------------------------------------------------------------


def check_channels(shape: Sequence[int], channels: int) -> None:
    """Raise unless the shape (C, ...) has that many channels."""
    if not shape or shape[0] != channels:
        raise HauberkError(
            f"expected {channels} channels, got inputs of shape {tuple(shape)}",
            "use the number of channels of the previous layer",
        )


def per_channel(values: Tensor, features: Tensor) -> Tensor:
    """Shape (..., C) to one that broadcasts over features of shape (B, C, ...)."""
    return values.reshape(*values.shape, *[1] * (features.dim() - 2))


def lookup(table: Tensor, index: Tensor) -> Tensor:
    """Entries of a table of one dimension, in the shape of the index; cheaper in backward than indexing."""
    return table.gather(0, index.flatten()).reshape(index.shape)


def in_groups(features: Tensor, size: int) -> Tensor:
    """Shape (B, C, ...) to (B, size, C / size, ...)."""
    return features.reshape(len(features), size, features.shape[1] // size, *features.shape[2:])


# --- sorting ---------------------------------------------------------------------------------------------------


class MaxMin(nn.Module):
    r"""Sort pairs of channels: the maxima first, then the minima.

    .. math:: \mathrm{MaxMin}(a, b) = (\max(a, b), \min(a, b))

    where a and b are the first and the second half of the channels.  The Jacobian is a permutation almost everywhere,
    so the layer is 1-Lipschitz and preserves the norm of gradients.

    Source: Anil et al. 2019, GroupSort with groups of two.

    Example:
        >>> import torch
        >>> from hauberk.layers import MaxMin
        >>> MaxMin()(torch.tensor([[1.0, 4.0, 3.0, 2.0]]))
        tensor([[3., 4., 1., 2.]])
    """

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, ...) to the same shape.

        Raises:
            HauberkError: if C is odd.
        """
        channels = features.shape[1]
        if channels % 2:
            raise HauberkError(f"MaxMin pairs channels: expected an even number, got {channels}", "use an even width")
        return _sorted_pairs(features)

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """One: sorting never moves two vectors apart."""
        _check_groups(input_shape, 2)
        return unit_bound(norm, "sorting")


class GroupSort(nn.Module):
    r"""Sort groups of channels, the largest first.

    .. math:: \mathrm{GroupSort}(z)_{ij} = \text{the $i$-th largest of } z_{1j}, \dots, z_{gj}

    Groups of two are ``MaxMin``.  Sorting is 1-Lipschitz in every norm that does not depend on the order of entries,
    and its Jacobian is a permutation almost everywhere.

    Args:
        size: channels a group g, which divides the number of channels.

    Raises:
        HauberkError: if the size is below 2.

    Source: Anil et al. 2019, GroupSort.

    Example:
        >>> import torch
        >>> from hauberk.layers import GroupSort
        >>> GroupSort(3)(torch.tensor([[3.0, 1.0, 2.0]]))
        tensor([[3., 2., 1.]])
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < 2:
            raise HauberkError(f"expected groups of two channels or more, got {size}", "use GroupSort(2)")
        self.size = size

    def extra_repr(self) -> str:
        """The size of a group."""
        return str(self.size)

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, ...) to the same shape.

        Raises:
            HauberkError: if the size does not divide C.
        """
        _check_groups(features.shape[1:], self.size)
        if self.size == 2:
            return _sorted_pairs(features)
        return in_groups(features, self.size).sort(dim=1, descending=True, stable=True).values.flatten(1, 2)

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """One: sorting never moves two vectors apart."""
        _check_groups(input_shape, self.size)
        return unit_bound(norm, "sorting")


class FullSort(nn.Module):
    """Sort all channels at each position, the largest first: ``GroupSort`` with one group.

    Source: Anil et al. 2019, GroupSort.

    Example:
        >>> import torch
        >>> from hauberk.layers import FullSort
        >>> FullSort()(torch.tensor([[3.0, 1.0, 2.0]]))
        tensor([[3., 2., 1.]])
    """

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, ...) to the same shape."""
        return features.sort(dim=1, descending=True, stable=True).values

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:  # noqa: ARG002
        """One: sorting never moves two vectors apart."""
        return unit_bound(norm, "sorting")


def _sorted_pairs(features: Tensor) -> Tensor:
    """The larger of each pair of channels first; exact for finite values, as one term of each sum is zero."""
    first, second = features.chunk(2, dim=1)
    # products: the backward pass of torch.maximum and torch.minimum takes several times longer
    ordered = (first >= second).to(features)
    swapped = 1.0 - ordered
    return torch.cat([ordered * first + swapped * second, swapped * first + ordered * second], dim=1)


def _check_groups(shape: Sequence[int], size: int) -> None:
    if not shape or shape[0] % size:
        raise HauberkError(f"groups of {size} do not divide the channels of {tuple(shape)}", "change width or size")


# --- one channel at a time -------------------------------------------------------------------------------------


class BetaAbs(nn.Module):
    r"""Absolute values of the first :math:`\beta C` channels (rounded), the others as they are.

    Args:
        beta: share of the channels, in [0, 1].

    Raises:
        HauberkError: if beta is not in [0, 1].

    Source: LipNeXt 2026, beta-Abs.

    Example:
        >>> import torch
        >>> from hauberk.layers import BetaAbs
        >>> BetaAbs(beta=0.5)(torch.tensor([[-1.0, -2.0]]))
        tensor([[ 1., -2.]])
    """

    def __init__(self, beta: float = 0.5) -> None:
        super().__init__()
        if not 0.0 <= beta <= 1.0:
            raise HauberkError(f"expected a share of channels in [0, 1], got {beta}", "use beta=0.5")
        self.beta = beta

    def extra_repr(self) -> str:
        """The share."""
        return f"beta={self.beta}"

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, ...) to the same shape."""
        folded = round(self.beta * features.shape[1])
        return torch.cat([features[:, :folded].abs(), features[:, folded:]], dim=1)

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:  # noqa: ARG002
        """One: the slopes are +1 and -1."""
        return unit_bound(norm, "slopes +1 and -1")


class NActivation(nn.Module):
    r"""Slopes +1, -1, +1 with learnable corners :math:`\theta_1 \le \theta_2` in each channel.

    .. math::
        N(x) = x - 2\,\mathrm{clip}(x, \theta_1, \theta_2) =
        \begin{cases} x - 2\theta_1 & x \le \theta_1 \\ -x & \theta_1 \le x \le \theta_2 \\
        x - 2\theta_2 & \theta_2 \le x \end{cases}

    The two parameters of a channel are sorted, so that each may be the smaller one.  Three slopes suffice to express
    every 1-Lipschitz function of one variable with 1-Lipschitz linear layers; two slopes (MaxMin, ReLU) do not.
    Channels start in turn as :math:`|x|` above -1 and as the identity (both corners at zero).

    Args:
        channels: channels C.

    Source: Prach & Lampert 2023, the N-activation.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        first = torch.zeros(channels)
        first[::2] = -1.0
        self.first = nn.Parameter(first)
        self.second = nn.Parameter(torch.zeros(channels))

    def extra_repr(self) -> str:
        """The number of channels."""
        return str(len(self.first))

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, C, ...) to the same shape.

        Raises:
            HauberkError: on another number of channels.
        """
        check_channels(features.shape[1:], len(self.first))
        # a minimum and a maximum would share the gradient of equal corners, which could then never part
        corners = torch.stack([self.first, self.second]).sort(dim=0, stable=True).values
        low, high = per_channel(corners, features)
        below, above = (features < low).to(features), (features > high).to(features)
        folded: Tensor = features * (2.0 * (below + above) - 1.0) - 2.0 * (below * low + above * high)
        return folded

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """One: the slopes are +1 and -1, wherever the corners are.

        Raises:
            HauberkError: on another number of channels, or corners that are NaN or infinite.
        """
        check_channels(input_shape, len(self.first))
        if not bool(torch.stack([self.first, self.second]).isfinite().all()):
            raise HauberkError("the corners hold NaN or infinity", "training diverged: load an earlier checkpoint")
        return unit_bound(norm, "slopes +1 and -1")
