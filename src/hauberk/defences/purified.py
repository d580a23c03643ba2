"""A classifier behind a step that is meant to remove attacks from its images."""

from __future__ import annotations

from typing import Any, Self

from torch import Tensor, nn

from hauberk.capabilities import Decides, HasParts
from hauberk.classifier import Traits
from hauberk.errors import HauberkError


class PurifiedClassifier(nn.Module, HasParts):
    r"""A classifier that sees its images through a purifier, :math:`f(x) = c(P(x))`.

    P itself declares what an attack must know of it: traits for a gradient that is blocked, ``Random`` for noise.  The
    suite follows them, with EOT, BPDA or the plain gradient of the whole.  The part ``undefended`` is c alone: an
    attack on it whose points are tried on the whole model is the oblivious attack, which does not take P into account.
    It is in the suite beside the attacks on the whole model.

    Args:
        base: the classifier c, of which only the logits are used.
        purifier: P, from (B, C, H, W) to images that c takes, possibly of another size.
        guided: whether c is frozen, without gradients and in eval mode whatever the mode of the whole, so that only the
            purifier is trained.

    Source: Athalye, Carlini & Wagner 2018, Section 4 (attacks on such a step).
    """

    traits = Traits()

    def __init__(self, base: nn.Module, purifier: nn.Module, guided: bool = False) -> None:
        super().__init__()
        if isinstance(base, Decides):
            raise HauberkError(
                f"{type(base).__name__} has a decision rule of its own, and only its logits would be used",
                "put the purifier before the network inside it",
            )
        self.base, self.purifier, self.guided = base, purifier, guided
        if guided:
            self.base.requires_grad_(False).eval()
        self.spec: dict[str, Any] = {}

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the whole; a classifier that guides stays in eval mode."""
        super().train(mode)
        if self.guided:
            self.base.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, C, H, W) to the classifier's logits at the purified images, (B, K)."""
        logits: Tensor = self.base(self.purifier(images))
        return logits

    def parts(self) -> dict[str, nn.Module]:
        """The classifier without the purifier."""
        return {"undefended": self.base}
