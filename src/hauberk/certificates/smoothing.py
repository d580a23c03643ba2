"""Randomised smoothing: a probabilistic L2 certificate for the vote under Gaussian noise (Cohen et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from hauberk.batch import Batch
from hauberk.certificates.base import Certificate, Evidence, Proof, round_down
from hauberk.certificates.gate import black_box, check_composite, check_part
from hauberk.classifier import ABSTAIN, predictor_name
from hauberk.defences.smoothed import SmoothedClassifier, noisy_votes, smoothed_name
from hauberk.errors import HauberkError
from hauberk.noise import Gaussian
from hauberk.statistics import clopper_pearson_lower
from hauberk.threats import CONFIG, Norm


@dataclass(frozen=True, config=CONFIG)
class SmoothingCertificate(Certificate):
    r"""CERTIFY of Cohen et al. 2019: the class is chosen on n0 votes, its probability bounded on n fresh ones.

    .. math:: R = \sigma\,\Phi^{-1}(\underline{p_A}), \quad \underline{p_A} = \text{Beta}^{-1}(\alpha; n_A, n - n_A + 1)

    The bound is one-sided Clopper-Pearson at level :math:`1-\alpha`; at or below 1/2 the certificate abstains.  What is
    certified is the smoothed classifier g, not its base.  n is fixed before looking.

    Args:
        sigma: noise level in pixel units.
        n0: votes that choose the class.
        n: votes that bound its probability.
        alpha: failure probability of one image.
    """

    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    n0: Annotated[int, Field(ge=1)] = 100
    n: Annotated[int, Field(ge=1)] = 100_000
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.001

    norm: ClassVar[Norm] = "l2"
    kind: ClassVar[Proof] = "probabilistic"

    @property
    def failure_probability(self) -> float:
        """Alpha."""
        return self.alpha

    @contextmanager
    def admitted(self, model: nn.Module, batch: Batch, tile: int) -> Iterator[None]:
        """A smoothed classifier is known; its base, or the model that is smoothed here, is a black box."""
        if isinstance(model, SmoothedClassifier):
            check_composite(model, SmoothedClassifier)
        base = self._base(model)
        check_part(base)
        with black_box(base, batch.images, tile, self.sigma, "base"):
            yield

    def gather(
        self, model: nn.Module, batch: Batch, seed: int, tile: int
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Vote counts of two separate samples for each row."""
        base = self._base(model)
        noise, rows = Gaussian(self.sigma), []
        for image, sample_id in zip(batch.images, batch.ids.tolist(), strict=True):
            row = {}
            for name, count in (("counts0", self.n0), ("counts", self.n)):  # two separate streams
                key = (seed, sample_id, f"smoothing-{name}")
                row[name] = noisy_votes(base, image, noise, count, key, tile).tolist()
            rows.append(row)
        return rows, {"sigma": self.sigma, "n0": self.n0, "n": self.n, "alpha": self.alpha}

    def _base(self, model: nn.Module) -> nn.Module:
        if not isinstance(model, SmoothedClassifier):
            return model
        if model.noise.sigma != self.sigma:
            raise HauberkError(
                f"the model is smoothed with sigma {model.noise.sigma}, the certificate asks for {self.sigma}",
                "use the same sigma for both",
            )
        return model.base

    def _probability(self, row: Evidence) -> tuple[int, float]:
        """The chosen class and the lower bound of its probability."""
        chosen = int(torch.tensor(row["counts0"]).argmax())
        return chosen, clopper_pearson_lower(row["counts"][chosen], self.n, self.alpha)

    def decision(self, row: Evidence, shared: Evidence) -> int:  # noqa: ARG002
        """The chosen class where its bound exceeds 1/2, else abstain."""
        chosen, bound = self._probability(row)
        return chosen if bound > 0.5 else ABSTAIN

    def margin(self, row: Evidence, shared: Evidence, radius: float) -> float:  # noqa: ARG002
        """See ``noise.Gaussian.margin``."""
        return Gaussian(self.sigma).margin(self._probability(row)[1], radius)

    def radius(self, row: Evidence, shared: Evidence, margin: float = 0.0) -> float:  # noqa: ARG002
        """See ``noise.Gaussian.radius``."""
        bound = self._probability(row)[1]
        return round_down(Gaussian(self.sigma).radius(bound, margin)) if bound > 0.5 * (1.0 + margin) else 0.0

    def predictor(self, model: nn.Module) -> str:
        """The smoothed classifier."""
        return smoothed_name(predictor_name(self._base(model)), Gaussian(self.sigma))
