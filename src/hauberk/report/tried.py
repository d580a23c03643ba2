"""The attacks that were run, in words that distinguish their settings, to show which predictors were attacked alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hauberk.records import Part
from hauberk.report import words
from hauberk.report.outcomes import outcomes, plain, reached
from hauberk.verify.wrapped import core


@dataclass(frozen=True)
class Tried:
    """The attacks behind one robust accuracy.

    Args:
        used: the attacks with its budget, and all others whose points within the budget lower the accuracy.
        met: the used attacks, and all others that were run in the norm.
    """

    used: frozenset[str] = frozenset()
    met: frozenset[str] = frozenset()


NOTHING = Tried()


def tried(attacks: Iterable[Part], norm: str, eps: float, common: bool = False) -> Tried:
    """The attacks of one predictor that count at one budget, see ``outcomes.at_budget``.

    Args:
        attacks: all attacks; one must have the budget.
        norm: norm of the budget.
        eps: the budget, pixel units.
        common: leave out attacks that only such a classifier can meet, see ``described``.
    """
    own = [p for p in attacks if p.unit["threat"]["name"] == norm]
    here = [p for p in own if plain(p) and float(p.unit["threat"]["eps"]) == eps]
    others = [p for p in own if p not in here]
    left = outcomes(here, eps)
    standing = np.asarray(left.ids[left.standing])
    helping = [p for p in others if reached(standing, [p], eps).any()]
    used = described(here, common) | elsewhere(helping, common)
    return Tried(used, used | elsewhere(others, common))


def elsewhere(parts: Iterable[Part], common: bool) -> frozenset[str]:
    """Attacks with another budget or another goal, each with its budget."""
    return frozenset(
        f"{said} at {words.typed(str(p.unit['threat']['name']), float(p.unit['threat']['eps']))}"
        for p in parts for said in described([p], common)
    )  # fmt: skip


def described(parts: Iterable[Part], common: bool) -> frozenset[str]:
    """The attacks and suites of some records; losses that a suite adds for a model count as attacks of their own.

    Args:
        parts: the records.
        common: leave out attacks on parts of the model, and losses of its named outputs, which no other model can meet.
    """
    found = set()
    for part in parts:
        spec = dict(part.unit.get("suite") or part.unit["method"])
        added = spec.pop("losses", None) or ()
        inside = core(part.unit["method"])
        if common and (inside["name"] == "part" or isinstance(inside.get("loss"), Mapping)):
            continue
        added = () if common else added
        found |= {_described(spec), *(f"{_described(spec)} with the loss {_described(loss)}" for loss in added)}
    return frozenset(found)


def _described(spec: Any) -> str:
    """A method in the words of the command line, without its threat and without settings that change no verdict."""
    if isinstance(spec, list | tuple):
        return f"[{', '.join(map(_described, spec))}]"
    if not isinstance(spec, Mapping):
        return words.number(spec) if isinstance(spec, float) else str(spec)
    shown = {k: v for k, v in spec.items() if k not in ("name", "threat", "early_stop") and v not in (None, False, [])}
    return ",".join([str(spec.get("name", "")), *(f"{k}={_described(v)}" for k, v in shown.items())])


def unlike(everyone: Sequence[Tried]) -> bool:
    """Whether some robust accuracy rests on an attack that another predictor never met."""
    return any(one.used - other.met for one in everyone for other in everyone)
