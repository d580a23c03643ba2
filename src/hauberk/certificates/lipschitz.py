"""Deterministic certificates from Lipschitz bounds of logit differences."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import ClassVar

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import nn

from hauberk.batch import Batch
from hauberk.certificates.base import Certificate, Proof, largest_radius, round_down
from hauberk.certificates.deployed import compare
from hauberk.certificates.evidence import Constants, Floats, LogitMargins
from hauberk.certificates.gate import check_composite, walked
from hauberk.certificates.rounding import exact_forward
from hauberk.classifier import ABSTAIN, decide, predictor_name
from hauberk.defences.bottom_class import BottomClass
from hauberk.errors import HauberkError
from hauberk.threats import CONFIG, Norm


@dataclass(frozen=True, config=CONFIG)
class LipschitzCertificate(Certificate[LogitMargins]):
    r"""Margin over Lipschitz bound: :math:`R = \min_{j\ne y} (z_y - z_j) / K_{yj}`.

    :math:`K_{yj}` bounds the Lipschitz constant of :math:`z_y - z_j`: in L2 the product of the layers' bounds times
    :math:`\|w_y - w_j\|_2` of the last layer (Singla et al. 2022, Proposition 1); in L1 and Linf the best of what the
    layers' own norms and norm equivalence give (``layers.lipschitz``).  The proof is about the frozen predictor
    (``freeze``): the weights as the model computes them in its own dtype, evaluated in float64.  Ties and NaN give
    radius 0.  Of a ``BottomClass`` the network inside it is walked: where it abstains at the image there is radius 0,
    elsewhere no point within the radius is decided as another class, though some may be decided as none.

    Args:
        norm: in which the image moves, and the radius is measured.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from hauberk.batch import Batch
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).eval()
        >>> _ = net[1].weight.data.copy_(torch.tensor([[1.0, -1, 0, 0], [-1, 1, 0, 0]]))  # is pixel 0 brighter?
        >>> batch = Batch(torch.tensor([0.6, 0.5, 0, 0]).reshape(1, 1, 2, 2), torch.tensor([0]), torch.tensor([0]))
        >>> from hauberk.certificates import LipschitzCertificate
        >>> proof = LipschitzCertificate()(net, batch)
        >>> proof.prediction, proof.radius.round(decimals=4)  # the true distance is 0.1 / sqrt(2)
        (tensor([0]), tensor([0.0707], dtype=torch.float64))
    """

    norm: Norm = "l2"
    kind: ClassVar[Proof] = "deterministic"
    revision: ClassVar[int] = 2

    def admitted(self, model: nn.Module, batch: Batch, tile: int) -> AbstractContextManager[None]:
        """The proof walks the model; a layer of the user's own is also asked whether it answers each row by itself."""
        if isinstance(model, BottomClass):
            check_composite(model, BottomClass)
        return walked(network(model), batch.images, tile)

    def gather(self, model: nn.Module, batch: Batch, seed: int, tile: int) -> list[LogitMargins]:  # noqa: ARG002
        """Logits of the frozen predictor for each row, their rounding, and the model as it is; bounds for all rows."""
        inner = network(model)
        bounds, forward = exact_forward(inner, tuple(batch.images.shape[1:]))
        images = Batch(batch.images.double(), batch.labels, batch.ids)
        parts = [[column[:used] for column in forward(t.images)] for t, used in images.tiles(tile)]
        logits, rounding = (torch.cat(column) for column in zip(*parts, strict=True))
        found = compare(inner, forward, batch, tile, logits, rounding)
        classes = found.classes
        if inner is not model:
            classes = torch.where(decide(model, batch, tile=tile) == ABSTAIN, ABSTAIN, classes)
        speeds = forward.pairwise.get(self.norm)  # the same for all images, and K * K norms
        if speeds is None:
            speeds = forward.pairwise[self.norm] = bounds.pairwise(self.norm).numpy()
        constants = Constants(speeds, self.norm, forward.name, tuple(
            {"name": b.name, "kind": b.kind, "value": b.bound.value, "method": b.bound.method, "norm": b.norm}
            for b in bounds.layers(self.norm)
        ))  # fmt: skip
        columns = (logits, rounding + found.lost, classes, found.distance, found.explained)
        return [
            LogitMargins(tuple(z), constants, *others)
            for z, *others in zip(*(column.tolist() for column in columns), strict=True)
        ]

    def decision(self, seen: LogitMargins) -> int:
        """The class of the largest logit; abstains on NaN, and where the model in its own precision disagrees.

        It disagrees if it decides otherwise, or if its logits are farther away than rounding explains.
        """
        if not np.isfinite(seen.logits).all() or not seen.distance <= seen.explained:
            return ABSTAIN
        return seen.top if seen.deployed in (None, seen.top) else ABSTAIN

    def gaps(self, seen: LogitMargins) -> tuple[Floats, Floats]:
        """For the K - 1 rivals: the logit gap, minus what rounding may have added, and its Lipschitz bound.

        Raises:
            HauberkError: on constants of another norm.
        """
        if seen.constants.norm != self.norm:
            raise HauberkError(
                f"the Lipschitz constants are for {seen.constants.norm}, but the certificate is for {self.norm}",
                "gather them again",
            )
        y = self.decision(seen)
        logits, bounds = np.asarray(seen.logits), seen.constants.pairwise[y]
        rivals = np.arange(len(logits)) != y
        return (logits[y] - logits - seen.lost)[rivals], bounds[rivals]

    def margin(self, seen: LogitMargins, radius: float) -> float:
        r"""Propagate logit gaps: with :math:`d_j^- = d_j - K_j r`, :math:`p_y \ge p^- = 1/(1+\sum_j e^{-d_j^-})` and

        :math:`p_y - p_j \ge p^-(1 - e^{-\min_j d_j^-})` wherever :math:`\min_j d_j^- \ge 0`; else -1.
        """  # noqa: D415
        if self.decision(seen) == ABSTAIN:
            return -1.0
        return kept_margin(*self.gaps(seen), radius)

    def radius(self, seen: LogitMargins, margin: float = 0.0) -> float:
        """Closed form for margin 0, bisection on the monotone ``margin`` above it."""
        if self.decision(seen) == ABSTAIN:
            return 0.0
        plain = float(reach(*self.gaps(seen)).min())
        if not math.isfinite(plain):  # a constant network: any finite number is sound, none is useful
            return 0.0
        if margin > 0.0:
            plain = largest_radius(lambda r: self.margin(seen, r) * (1.0 - 1e-12), margin, plain)
        return round_down(plain)

    def predictor(self, model: nn.Module) -> str:
        """The network itself."""
        return predictor_name(model)


def network(model: nn.Module) -> nn.Module:
    """The network that the walk proves: the one inside a bottom class, else the model itself."""
    return model.base if type(model) is BottomClass else model


def kept_margin(gaps: Floats, bounds: Floats, radius: float) -> float:
    """The margin of the softmax that logit gaps keep at a radius; see ``LipschitzCertificate.margin``."""
    least = gaps - bounds * radius
    smallest = float(least.min())
    if not smallest >= 0.0:
        return -1.0
    probability = 1.0 / (1.0 + math.fsum(np.exp(-least).tolist()))
    return probability * -math.expm1(-smallest)


def reach(gaps: Floats, bounds: Floats) -> Floats:
    """How far an image may move before a gap closes; a rival that cannot move is out of reach, unless it is level.

    Where the bound is negative or NaN nothing is known, and the gap counts as level.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = np.where(bounds > 0.0, gaps / bounds, np.where((bounds == 0.0) & (gaps > 0.0), np.inf, 0.0))
    return np.where(np.isnan(found), 0.0, found)
