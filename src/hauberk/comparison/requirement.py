"""Requirements of a run in the form in which they are typed: ``lower(certified@l2:0.25)>=0.60``.

::

    requirement  =  measure ">=" number          the estimate must reach the number
                 |  "lower(" measure ")>=" number    the lower limit of its 95 % interval must
    measure      =  share | "balanced(" share ")" | "worst(" share ")" | "acr@" norm
    share        =  "clean" | "robust@" threat | "certified@" threat

A number is ``0.6`` or ``60%``, a threat ``linf:8/255``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast, get_args

from hauberk import registry
from hauberk.comparison.contestant import Quantity
from hauberk.comparison.drop import Verdict
from hauberk.errors import HauberkError
from hauberk.threats import Norm, Threat

Over = Literal["all", "balanced", "worst"]
WORDS = {"clean": "clean", "robust": "attacked", "certified": "certified"}
EXAMPLE = "for example 'lower(certified@l2:0.25)>=0.60', clean>=80%, worst(robust@linf:8/255)>=0.1 or acr@l2>=0.3"
_WHOLE = re.compile(r"(?P<measure>[^<>=]+?)\s*>=\s*(?P<number>[0-9.eE+-]+)\s*(?P<percent>%?)")
_AROUND = re.compile(r"(?P<word>[a-z]+)\((?P<inner>.*)\)")


@dataclass(frozen=True)
class Finding:
    """The result for one requirement.

    Args:
        name: the requirement, or the comparison.
        verdict: ``pass``, ``fail`` or ``cannot tell``.
        reason: one line.
        missing: the words after ``hauberk`` of the command that would settle the verdict; empty if there is none.
    """

    name: str
    verdict: Verdict
    reason: str
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Requirement:
    """A number that a measure of a run must reach.

    Args:
        text: the requirement as it was typed, without spaces.
        quantity: the quantity of the share, ``Quantity("clean")``; for an average certified radius ``certified`` with
            its norm.
        over: all images alike, the mean over the classes, or the worst class.
        radius: whether it is about the average certified radius, in pixel units.
        lower: whether the lower limit must reach the number, and not the estimate alone.
        number: the number to reach: a share in [0, 1], or a radius.
    """

    text: str
    quantity: Quantity
    over: Over
    radius: bool
    lower: bool
    number: float

    @property
    def threat(self) -> Threat | None:
        """The budget, or None if the requirement has none."""
        if self.radius or self.quantity.kind == "clean":
            return None
        return cast("Threat", registry.build({"name": self.quantity.norm, "eps": self.quantity.eps}, "threat"))


def parse(text: str) -> Requirement:
    """Read a requirement.

    Raises:
        HauberkError: if the text is no requirement.
    """
    whole = _WHOLE.fullmatch(text.strip())
    if whole is None:
        raise HauberkError(f"expected a requirement, MEASURE>=NUMBER, got {text!r}", EXAMPLE)
    number = registry.number(whole["number"]) / (100.0 if whole["percent"] else 1.0)
    lower, inner = _taken_off(whole["measure"].strip(), ("lower",))
    over, inner = _taken_off(inner, ("balanced", "worst"))
    if inner in ("balanced", "worst"):  # these words alone are about clean accuracy
        over, inner = inner, "clean"
    radius = inner.startswith("acr@")
    if radius and (over or whole["percent"]):
        raise HauberkError(
            f"{text!r}: an average certified radius has no classes and is no percentage", EXAMPLE
        )
    if not radius and not 0.0 < number <= 1.0:
        raise HauberkError(f"{text!r}: expected a share above 0 and at most 1", "80 percent is 0.8 or 80%")
    if radius and not 0.0 < number < float("inf"):
        raise HauberkError(f"{text!r}: expected a radius above 0, in pixel units", EXAMPLE)
    quantity = Quantity("certified", _norm(inner.removeprefix("acr@"), text)) if radius else _share(inner, text)
    kind = cast("Over", over or "all")
    return Requirement(re.sub(r"\s+", "", text), quantity, kind, radius, bool(lower), number)


def _taken_off(text: str, words: tuple[str, ...]) -> tuple[str, str]:
    """The word before the parentheses, if it is one of ``words``, and the text inside them."""
    around = _AROUND.fullmatch(text)
    if around is None or around["word"] not in words:
        return "", text
    return around["word"], around["inner"].strip()


def _share(text: str, whole: str) -> Quantity:
    name, at, threat = text.partition("@")
    if name not in WORDS or bool(at) == (name == "clean"):
        hint = registry.suggestion(name, [*WORDS, "lower", "balanced", "worst", "acr"]) or EXAMPLE
        raise HauberkError(f"{whole!r}: there is no measure {text!r}", hint)
    if name == "clean":
        return Quantity("clean")
    ball: Threat = registry.build(threat, "threat")
    return Quantity("attacked" if name == "robust" else "certified", ball.norm, ball.eps)


def _norm(text: str, whole: str) -> Norm:
    if text not in get_args(Norm):
        raise HauberkError(f"{whole!r}: expected the norm l1, l2 or linf, got {text!r}", "for example acr@l2>=0.3")
    return cast("Norm", text)
