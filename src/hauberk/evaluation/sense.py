"""Settings that make no sense, refused before any work is done."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from hauberk.certificates.evidence import VoteCounts
from hauberk.certificates.smoothing import SmoothingCertificate
from hauberk.certificates.voted import VoteCertificate
from hauberk.classifier import ABSTAIN
from hauberk.defences.smoothed import SmoothedClassifier
from hauberk.errors import HauberkError
from hauberk.threats import Threat

MOST_NOISE = 100.0  # sigma, where pixels are in [0, 1]


def check_sense(*methods: Any, shape: Sequence[int] | None = None) -> None:
    """Raise if a budget covers the whole pixel box, a certificate's votes can never decide, or its noise hides all.

    Args:
        methods: attacks, certificates, objectives or threats; what is inside them is looked at too.
        shape: channels, height and width of an image; without it only what holds for every shape is refused.

    Raises:
        HauberkError: with the budget or the number of votes that was probably intended.
    """
    for method in methods:
        for found in _within(method):
            if isinstance(found, Threat):
                check_budget(found, shape)
            elif isinstance(found, VoteCertificate):
                _check_votes(found.n, found.alpha, needed_votes(found), "--n")
                if isinstance(found, SmoothingCertificate):
                    _check_noise(found.noise.sigma)


def check_budget(threat: Threat, shape: Sequence[int] | None = None) -> None:
    r"""Raise if every point of the pixel box is within the budget of every image.

    The box :math:`[0, 1]^d` has the diameter 1 in Linf, :math:`\sqrt d` in L2 and d in L1; a ball of that radius holds
    all of it, so that any two images are neighbours and no classifier is robust.

    Args:
        threat: norm and budget.
        shape: of an image; without it only Linf is checked.
    """
    pixels = None if shape is None else math.prod(shape)
    diameter = {"linf": 1.0, "l2": pixels and math.sqrt(pixels), "l1": pixels and float(pixels)}[threat.norm]
    if diameter is None or threat.eps < diameter:
        return
    size = "" if shape is None else f" of {'x'.join(map(str, shape))} values"
    raise HauberkError(
        f"a budget of {threat.norm} {threat.eps:g} turns every image{size} into any other: pixels are in [0, 1], where "
        f"the largest distance is {diameter:g}",
        f"did you mean {threat.norm}:{threat.eps:g}/255?" if threat.eps / 255 < diameter else "choose a smaller budget",
    )


def check_votes(model: nn.Module) -> None:
    """Raise if a smoothed classifier, or one inside a model, abstains even where all its votes agree."""
    for module in model.modules():
        if isinstance(module, SmoothedClassifier):
            _check_votes(module.votes, module.alpha, _needed_decision_votes(module.alpha), "votes:")


def needed_votes(certificate: VoteCertificate) -> int:
    r"""The fewest votes n that can decide, all for one class; of one Clopper-Pearson bound :math:`2^{-n} < \alpha`."""
    if certificate.rule == "looks":  # each look is one bound at its share of alpha
        certificate = certificate.at_one_look()

    def decides(n: int) -> bool:
        asked = certificate.with_votes(certificate.n0, n)
        return asked.decision(VoteCounts((1, 0), (n, 0), asked.plan)) != ABSTAIN

    return next(n for n in range(1, 2200) if decides(n))


def _needed_decision_votes(alpha: float) -> int:
    r"""The fewest votes whose two-sided test can be significant, :math:`2 \cdot 2^{-n} \le \alpha`."""
    return next(n for n in range(1, 1100) if 2.0 * 0.5**n <= alpha)


def _check_votes(votes: int, alpha: float, needed: int, setting: str) -> None:
    """Raise if even unanimous votes leave too large an error probability."""
    if votes < needed:
        raise HauberkError(
            f"{votes} votes always abstain at alpha {alpha:g}, even if all agree: at least {needed} votes are needed",
            f"set {setting} {max(needed, 1000)}, which also gives larger radii, or a larger alpha",
        )


def _check_noise(sigma: float) -> None:
    """Raise if noise is a hundred times as wide as the pixel range."""
    if sigma > MOST_NOISE:
        raise HauberkError(
            f"noise of sigma {sigma:g} hides the image completely: pixels are in [0, 1]",
            "use a smaller sigma, for example --sigma 0.25",
        )


def _within(value: Any) -> Iterator[Any]:
    """The value and what is inside it."""
    yield value
    if isinstance(value, list | tuple):
        for item in value:
            yield from _within(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _within(getattr(value, field.name))
