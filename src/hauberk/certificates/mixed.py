"""The certificate of the mixed classifier: Lemma 3.2 of Bai et al. 2024 on a margin certificate of the robust base."""

from __future__ import annotations

from typing import Any

from pydantic.dataclasses import dataclass
from torch import nn

from hauberk import registry
from hauberk.batch import Batch
from hauberk.certificates.base import Certificate, Evidence
from hauberk.certificates.lipschitz import LipschitzCertificate
from hauberk.classifier import ABSTAIN, predictor_name
from hauberk.defences.mixed import MixedClassifier
from hauberk.errors import HauberkError
from hauberk.threats import CONFIG


def required_margin(alpha: float) -> float:
    r""":math:`\mu = (1-\alpha)/\alpha`, the margin the robust model must keep (Lemma 3.2)."""
    return (1.0 - alpha) / alpha


def needed_alpha(margin: float) -> float:
    r"""The smallest :math:`\alpha = 1/(1+\mu)` for which a margin :math:`\mu > 0` is enough, rounded up; else NaN."""
    return min(1.0, (1.0 + 1e-12) / (1.0 + margin)) if margin > 0.0 else float("nan")


@dataclass(frozen=True, config=CONFIG)
class MixedCertificate(Certificate):
    r"""What the robust model keeps, the mix keeps: Lemma 3.2.

    If :math:`p_y - p_i > (1-\alpha)/\alpha` for the robust model all over a ball and :math:`\alpha \ge 1/2`, then the
    mix predicts y all over the ball.  The accurate model may do anything: it can move each difference by at most
    :math:`1-\alpha`.  The strict inequality settles ties.  Where the robust model cannot keep the margin the mix still
    predicts, but nothing is proved: the certificate abstains.

    Args:
        base: the certificate of the robust model, applied to its logits times the mix's ``robust_scale``.
    """

    base: Certificate = LipschitzCertificate()

    def __post_init__(self) -> None:
        if isinstance(self.base, MixedCertificate):
            raise ValueError("the robust model needs a certificate of its own; a mix inside a mix has none")

    @property
    def failure_probability(self) -> float:
        """That of the base."""
        return self.base.failure_probability

    # class-level facts of the base, read from the object
    @property
    def norm(self) -> Any:  # type: ignore[override]
        """That of the base."""
        return self.base.norm

    @property
    def kind(self) -> Any:  # type: ignore[override]
        """That of the base."""
        return self.base.kind

    def gather(
        self, model: nn.Module, batch: Batch, seed: int, tile: int
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The base's evidence on the robust model, with alpha."""
        if not isinstance(model, MixedClassifier):
            raise HauberkError(
                f"mixed_margin certifies a mixed classifier, got {type(model).__name__}", "make one with: hauberk mix"
            )
        rows, shared = self.base.gather(model.robust, batch, seed, tile)
        if "logits" in rows[0] and model.robust_scale != 1.0:
            scale = model.robust_scale
            rows = [row | {"logits": [scale * z for z in row["logits"]]} for row in rows]
            shared = shared | {"pairwise": [[scale * k for k in line] for line in shared["pairwise"]]}
        return rows, shared | {"base": registry.spec(self.base)["name"], "mix_alpha": model.alpha}

    def decision(self, row: Evidence, shared: Evidence) -> int:
        """The robust model's class where it has the margin at the image itself, else abstain."""
        decided = self.base.decision(row, shared)
        if decided == ABSTAIN or shared["mix_alpha"] < 0.5:
            return ABSTAIN
        return decided if self.base.margin(row, shared, 0.0) > required_margin(shared["mix_alpha"]) else ABSTAIN

    def margin(self, row: Evidence, shared: Evidence, radius: float) -> float:
        r"""The mix's own margin: :math:`\alpha m_h(r) - (1-\alpha)`."""
        alpha = float(shared["mix_alpha"])
        return alpha * self.base.margin(row, shared, radius) - (1.0 - alpha)

    def radius(self, row: Evidence, shared: Evidence, margin: float = 0.0) -> float:
        r"""The base's radius at margin :math:`(1-\alpha+m)/\alpha`."""
        alpha = float(shared["mix_alpha"])
        needed = (1.0 - alpha + margin) / alpha if alpha > 0.0 else 1.0
        return self.base.radius(row, shared, needed) if alpha >= 0.5 and needed < 1.0 else 0.0

    def predictor(self, model: nn.Module) -> str:
        """The mix; over a smoothed base, the mix with exact vote probabilities, which no finite sample equals."""
        name = predictor_name(model)
        if self.kind == "deterministic" or not isinstance(model, MixedClassifier):
            return name
        return f"{name} with exact votes of {self.base.predictor(model.robust)}"
