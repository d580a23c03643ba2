"""The targets by which a mix can be chosen: exactly one, of those that its kind allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from hauberk.errors import HauberkError

Kind = Literal["alpha", "scales", "nuts", "range"]


def check(kind: Kind, wishes: Sequence[str]) -> None:
    """Raise unless there is exactly one target, of those that the kind of mix allows.

    Args:
        kind: see ``choose``.
        wishes: of ``clean``, ``robust`` and ``keep``, those that are given.
    """
    allowed = {"alpha": ("clean", "robust", "keep"), "range": ("clean",)}.get(kind, ("robust", "keep"))
    if len(wishes) != 1 or not set(wishes) <= set(allowed):
        words = {"clean": "a clean accuracy", "robust": "a robust accuracy", "keep": "a share of it to keep"}
        options = {"clean": "--clean 0.8", "robust": "--robust-accuracy 0.4", "keep": "--keep 93%"}
        wanted = " or ".join(words[name] for name in allowed)
        raise HauberkError(f"{kind} needs one target: {wanted}", f"for example {options[allowed[0]]}")


def wished(kind: Kind, clean: float | None, robust: float | None, keep: float | None, base: float) -> float:
    """The one wish: a clean accuracy, or a robust one; for ``nuts`` as a share of the base's accuracy under attack."""
    given = {name: value for name, value in (("clean", clean), ("robust", robust), ("keep", keep)) if value is not None}
    check(kind, list(given))
    ((name, value),) = given.items()
    if not 0.0 < value <= 1.0:
        raise HauberkError(f"expected a share in (0, 1], got {value}", "for example 0.9 for nine images of ten")
    if name == "clean" or (name == "robust") != (kind == "nuts"):
        return value
    if base == 0.0:
        raise HauberkError(
            "the robust model classifies no image correctly under attack", "use a more robust model"
        )
    if name == "keep":
        return value * base
    if value > base:
        raise HauberkError(
            f"expected an estimated robust accuracy of {value:.4g}, but the robust model itself has {base:.4g} under "
            "attack", "choose a lower target or a more robust model: no weight exceeds the robust model itself",
        )
    return value / base
