r"""Networks of one hidden layer of ReLU, whose logit differences in Linf are bounded by a semidefinite dual.

.. math:: f(x) = V\,\mathrm{relu}(W x + b) + a, \qquad v = V_i - V_j

Between two points x and x' the ReLUs act as a diagonal matrix with entries in [0, 1], written :math:`(1 + s_k) / 2`
with s in :math:`[-1, 1]^m`.  With :math:`x' - x = \epsilon t` and t in :math:`[-1, 1]^d`,

.. math::
    (f_i - f_j)(x') - (f_i - f_j)(x) = \tfrac\epsilon2\, t^\top B u, \qquad
    B = [\,W^\top v,\; W^\top \mathrm{diag}(v)\,], \quad u = (1, s),

which is :math:`\tfrac\epsilon4 y^\top M y` of the source, y = (1, t, s).  For all positive p and q

.. math::
    t^\top B u \;\le\; \big\|\mathrm{diag}(p)^{-1} B\,\mathrm{diag}(q)^{-1}\big\|_2\,\|p\|_2\,\|q\|_2,

because :math:`\|\mathrm{diag}(p)\,t\| \le \|p\|`.  So :math:`K_{ij}`, half of the right side, is a Lipschitz constant
in Linf, for every image at once.  The best p and q give the optimum of the source's dual: with N the scaled matrix and
:math:`c = \|N\|\,(q_0^2, p^2, q_1^2, \dots)`, :math:`M \preceq \mathrm{diag}(c)`, and the source's bound is a quarter
of the sum of c, which is K where p and q are of the same length.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hauberk.errors import HauberkError
from hauberk.layers.bound import SLACK, Bound
from hauberk.layers.lipschitz import model_bound, walk
from hauberk.layers.norms import linear_norm
from hauberk.threats import Norm

SPREAD = 10.0  # the largest p and q are so many powers of e above the smallest


class OneHiddenLayer(nn.Module):
    r"""A classifier of one hidden layer, with dual variables p and q for each pair of its classes.

    Whatever the dual variables are, the bounds hold; training makes them tight (``objectives.semidefinite_dual``).

    Args:
        features: values of an image d.
        hidden: hidden units m.
        classes: logits K.

    Source: Raghunathan et al. 2018, Sections 3 and 4.
    """

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.net = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes))
        pairs = classes * (classes - 1) // 2
        self.log_p = nn.Parameter(torch.zeros(pairs, features))
        self.log_q = nn.Parameter(torch.zeros(pairs, 1 + hidden))

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, d) to (B, K)."""
        logits: Tensor = self.net(features)
        return logits

    def weighted_branches(self) -> list[tuple[float, nn.Module]]:
        """The network, whose sums are followed layer by layer."""
        return [(1.0, self.net)]

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """Of the vector of logits: the product of the two layers' norms."""
        if len(input_shape) != 1:
            raise HauberkError(f"expected flat features, got {tuple(input_shape)}", "put nn.Flatten() before it")
        return model_bound(self.net, input_shape, norm)

    @torch.no_grad()
    def pairwise_bounds(self, input_shape: Sequence[int], norm: Norm = "l2") -> Tensor:
        """Of the differences of two logits, (K, K) float64: products of norms, in Linf the dual where it is smaller.

        Raises:
            HauberkError: on NaN in the dual variables or the weights.
        """
        product = walk(self.net, input_shape).pairwise(norm)
        if norm != "linf":
            return product
        scaled, size, error = self.duals(torch.float64)
        if not bool(scaled.isfinite().all() and size.isfinite().all()):
            raise HauberkError(
                "the dual variables hold NaN or infinity", "training diverged: load an earlier checkpoint"
            )
        norms = torch.tensor([linear_norm(n).value for n in scaled], dtype=torch.float64)  # on the CPU: a bound
        found = torch.zeros_like(product)
        rows, columns = self._pairs().cpu()
        found[rows, columns] = 0.5 * (norms + error.cpu()) * size.cpu() * (1.0 + SLACK)
        return torch.minimum(product, found + found.T)

    def duals(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        r"""The factors of the bounds :math:`K = \frac12 \|N\|_2\,\|p\|\,\|q\|`, for the pairs i < j in order.

        Returns:
            N, (P, d, 1 + m); the product of the lengths of p and q, (P,); and how far rounding of the sums
            :math:`W^\top v` may have moved N, (P,), a bound in float64.
        """
        first, last = (layer.weight.to(dtype) for layer in self.net if isinstance(layer, nn.Linear))
        rows, columns = self._pairs()
        inner = first.T * (last[rows] - last[columns])[:, None, :]
        p, q = _positive(self.log_p.to(dtype)), _positive(self.log_q.to(dtype))
        matrix = torch.cat([inner.sum(2, keepdim=True), inner], 2) / (p[:, :, None] * q[:, None, :])
        size = torch.linalg.vector_norm(p, dim=1) * torch.linalg.vector_norm(q, dim=1)
        lost = inner.detach().abs().sum(2) / (p * q[:, :1]).detach()
        share = torch.finfo(dtype).eps * (inner.shape[2] + 8)
        return matrix, size, share * torch.linalg.vector_norm(lost, dim=1)

    def _pairs(self) -> Tensor:
        """Rows i and columns j of the pairs, (2, P)."""
        return torch.triu_indices(self.classes, self.classes, 1, device=self.log_p.device)


def _positive(logs: Tensor) -> Tensor:
    """Positive numbers of largest value 1; only their ratios matter."""
    return (logs - logs.amax(1, keepdim=True)).clamp(min=-SPREAD).exp()
