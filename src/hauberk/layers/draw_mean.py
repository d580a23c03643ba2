"""The mean of a random network over fixed public draws: a function, and one that a walk can bound."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from hauberk.boundary import called
from hauberk.capabilities import FixesDraws
from hauberk.draws import drawn
from hauberk.errors import HauberkError
from hauberk.layers.bound import Bound
from hauberk.layers.lipschitz import model_bound
from hauberk.randomness import PublicDraw
from hauberk.threats import Norm


class DrawMean(nn.Module, FixesDraws):
    r"""The mean over K draws, :math:`y = \tfrac1K \sum_k f(x; \omega_k)`, of constant :math:`\tfrac1K \sum_k L_k`.

    The noise :math:`\omega_k` follows from (seed, k) and the names of the random parts only: it is the same for all
    images, and in every call. The draws share one set of weights.

    Args:
        body: f, a module with random parts.
        draws: K.
        seed: of the draws.

    Raises:
        HauberkError: on no draw, or a negative seed.
    """

    def __init__(self, body: nn.Module, draws: int, seed: int = 0) -> None:
        super().__init__()
        if draws < 1 or seed < 0:
            raise HauberkError(f"expected at least one draw and a seed >= 0, got {draws} and {seed}", "draws: 8")
        self.body, self.draws, self.seed = body, draws, seed

    def bodies(self) -> list[nn.Module]:
        """The body with the noise of each draw; all share its weights."""
        return [drawn(self.body, PublicDraw(self.seed, number)) for number in range(self.draws)]

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, ...) to the shape of the body's output."""
        first, *others = self.bodies()
        total: Tensor = called(first, features)
        for body in others:
            total = total + called(body, features)
        return total / self.draws

    def weighted_branches(self) -> list[tuple[float, nn.Module]]:
        """The draws, with 1/K each."""
        return [(1.0 / self.draws, body) for body in self.bodies()]

    def lipschitz_bound(self, input_shape: Sequence[int], norm: Norm = "l2") -> Bound:
        """That of the body, which holds for every draw: a mean moves no faster than the fastest of its terms."""
        every = model_bound(self.body, input_shape, norm)
        return Bound(every.value, f"every draw: {every.method}", every.exact and self.draws == 1)
