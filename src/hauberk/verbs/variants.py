"""Attacks with other goals than any error at any point: a chosen class, whole levels, the nearest error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from hauberk.attacks import DDN, FMN, Attack, AutoAttack, OnGrid, Towards
from hauberk.data.split import full_scale
from hauberk.errors import HauberkError
from hauberk.registry import suggestion
from hauberk.subjects import Subject
from hauberk.threats import Threat


def wrapped(
    target: Subject, attacks: Sequence[Attack], aim: str | int | None = None, whole_levels: bool = False
) -> list[Attack]:
    """The attacks towards a class, or with points of the data's own levels, or both.

    Losses that read further outputs of the model are left out towards a class.

    Args:
        target: from ``subject``.
        attacks: what would be run.
        aim: the class, by its name or number; None for any wrong one.
        whole_levels: whether points are rounded to 8-bit values, or to 16-bit ones where the data has these.

    Raises:
        HauberkError: if there is no such class.
    """
    found = list(attacks)
    if whole_levels:
        white: Literal[255, 65535] = 65535 if full_scale(target.dataset.test.images) == 65535 else 255
        found = [OnGrid(a.threat, attack=a, white=white) for a in found]
    if aim is not None:
        chosen = class_of(aim, target.dataset.classes)
        found = [Towards(a.threat, attack=_without_losses(a), target=chosen) for a in found]
    return found


def nearest(threat: Threat) -> tuple[Attack, ...]:
    """The minimum-norm attacks that ``eps50`` is computed from: FMN, and DDN in L2."""
    return (FMN(threat), DDN(threat)) if threat.norm == "l2" else (FMN(threat),)


def class_of(text: str | int, classes: Sequence[str]) -> int:
    """The number of a class that is named, or numbered from 0.

    Raises:
        HauberkError: if there is none, or two classes could be meant.
    """
    word = str(text)
    named = classes.index(word) if word in classes else None
    number = int(word) if word.isdecimal() and int(word) < len(classes) else None
    if named is not None and number is not None and named != number:
        raise HauberkError(
            f"{word} is the name of class {named} and the number of another", "use the name instead of the number"
        )
    found = number if named is None else named
    if found is None:
        near = suggestion(word, list(classes)) or f"from 0 to {len(classes) - 1}, or one of: {', '.join(classes[:10])}"
        raise HauberkError(f"the data has no class {word!r}", near)
    return found


def _without_losses(attack: Attack) -> Attack:
    if isinstance(attack, OnGrid):
        return replace(attack, attack=_without_losses(attack.inner))
    return replace(attack, losses=()) if isinstance(attack, AutoAttack) else attack
