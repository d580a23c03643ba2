r"""SDP-based Lipschitz layers: residual blocks whose hidden units are rescaled one by one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.layers.aol import correlation_sums, inverse_root
from hauberk.layers.cpl import PotentialConv2d, PotentialLinear
from hauberk.layers.norms import Padding


class HiddenRescaling(nn.Module):
    r"""Rescale the rows of a weight so that its norm is at most 1, with learnable weights of the rows.

    .. math:: U = T^{1/2} W, \qquad T_{ii} = \Big(\sum_j |W W^\top|_{ij}\,\frac{q_j}{q_i}\Big)^{-1}, \qquad q = e^{s}

    Proof.  :math:`Q^{-1}(T^{-1} - W W^\top) Q` with Q = diag(q) is diagonally dominant, so its eigenvalues, which are
    those of the symmetric :math:`T^{-1} - W W^\top`, are not negative: :math:`U U^\top \preceq I`.  Rows of zeros stay
    zero; they are where the published epsilon, or a division by 0, goes wrong.  For a convolution the sum runs over all
    shifts too.

    Args:
        rows: number of hidden channels.
        groups: of the convolution.

    Source: Araujo et al. 2023, the choice of T by Gershgorin circles (there W stands for the transpose).
    """

    def __init__(self, rows: int, groups: int = 1) -> None:
        super().__init__()
        self.groups = groups
        self.log_q = nn.Parameter(torch.zeros(rows))

    def forward(self, weight: Tensor) -> Tensor:
        """The effective weight, shape (hidden, in) or (hidden, in / groups, kh, kw) as the free one."""
        kernel = weight if weight.dim() == 4 else weight[:, :, None, None]
        sums = correlation_sums(kernel.reshape(self.groups, -1, *kernel.shape[1:]))
        # within the range of float32 whatever training does
        q = self.log_q.clamp(-20.0, 20.0).exp().reshape(self.groups, -1)
        scale = inverse_root((sums @ q[:, :, None])[:, :, 0] / q)
        return weight * scale.reshape(-1, *[1] * (weight.dim() - 1))


class SLLConv2d(PotentialConv2d):
    r"""An SDP-based Lipschitz layer, :math:`y = x - 2\,W^\top T\,\mathrm{relu}(Wx + b)`, 1-Lipschitz.

    Written with :math:`U = T^{1/2} W` it is the block of ``PotentialConv2d``, because :math:`T\,\mathrm{relu}(z) =
    T^{1/2}\,\mathrm{relu}(T^{1/2} z)`; the bias here is :math:`T^{1/2} b`.

    Args:
        channels: as in ``PotentialConv2d``, like all that follow.
        hidden: see there.
        kernel_size: see there.
        groups: see there.
        bias: see there.
        padding_mode: see there.

    Source: Araujo et al. 2023, the residual SDP-based layer; see ``HiddenRescaling``.

    Example:
        >>> from hauberk.layers import SLLConv2d
        >>> layer = SLLConv2d(4).eval()
        >>> layer.lipschitz_bound((4, 8, 8)).value <= 1.001
        True
    """

    def __init__(
        self,
        channels: int,
        hidden: int | None = None,
        kernel_size: int | tuple[int, int] = 3,
        *,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Padding = "zeros",
    ) -> None:
        super().__init__(channels, hidden, kernel_size, groups=groups, bias=bias, padding_mode=padding_mode)
        parametrize.register_parametrization(self, "weight", HiddenRescaling(self.out_channels, groups))


class SLLLinear(PotentialLinear):
    """An SDP-based Lipschitz layer on vectors; see ``SLLConv2d``.

    Args:
        features: that enter and leave.
        hidden: rows of W, as many as enter if not given.
        bias: whether to add b.

    Source: Araujo et al. 2023, the residual SDP-based layer.

    Example:
        >>> from hauberk.layers import SLLLinear
        >>> layer = SLLLinear(8).eval()
        >>> layer.lipschitz_bound((8,)).value <= 1.001
        True
    """

    def __init__(self, features: int, hidden: int | None = None, bias: bool = True) -> None:
        super().__init__(features, hidden, bias)
        parametrize.register_parametrization(self, "weight", HiddenRescaling(self.out_features))
