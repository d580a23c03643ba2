r"""GloRo's bottom class in deployment: a net that abstains where its class is not certified (Leino et al. 2021).

.. math::
    \mathrm{decide}(x) = j \;\text{ if }\; z_j - z_k > \epsilon\,K_{jk} \text{ for all } k \ne j, \quad\text{else } \bot

which is the class of the largest of :math:`z_1, \dots, z_K` and :math:`z_\bot` (``objectives.gloro.bottom_logit``).  So
two images that are decided as different classes are at least :math:`2\epsilon` apart, and the clean accuracy of this
classifier is the accuracy that its certificate proves at :math:`\epsilon`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_args
from weakref import WeakKeyDictionary

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hauberk import registry
from hauberk.attacks.losses import AttackLoss
from hauberk.capabilities import Decides, NamedOutputs, NamesItself
from hauberk.classifier import ABSTAIN, Traits, classes, evaluating, predictor_name, weights_hash
from hauberk.errors import HauberkError
from hauberk.layers.freezing import materialised
from hauberk.layers.lipschitz import walk
from hauberk.randomness import Key
from hauberk.specs import Width
from hauberk.threats import CONFIG, Norm

RESERVE = 1e-3  # of every gap, left to the rounding that a certificate takes off it
Radius = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class BottomClass(nn.Module, Decides, NamesItself, NamedOutputs):
    r"""The class of ``base`` where no point within eps can have another one by its Lipschitz constants, else -1.

    ``forward`` gives the logits of the base, ``decide`` is the classifier itself.  The constants :math:`K_{jk}` are
    those of the walk over the base as it is, found anew when its weights change; a thousandth of every gap is reserved
    for rounding.

    Args:
        base: a Lipschitz net.
        eps: radius, pixel units.
        norm: in which it is measured.
    """

    traits = Traits()

    def __init__(self, base: nn.Module, eps: float, norm: Norm) -> None:
        super().__init__()
        if not 0.0 < eps < math.inf or norm not in get_args(Norm):
            raise HauberkError(f"expected a radius > 0 and a norm, got {eps} and {norm!r}", "for example eps: 0.5")
        self.base, self.eps, self.norm = base, eps, norm
        self.spec: dict[str, Any] = {}

    @property
    def predictor(self) -> str:
        """How records call it."""
        return f"bottom_class(eps={self.eps!r}, norm={self.norm!r}, {predictor_name(self.base)})"

    @property
    def adaptive_losses(self) -> tuple[AttackLoss, ...]:
        """The losses that an adaptive attack adds to AutoAttack."""
        return (BottomMargin(),)

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, C, H, W) to the base's logits (B, K), whether or not the class is certified."""
        logits: Tensor = self.base(images)
        return logits

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """``logits`` (B, K) of the base, and ``leads`` (B, K): positive where the image is decided as that class."""
        logits = self.base(images)
        return {"logits": logits, "leads": leads(logits, self.constants(images.shape[1:]), self.eps)}

    @torch.no_grad()
    def decide(self, images: Tensor, key: Key) -> Tensor:  # noqa: ARG002 - nothing is random
        """The base's class, (B,), int64; -1 where it is not proved within eps, or a logit is not finite."""
        told = self.outputs(images)
        top = classes(told["logits"])
        lead = told["leads"].gather(1, top.clamp_min(0)[:, None])[:, 0]
        return torch.where(lead > 0.0, top, ABSTAIN)

    def constants(self, input_shape: Sequence[int]) -> Tensor:
        """Lipschitz constants of the base's logit differences, (K, K), float64.

        Raises:
            HauberkError: if the walk refuses the base.
        """
        key = weights_hash(self.base), tuple(input_shape), self.norm
        if self.base not in _known or _known[self.base][0] != key:
            with evaluating(self.base):
                frozen = materialised(self.base, key[1])
                _known[self.base] = key, walk(frozen, key[1]).pairwise(self.norm)
        return _known[self.base][1]


# The constants of each base, with what they follow from; outside of the model, whose name holds all its attributes.
_known: WeakKeyDictionary[nn.Module, tuple[tuple[str, tuple[int, ...], str], Tensor]] = WeakKeyDictionary()


def leads(logits: Tensor, pairwise: Tensor, eps: float) -> Tensor:
    r"""By how much each class is ahead of all others at every point within eps, (B, K), computed in float64.

    .. math:: l_j = \min_{k \ne j} (1 - 10^{-3})(z_j - z_k) - \epsilon\,K_{jk}

    Args:
        logits: (B, K).
        pairwise: K, (K, K).
        eps: radius.
    """
    wide = logits.double()
    gaps = (1.0 - RESERVE) * (wide[:, :, None] - wide[:, None, :]) - eps * pairwise.to(wide)
    own = torch.eye(wide.shape[1], dtype=torch.bool, device=wide.device)
    return gaps.masked_fill(own, math.inf).amin(2).to(logits)


@dataclass(frozen=True, config=CONFIG)
class BottomMargin(AttackLoss):
    r"""Loss of an attack on a bottom class, :math:`\max_{j \ne y} l_j` with its leads l.

    It is positive exactly where the image is decided as a class that is not the label.
    """

    def __call__(self, outputs: Mapping[str, Tensor], labels: Tensor, targets: Tensor | None) -> Tensor:
        """Value of each row, (B,), from ``leads``; targeted, that of the target.

        Raises:
            HauberkError: if the model has no bottom class.
        """
        if "leads" not in outputs:
            raise HauberkError(
                f"the loss needs the outputs of a bottom class, but the model has {', '.join(outputs)}",
                "attack a model of kind bottom_class",
            )
        ahead = outputs["leads"]
        if targets is not None:
            return ahead.gather(1, targets[:, None])[:, 0]
        return ahead.scatter(1, labels[:, None], -math.inf).amax(1)


def bottom_class(
    base: nn.Module, eps: Radius, norm: Norm = "l2", input_shape: Sequence[Width] | None = None
) -> BottomClass:
    """Build a Lipschitz net that abstains where its class is not proved within eps.

    Args:
        base: a built model that the Lipschitz walk understands, or in a spec its description.
        eps: radius, pixel units.
        norm: in which it is measured: ``l2``, ``l1`` or ``linf``.
        input_shape: (C, H, W) of the images; None reads it from the base's spec.

    Raises:
        HauberkError: if the walk refuses the base.

    Reference: Leino et al. 2021.
    """
    spec = registry.spec(base)
    shape = spec.get("input_shape") if input_shape is None else input_shape
    if shape is None:
        raise HauberkError(f"{spec['name']} does not say its input shape", "give input_shape, for example (3, 32, 32)")
    model = BottomClass(base, eps, norm)
    model.constants(shape)  # a base without bounds is refused before anybody trains it
    model.spec = {"name": "bottom_class", "base": spec, "eps": eps, "norm": norm, "input_shape": list(shape)}
    return model
