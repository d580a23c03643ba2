"""Orthogonal matrices by Björck's iteration, and the linear layer made of one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.errors import HauberkError
from hauberk.layers.bound import Bound
from hauberk.layers.export import plain_linear
from hauberk.layers.gram import positive_bound
from hauberk.layers.norms import linear_norm
from hauberk.threats import Norm


class Bjorck(nn.Module):
    r"""Carry a matrix to the nearest one with orthonormal rows or columns, whichever are fewer.

    .. math:: X_0 = M / c, \qquad X_{i+1} = \tfrac12 X_i \big(3 I - X_i^* X_i\big), \qquad c \ge \|M\|_2

    A singular value s becomes :math:`\tfrac12 s (3 - s^2)`, which grows on (0, 1) and does not leave it: however few
    the steps, the result is a contraction, and singular values of zero stay zero.  Small ones grow by half a step;
    the papers divide by the Frobenius norm or by power iteration, of which one starts far below 1, the other may
    start above.

    Args:
        steps: number of iterations.

    Source: Björck & Bowie 1971 (the iteration of first order); Anil et al. 2019 (for networks).
    """

    def __init__(self, steps: int = 12) -> None:
        super().__init__()
        if steps < 0:
            raise HauberkError(f"expected a number of steps >= 0, got {steps}", "use the default of 12")
        self.steps = steps

    def forward(self, free: Tensor) -> Tensor:
        """Real or complex matrices, shape (..., m, n), to the same shape."""
        wide = free.shape[-2] < free.shape[-1]
        current = free.mH if wide else free
        current = current / positive_bound(current)[..., None, None]
        diagonal = 1.5 * torch.eye(current.shape[-1], dtype=free.dtype, device=free.device)
        for _ in range(self.steps):
            current = current @ (diagonal - 0.5 * (current.mH @ current))
        return current.mH if wide else current


class BjorckLinear(nn.Linear):
    r"""A linear layer with orthonormal rows or columns, whichever are fewer; see ``Bjorck``.

    As a last layer of fewer classes than features it makes every pair of logits differ by a function of Lipschitz
    constant :math:`\sqrt2`.  It starts as a random orthogonal matrix.

    Args:
        in_features: values that enter.
        out_features: values that leave.
        bias: whether to add a bias.
        steps: iterations.

    Raises:
        HauberkError: if ``steps`` is negative.

    Source: Anil, Lucas & Grosse 2019.

    Example:
        >>> from hauberk.layers import BjorckLinear
        >>> layer = BjorckLinear(8, 4).eval()
        >>> layer.lipschitz_bound((8,)).value <= 1.001
        True
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, steps: int = 12) -> None:
        super().__init__(in_features, out_features, bias)
        with torch.no_grad():
            nn.init.orthogonal_(self.weight)
            if self.bias is not None:
                self.bias.zero_()
        parametrize.register_parametrization(self, "weight", Bjorck(steps))

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:  # noqa: ARG002
        """The norm of the effective weight as it is, whether or not the iteration has converged."""
        return linear_norm(self.weight, norm)

    def export(self) -> nn.Linear:
        """A plain ``nn.Linear`` with the effective weight."""
        return plain_linear(self)
