"""The last layer with rows of unit length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.layers.bound import Bound
from hauberk.layers.export import plain_linear
from hauberk.layers.norms import linear_norm
from hauberk.threats import Norm


class UnitRows(nn.Module):
    r"""Scale each row of a matrix to unit length, :math:`w_i / \|w_i\|_2`; a zero row stays zero."""

    def forward(self, weight: Tensor) -> Tensor:
        """Shape (out, in) to the same shape."""
        length = torch.linalg.vector_norm(weight, dim=1, keepdim=True)
        return weight / torch.where(length > 0, length, 1.0)


class UnitRowLinear(nn.Linear):
    r"""A last layer whose rows have unit length but need not be orthogonal (last-layer normalisation).

    Two logits then differ by a function of Lipschitz constant :math:`\|w_i - w_j\| \le 2` of the features.

    Source: Singla et al. 2022, last-layer normalisation.

    Args:
        in_features: values that enter.
        out_features: number of classes K.
        bias: whether to add a bias.

    Example:
        >>> from hauberk.layers import UnitRowLinear
        >>> layer = UnitRowLinear(8, 4)
        >>> layer.weight.norm(dim=1).detach().allclose(layer.weight.new_ones(4))
        True
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        parametrize.register_parametrization(self, "weight", UnitRows())

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:  # noqa: ARG002
        """The norm of the effective weight as it is."""
        return linear_norm(self.weight, norm)

    def export(self) -> nn.Linear:
        """A plain ``nn.Linear`` with the effective weight."""
        return plain_linear(self)
