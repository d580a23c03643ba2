"""The certificate contract: a proof of robustness within a radius, and the evidence from which anyone can derive it.

A certificate never reads labels and fails closed: an unknown layer, a NaN, a tie or a model in train mode gives radius
0 or an error.
"""

from __future__ import annotations

import functools
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass as plain_dataclass
from typing import Any, ClassVar, Generic, Literal

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from typing_extensions import TypeVar

from hauberk.batch import Batch
from hauberk.boundary import check_batch
from hauberk.certificates.evidence import Evidence, VoteCounts
from hauberk.certificates.gate import black_box
from hauberk.certificates.votes import Poll
from hauberk.classifier import ABSTAIN, TILE, check_eval
from hauberk.threats import CONFIG, Measure

Proof = Literal["deterministic", "probabilistic", "estimate"]
E = TypeVar("E", bound=Evidence, default=Any)


@plain_dataclass(frozen=True)
class Certificates:
    """Radii of B images and their evidence.

    Args:
        ids: sample ids, (B,).
        prediction: the certified class, (B,) int64, -1 where the classifier abstains.
        radius: every point closer than this has the same prediction; (B,) float64, pixel units, rounded down.
        norm: in which the radius is measured; of ``elements`` and ``levels`` it is a whole number, itself included.
        kind: ``deterministic``, ``probabilistic`` (each row may fail with ``failure_probability``) or ``estimate``.
        predictor: the function whose decision is proved, see ``classifier.predictor_name``.
        failure_probability: of one row, over the certificate's own randomness; 0 if deterministic.
        evidence: of each image.
    """

    ids: Tensor
    prediction: Tensor
    radius: Tensor
    norm: Measure
    kind: Proof
    predictor: str
    failure_probability: float
    evidence: list[Evidence]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The evidence of each image as plain values."""
        return [seen.row() for seen in self.evidence]

    @property
    def shared(self) -> dict[str, Any]:
        """What the evidence of all images has in common, as plain values."""
        return self.evidence[0].shared()


@dataclass(frozen=True, config=CONFIG)
class Certificate(ABC, Generic[E]):
    """Proves that no point of a ball changes the prediction.

    A subclass gathers evidence once for each image and turns evidence into margins and radii by closed form, so that a
    mix, a sweep over alpha and an independent check all start from the same evidence.
    """

    revision: ClassVar[int] = 1  # raised when its answers change: records of the older code are then not its own

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in ("gather", "gather_from"):
            if name in vars(cls):
                setattr(cls, name, _behind_the_gate(getattr(cls, name)))

    @property
    @abstractmethod
    def norm(self) -> Measure:
        """The norm in which radii are measured."""

    @property
    @abstractmethod
    def kind(self) -> Proof:
        """Whether the radii are deterministic, probabilistic or an estimate."""

    def admitted(self, model: nn.Module, batch: Batch, tile: int) -> AbstractContextManager[None]:
        """Pass the model through the gate (``certificates.gate``), which checks it again at the end of the block.

        By default a certificate treats its model as a black box.
        """
        return black_box(model, batch.images, tile)

    @contextmanager
    def gate(self, model: nn.Module, batch: Batch, tile: int) -> Iterator[None]:
        """Inside, evidence may be gathered: the model is in eval mode and admitted, and the images are images."""
        check_eval(model)
        check_batch(batch)
        with self.admitted(model, batch, tile):
            yield

    @abstractmethod
    def gather(self, model: nn.Module, batch: Batch, seed: int, tile: int) -> list[E]:
        """Evidence on each image; labels are not read.

        This method runs behind the gate, see ``admitted``, on images that were checked.
        """

    def poll(self, model: nn.Module) -> Poll | None:  # noqa: ARG002
        """The votes that the evidence rests on, which an evaluation keeps as records of their own; None without any."""
        return None

    def gather_from(self, votes: Sequence[VoteCounts], model: nn.Module, batch: Batch, seed: int, tile: int) -> list[E]:
        """Evidence on each image from votes of ``poll`` that were counted before; needed by a subclass with a poll."""
        raise NotImplementedError

    @abstractmethod
    def decision(self, seen: E) -> int:
        """The class that follows from the evidence, or -1 to abstain."""

    @abstractmethod
    def margin(self, seen: E, radius: float) -> float:
        r"""A lower bound of :math:`p_y - \max_{j\ne y} p_j` over the closed ball of that radius, y the decision."""

    @abstractmethod
    def radius(self, seen: E, margin: float = 0.0) -> float:
        """The largest proved radius in which the probability margin stays above ``margin`` in [0, 1); rounded down."""

    @abstractmethod
    def predictor(self, model: nn.Module) -> str:
        """The name of the function whose decision is proved."""

    @property
    def failure_probability(self) -> float:
        """The probability that one row is wrong; 0 unless the proof is probabilistic."""
        return 0.0

    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        seed: int = 0,
        tile: int = TILE,
        votes: Sequence[VoteCounts] | None = None,
    ) -> Certificates:
        """Certify every image; the result does not depend on batch size or order (as exactly as ``Attack`` says).

        Args:
            model: a classifier in eval mode.
            batch: images in [0, 1] and ids; labels are not read.
            seed: with each sample's id, the source of all randomness.
            tile: rows of every model call.
            votes: of ``poll``, one for each image, where they were counted before.

        Raises:
            HauberkError: on a model in train mode, bad images, or a model this certificate cannot treat.
        """
        given = (model, batch, seed, tile)
        evidence = self.gather(*given) if votes is None else self.gather_from(votes, *given)
        decisions = [self.decision(seen) for seen in evidence]
        radii = [self.radius(seen) if d != ABSTAIN else 0.0 for seen, d in zip(evidence, decisions, strict=True)]
        return Certificates(
            ids=batch.ids,
            prediction=torch.tensor(decisions, dtype=torch.int64),
            radius=torch.tensor(radii, dtype=torch.float64),
            norm=self.norm,
            kind=self.kind,
            predictor=self.predictor(model),
            failure_probability=self.failure_probability,
            evidence=list(evidence),
        )


def _behind_the_gate(gather: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """No evidence without the checks and the gate, whoever asks for it."""
    signature = inspect.signature(gather)

    @functools.wraps(gather)
    def gated(self: Certificate, *given: Any, **named: Any) -> list[Any]:
        asked = signature.bind(self, *given, **named).arguments
        with self.gate(asked["model"], asked["batch"], asked["tile"]):
            return gather(self, *given, **named)

    return gated


def largest_radius(margin_at: Callable[[float], float], margin: float, upper: float) -> float:
    """The largest r in [0, upper] with ``margin_at(r) > margin``, by bisection; the lower end of the last bracket.

    ``margin_at`` must not rise with r.  Returns 0 where even r = 0 fails.
    """
    if not margin_at(0.0) > margin:
        return 0.0
    if margin_at(upper) > margin:
        return upper
    low, high = 0.0, upper
    for _ in range(100):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        low, high = (middle, high) if margin_at(middle) > margin else (low, middle)
    return low


def round_down(radius: float, relative: float = 1e-12) -> float:
    """A radius a little smaller than computed, to cover float64 rounding; never negative, 0 for NaN."""
    if not math.isfinite(radius) or radius <= 0.0:
        return 0.0
    return float(np.nextafter(radius * (1.0 - relative), 0.0))
