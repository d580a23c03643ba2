"""An estimate, not a proof: how far an attack can move each probability within a budget (Bai et al. 2024, C.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hauberk.attacks.apgd import APGD
from hauberk.attacks.losses import AttackLoss, LossName
from hauberk.batch import Batch
from hauberk.certificates.base import Certificate, Proof
from hauberk.certificates.evidence import WorstPoints
from hauberk.classifier import ABSTAIN, Decides, logits_of, predictor_name
from hauberk.errors import HauberkError
from hauberk.threats import CONFIG, Norm, Threat

Floats = NDArray[np.float64]


def class_constants(clean: Floats, points: Floats, label: int, eps: float) -> tuple[float, Floats]:
    r"""One-sided local Lipschitz constants over the ball, as far as the points show them.

    .. math::
        L_y = \frac1\epsilon \max_\delta (p_y(x) - p_y(x+\delta)), \quad
        L_i = \frac1\epsilon \max_\delta (p_i(x+\delta) - p_i(x))

    Args:
        clean: probabilities at the image, (K).
        points: probabilities at points of the ball, (n, K); the image itself is always one more.
        label: y.
        eps: the budget.

    Returns:
        :math:`L_y`, and :math:`L_i` of the other classes in order, (K-1).
    """
    rise = np.maximum(points.max(0) - clean, 0.0) / eps
    return max(0.0, float(clean[label] - points[:, label].min())) / eps, np.delete(rise, label)


def local_lipschitz(clean: Floats, points: Floats, label: int, eps: float, as_printed: bool = False) -> float:
    r"""The local Lipschitz constant averaged over the classes, Eq. 12 with its signs corrected.

    .. math::
        \widehat{\mathrm{Lip}} = \frac{1}{c\,\epsilon} \Big(\max_\delta (p_y(x) - p_y(x+\delta))
        + \sum_{i\ne y} \max_\delta (p_i(x+\delta) - p_i(x))\Big)

    Points that an attack found give a lower bound of each maximum, so this is an estimate from below.  Being an
    average over classes it describes a model; Theorem 3.5 needs the constants one by one (``class_constants``).

    Erratum: Eq. 12 is printed with :math:`\max_\delta (p_y(x+\delta) - p_y(x))`, the rise of the class that an
    attack lowers, and the sum is subtracted.  It then measures neither of the two conditions stated above it, and is
    negative as a rule.

    Args:
        clean: probabilities at the image, (K).
        points: probabilities at points of the ball, (n, K).
        label: y.
        eps: the budget.
        as_printed: the printed formula, to compare; its points should include some that raise :math:`p_y`.

    Reference: Bai et al. 2024, Eq. 12.
    """
    own, others = class_constants(clean, points, label, eps)
    if as_printed:
        rise = max(0.0, float(points[:, label].max() - clean[label])) / eps
        return float(rise - others.sum()) / len(clean)
    return float(own + others.sum()) / len(clean)


@dataclass(frozen=True, config=CONFIG)
class ClassChange(AttackLoss):
    r"""Lower :math:`p_k` where k is the label, raise it elsewhere; on a log scale, so that gradients survive.

    Args:
        k: the class.
    """

    k: int

    def __call__(self, outputs: Mapping[str, Tensor], labels: Tensor, targets: Tensor | None) -> Tensor:  # noqa: ARG002
        """Of each row, (B,)."""
        value = outputs["logits"].log_softmax(1)[:, self.k]
        return torch.where(labels == self.k, -value, value)


@dataclass(frozen=True, config=CONFIG)
class LocalLipschitz(Certificate[WorstPoints]):
    r"""Pass or fail at one budget: does the probability margin survive the worst points that APGD finds?

    One search lowers :math:`p_y`, one for each other class raises :math:`p_i`, and one lowers the margin itself.  The
    model passes with radius eps if the smallest :math:`p_y - \max_i p_i` of all points that were seen is large
    enough, else the radius is 0: the points lie anywhere in the ball and say nothing of smaller or larger ones.  A
    stronger attack may find a worse point, so this is an estimate, never a proof.

    Of a mix take ``mixed_margin`` with this as its base: the smallest margin is then compared with
    :math:`(1-\alpha)/\alpha`.  With ``bound: theorem_3_5`` it is instead the paper's relaxed condition, Theorem 3.5
    with ``class_constants``, which lowers :math:`p_y` and raises each :math:`p_i` at different points and passes
    fewer images.

    Args:
        threat: norm and budget.
        steps: of each APGD search.
        restarts: of each search.

    Reference: Bai et al. 2024, Appendix C.3; the sign of its Eq. 12 is wrong, see ``local_lipschitz``.
    """

    threat: Threat
    steps: Annotated[int, Field(ge=1)] = 20
    restarts: Annotated[int, Field(ge=1)] = 1

    kind: ClassVar[Proof] = "estimate"

    def __post_init__(self) -> None:
        if not self.threat.eps > 0.0:
            raise ValueError("a local Lipschitz constant needs a budget above 0")

    @property
    def norm(self) -> Norm:
        """That of the threat."""
        return self.threat.norm

    @property
    def failure_probability(self) -> float:
        """1: nothing is guaranteed."""
        return 1.0

    def gather(self, model: nn.Module, batch: Batch, seed: int, tile: int) -> list[WorstPoints]:
        """Probabilities at the image, and at the worst points for each class and for the margin."""
        if isinstance(model, Decides):
            raise HauberkError(
                "local_lipschitz follows gradients of probabilities, but this model decides by a vote",
                "certify a smoothed model instead: --method smoothing",
            )
        clean = logits_of(model, batch, tile)
        own = Batch(batch.images, clean.argmax(1), batch.ids)  # its own classes: labels are not read
        losses: list[AttackLoss | LossName] = [*map(ClassChange, range(clean.shape[1])), "margin"]
        found = [
            APGD(self.threat, loss, early_stop=False, steps=self.steps, restarts=self.restarts)(model, own, seed, tile)
            for loss in losses
        ]
        least = torch.stack([f.probability_margin for f in found]).argmin(0)
        place = torch.arange(len(least), device=least.device)
        worst = torch.stack([f.probability_margin_point for f in found])[least, place]
        points = [*(f.best_loss_point for f in found[:-1]), worst]
        there = [logits_of(model, Batch(p, own.labels, own.ids), tile).double().softmax(1) for p in points]
        rows = zip(clean.double().softmax(1).cpu().numpy(), torch.stack(there, 1).cpu().numpy(), strict=True)
        return [WorstPoints(at, seen, self.threat.norm, self.threat.eps) for at, seen in rows]

    def decision(self, seen: WorstPoints) -> int:
        """The most likely class at the image; abstains where a probability is NaN."""
        sane = np.isfinite(seen.clean).all() and np.isfinite(seen.points).all()
        return int(seen.clean.argmax()) if sane else ABSTAIN

    def margin(self, seen: WorstPoints, radius: float) -> float:
        """The margin at the image for radius 0, the smallest one seen up to the budget, and -1 beyond it.

        Raises:
            HauberkError: on points of another threat.
        """
        if (seen.norm, seen.eps) != (self.threat.norm, self.threat.eps):
            raise HauberkError(
                f"the points were searched for in {seen.norm}:{seen.eps!r}, but the certificate is for {self.threat}",
                "gather them again",
            )
        y = self.decision(seen)
        if y == ABSTAIN or radius > self.threat.eps:
            return -1.0
        table = np.vstack([seen.clean, seen.points] if radius > 0.0 else [seen.clean])
        return float((table[:, y] - np.delete(table, y, 1).max(1)).min())

    def radius(self, seen: WorstPoints, margin: float = 0.0) -> float:
        """The budget where the smallest margin seen is above ``margin``, else 0."""
        return self.threat.eps if self.margin(seen, self.threat.eps) > margin else 0.0

    def predictor(self, model: nn.Module) -> str:
        """The network itself."""
        return predictor_name(model)
