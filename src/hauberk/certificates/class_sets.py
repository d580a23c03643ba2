"""Certificates about sets of classes: the k largest logits, and classes that may be mistaken for each other."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from hauberk.certificates.evidence import LogitMargins
from hauberk.certificates.lipschitz import LipschitzCertificate
from hauberk.certificates.top_k import affinity_radius, top_k_radius
from hauberk.classifier import ABSTAIN, predictor_name
from hauberk.errors import HauberkError
from hauberk.threats import CONFIG

Classes = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]


@dataclass(frozen=True, config=CONFIG)
class SetCertificate(LipschitzCertificate):
    """A guarantee about a set of classes, from the evidence of ``LipschitzCertificate``.

    The class on record is that of the largest logit.  So the certified accuracy at a radius is the share of images
    whose label has the largest logit, and whose set stays: a lower bound of the share whose label stays in the set.
    The probability margin of one class follows from neither, and a mix has no such certificate.

    Args:
        norm: in which the image moves, and the radius is measured.
    """

    @abstractmethod
    def proved(self, seen: LogitMargins) -> float:
        """The radius."""

    def margin(self, seen: LogitMargins, radius: float) -> float:  # noqa: ARG002
        """-1: nothing is known of a single class."""
        return -1.0

    def radius(self, seen: LogitMargins, margin: float = 0.0) -> float:
        """The radius of the set, and 0 for any margin above 0.

        Raises:
            HauberkError: on constants of another norm, or what does not fit the number of classes.
        """
        if seen.constants.norm != self.norm:
            raise HauberkError(
                f"the Lipschitz constants are for {seen.constants.norm}, but the certificate is for {self.norm}",
                "gather them again",
            )
        return 0.0 if margin > 0.0 or self.decision(seen) == ABSTAIN else self.proved(seen)


@dataclass(frozen=True, config=CONFIG)
class TopK(SetCertificate):
    r"""The set of the k largest logits stays what it is: the radius of ``top_k.top_k_radius``.

    Args:
        norm: in which the image moves, and the radius is measured.
        k: from 1 to K - 1.

    Reference: Leino & Fredrikson 2021 (top-k robustness).
    """

    k: Annotated[int, Field(ge=1)] = 3

    def proved(self, seen: LogitMargins) -> float:
        """See ``top_k.top_k_radius``."""
        return top_k_radius(seen, self.k)

    def predictor(self, model: nn.Module) -> str:
        """The set-valued function of the network."""
        return f"top_k(k={self.k!r}, {predictor_name(model)})"


@dataclass(frozen=True, config=CONFIG)
class Affinity(SetCertificate):
    r"""Some set of the largest logits stays what it is and lies in a declared set: ``top_k.affinity_radius``.

    Args:
        sets: of classes that may be mistaken for each other.
        norm: in which the image moves, and the radius is measured.

    Reference: Leino & Fredrikson 2021 (affinity robustness).
    """

    sets: tuple[Classes, ...] = ()

    def __post_init__(self) -> None:
        if not self.sets:
            raise ValueError("give the sets of classes that may be mistaken for each other, for example [[3, 5]]")

    def proved(self, seen: LogitMargins) -> float:
        """See ``top_k.affinity_radius``."""
        return affinity_radius(seen, self.sets)

    def predictor(self, model: nn.Module) -> str:
        """The network up to the declared sets."""
        return f"affinity(sets={[list(members) for members in self.sets]!r}, {predictor_name(model)})"
