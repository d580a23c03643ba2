"""What certificates of random models by their Lipschitz bounds share: draws of the frozen copy, and how many there are.

The proof is about the frozen copy of the random model (``certificates.frozen``), whose bounds hold for every draw.  One
sample of draws chooses the class, and shows how far the model in its own precision is from the copy; another one, which
nothing was chosen on, bounds what is proved.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import TypeVar

from hauberk.batch import Batch
from hauberk.boundary import called
from hauberk.certificates.base import Certificate, Proof
from hauberk.certificates.deployed import EXPLAINED, apart, estimated
from hauberk.certificates.evidence import Constants, Plain
from hauberk.certificates.gate import walked
from hauberk.certificates.rounding import FrozenForward, exact_forward
from hauberk.classifier import predictor_name
from hauberk.draws import drawn, draws_by_key
from hauberk.errors import HauberkError
from hauberk.layers.kept import kept_weights
from hauberk.layers.lipschitz import ModelBounds
from hauberk.pulse import beat
from hauberk.randomness import Key
from hauberk.threats import Norm

ELSEWHERE = 4.0  # so many times the rounding that is seen at an image may be there at other points and in other draws


@plain_dataclass(frozen=True)
class DrawPlan:
    """The settings that are fixed before the first draw.

    Args:
        n0: draws that choose the class.
        n: draws that bound.
        alpha: failure probability of one image.
        constants: Lipschitz constants of what is bounded, for every draw.
        settings: further ones, of the predictor or the bound.
    """

    n0: int
    n: int
    alpha: float
    constants: Constants
    settings: Mapping[str, Any]

    def plain(self) -> Plain:
        """For the record."""
        return self.constants.plain() | {"draws0": self.n0, "draws": self.n, "alpha": self.alpha, **self.settings}


@plain_dataclass(frozen=True)
class DrawEvidence:
    """Of one image.

    Args:
        first: of the draws that choose, one number for each class; the largest is chosen.
        distance: how far the model in its own precision was from the copy in these draws, in differences of logits.
        explained: how far rounding may put it.
        plan: of the draws.
    """

    first: tuple[float, ...]
    distance: float
    explained: float
    plan: DrawPlan

    @property
    def chosen(self) -> int:
        """The class with the largest number."""
        return max(range(len(self.first)), key=lambda k: self.first[k])

    @property
    def sound(self) -> bool:
        """Whether rounding explains the distance; false of NaN."""
        return self.distance <= self.explained

    def row(self) -> Plain:
        """What belongs to the image."""
        return {"first": list(self.first), "distance": self.distance, "explained": self.explained}

    def shared(self) -> Plain:
        """The plan."""
        return self.plan.plain()


E = TypeVar("E", bound=DrawEvidence, default=Any)


@plain_dataclass(frozen=True)
class Seen:
    """What the first draws showed of some images.

    Args:
        totals: the sum of what each draw says for each class, (B, K).
        distance: see ``DrawEvidence``, (B,).
        rounding: what float64 moves differences of logits by, the most of all draws, (B,).
        estimate: of what rounding moves differences of logits by in the model's own precision, (B,).
    """

    totals: Tensor
    distance: Tensor
    rounding: Tensor
    estimate: Tensor

    @property
    def lost(self) -> Tensor:
        """What is subtracted from every gap of every draw for the rounding of copy and model, (B,)."""
        return ELSEWHERE * self.rounding + torch.minimum(self.estimate, ELSEWHERE * self.distance)


class DrawCertificate(Certificate[E], Generic[E]):
    """Base class: a subclass has these fields, and defines how a draw counts in the choice and what other draws prove.

    Args:
        n0: draws that choose the class.
        n: draws that bound.
        alpha: failure probability of one image.
        norm: in which the image moves, and the radius is measured.
    """

    if TYPE_CHECKING:  # pydantic would make fields of them, before a subclass's own
        n0: int
        n: int
        alpha: float
        norm: Norm

    kind: ClassVar[Proof] = "probabilistic"
    title: ClassVar[str]  # how the predictor's name and the streams call it

    @abstractmethod
    def said(self, logits: Tensor) -> Tensor:
        """How a draw counts in the choice of the class, from logits (B, K) to (B, K)."""

    @abstractmethod
    def constants(self, bounds: ModelBounds) -> Tensor:
        """Lipschitz constants of what is bounded, (K, K)."""

    @abstractmethod
    def bounded(self, seen: Seen, draws: Iterator[Tensor], plan: DrawPlan) -> list[E]:
        """Evidence on B images from the logits (B, K) of draws."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings of the predictor or the bound, besides the plan's."""
        return {}

    @property
    def failure_probability(self) -> float:
        """Alpha."""
        return self.alpha

    def admitted(self, model: nn.Module, batch: Batch, tile: int) -> AbstractContextManager[None]:
        """The proof walks the model, whose noise is an argument."""
        if not draws_by_key(model):
            raise HauberkError(
                f"{type(model).__name__} has no random parts whose draws a key can fix", "use --method lipschitz"
            )
        return walked(model, batch.images, tile, random=True)

    def gather(self, model: nn.Module, batch: Batch, seed: int, tile: int) -> list[E]:
        """The evidence of draws of the frozen copy, on tiles."""
        return self._gathered(model, batch, seed, tile, None)

    def again(self, model: nn.Module, batch: Batch, seed: int, tile: int, chosen: Tensor) -> list[E]:
        """Evidence of fresh draws for classes that were chosen before, (B,), to be compared with the record."""
        with self.gate(model, batch, tile):
            return self._gathered(model, batch, seed, tile, chosen)

    @torch.no_grad()
    def _gathered(self, model: nn.Module, batch: Batch, seed: int, tile: int, chosen: Tensor | None) -> list[E]:
        bounds, forward = exact_forward(model, tuple(batch.images.shape[1:]))
        layers = tuple(
            {"name": b.name, "kind": b.kind, "value": b.bound.value, "method": b.bound.method, "norm": b.norm}
            for b in bounds.layers(self.norm)
        )
        constants = Constants(self.constants(bounds).numpy(), self.norm, forward.name, layers)
        plan = DrawPlan(self.n0, self.n, self.alpha, constants, self.settings)
        found: list[E] = []
        for part, used in batch.tiles(tile):
            seen = self._first(model, forward, part, seed)
            if chosen is not None:
                kept = chosen[len(found) : len(found) + used]
                kept = torch.cat([kept, kept[-1:].expand(len(part) - used)])
                seen = replace(seen, totals=functional.one_hot(kept, seen.totals.shape[1]).double())
            draws = (
                forward.one(self._key(seed, number, part, "bound"))(part.images.double()) for number in range(self.n)
            )
            found += self.bounded(seen, draws, plan)[:used]
        return found

    def _first(self, model: nn.Module, forward: FrozenForward, part: Batch, seed: int) -> Seen:
        """The draws that choose, of the model in its own precision and of its copy."""
        totals, distances, roundings, estimates = [], [], [], []
        keys = [self._key(seed, number, part, "choose") for number in range(self.n0)]
        with kept_weights(model):
            answers = [called(drawn(model, key), part.images) for key in keys]
        for key, own in zip(keys, answers, strict=True):
            logits, rounding = forward.drawn(part.images.double(), key)
            totals.append(self.said(own.double()))
            distances.append(apart(own, logits))
            roundings.append(rounding)
            estimates.append(estimated(model, forward, own.dtype, rounding))
        beat(self.n0 * len(part))
        return Seen(torch.stack(totals).sum(0), *(torch.stack(c).amax(0) for c in (distances, roundings, estimates)))

    def _key(self, seed: int, number: int, part: Batch, use: str) -> Key:
        return Key(seed, number, tuple(part.ids.tolist()), f"{self.title}-{use}")

    def described(self, seen: Seen, row: int) -> tuple[tuple[float, ...], float, float]:
        """The first fields of the evidence on one image."""
        first = tuple((seen.totals[row] / self.n0).tolist())
        return first, float(seen.distance[row]), float(EXPLAINED * seen.estimate[row])

    def predictor(self, model: nn.Module) -> str:
        """The function of all draws together."""
        told = "".join(f"{key}={value!r}, " for key, value in self.settings.items() if key != "interval")
        return f"{self.title}({told}{predictor_name(model)})"
