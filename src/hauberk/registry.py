"""Names to import paths, with the facts that ``hauberk list`` and ``hauberk explain`` show.

Nothing here imports a method: an entry is loaded when it is built.  ``build(spec)`` and ``spec(obj)`` are the
only way between a plain description (what a recipe holds) and an object, and ``build(spec(x)) == x``.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, get_args

from hauberk import trust
from hauberk.catalogue import ALL, Entry
from hauberk.catalogue import Kind as Kind
from hauberk.errors import HauberkError
from hauberk.later import Later

if TYPE_CHECKING:
    from hauberk import specs
    from hauberk.specs import Plan
else:
    specs = Later("hauberk.specs")

Spec = dict[str, Any]

CODE = {"hauberk.models.own:own": "source"}  # the setting that names code from outside the package
LISTED = ("layer", "metric", "bound")  # shown and explained; no description names them
SIZES = {"threat": "eps", "noise": "sigma"}  # the setting that stands after the colon in linf:8/255 and gaussian:0.25

_ENTRIES: dict[str, Entry] = {e.name: e for e in ALL}


def register(kind: Kind, name: str, path: str, summary: str, reference: str = "", **facts: str) -> None:
    """Add a method; a third party calls this with its own ``module:attribute``.

    Raises:
        HauberkError: if the name is taken by another path.
    """
    if name in _ENTRIES and _ENTRIES[name].path != path:
        raise HauberkError(f"the name {name!r} is already registered for {_ENTRIES[name].path}", "choose another name")
    _ENTRIES[name] = Entry(kind, name, path, summary, reference, facts)


def entries(kind: Kind | None = None) -> list[Entry]:
    """All entries of one kind (or of all), in the order of registration."""
    return [e for e in _ENTRIES.values() if kind in (None, e.kind)]


def entry(name: str, kind: Kind | None = None) -> Entry:
    """The entry of that name.

    Raises:
        HauberkError: if there is none; the message names the nearest.
    """
    found = _ENTRIES.get(name) if isinstance(name, str) else None
    if found is not None and kind in (None, found.kind):
        return found
    known = [e.name for e in entries(kind)]
    raise HauberkError(
        f"there is no {kind or 'method'} called {name!r}",
        suggestion(str(name), known) or (f"known: {', '.join(known)}" if kind else "all of them: hauberk list FAMILY"),
    )


def suggestion(word: str, known: list[str]) -> str:
    """``did you mean ...?`` for the nearest known word, or an empty string."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def kinds() -> tuple[Kind, ...]:
    """The families of methods."""
    return get_args(Kind)


def number(text: str | float) -> float:
    """A number written as in the literature: ``8/255``, ``0.5`` or ``2e-3``."""
    try:
        return float(Fraction(text)) if isinstance(text, str) and "/" in text else float(text)
    except (ValueError, ZeroDivisionError) as error:
        raise HauberkError(f"expected a number such as 8/255 or 0.03, got {text!r}", "for example 8/255") from error


def build(description: Spec | str, kind: Kind | None = None, **context: Any) -> Any:
    """Make the object that a spec describes.

    The whole description is checked as data first, see ``check``; only then is anything built.

    Args:
        description: ``{"name": ..., field: value, ...}``, or a bare name, or ``"linf:8/255"``, ``"gaussian:0.25"``.
            Values that are themselves specs are built first.
        kind: the family expected; another one is an error.
        context: arguments that the recipe does not hold, such as a model's ``input_shape``; those it asks for are used.

    Raises:
        HauberkError: as ``check``.

    Example:
        >>> from hauberk.registry import build, spec
        >>> attack = build("apgd", threat=build("linf:8/255"))
        >>> build(spec(attack)) == attack
        True
    """
    plan = check(description, kind, tuple(context))
    known = specs.parameters(plan.target)
    return plan.make({key: value for key, value in context.items() if key in known})


def check(description: Spec | str, kind: Kind | None = None, given: tuple[str, ...] = ()) -> Plan:
    """Look at a description and all that is in it, and build nothing.

    Args:
        description: as for ``build``.
        kind: the family expected.
        given: names of arguments that the caller adds when it builds.

    Raises:
        HauberkError: on an unknown name or key (naming the nearest valid one), a value of another type or out of range,
            a part where it does not belong, a setting that is missing, or code that the user does not trust.
    """
    specs.check_plain(description, "a spec")
    return _planned(description, kind, given)


def _planned(description: Any, kind: Kind | None = None, given: tuple[str, ...] = ()) -> Plan:
    if isinstance(description, str):
        description = _shorthand(description)
    if not isinstance(description, Mapping) or "name" not in description:
        raise HauberkError(
            f"a spec needs a 'name', got {specs.short(description)}", "for example {name: pgd, steps: 10}"
        )
    found = entry(str(description["name"]), kind)
    if found.kind in LISTED:
        raise HauberkError(
            f"{found.name} is a {found.kind}, which a description cannot name", f"use {found.path} in Python"
        )
    written = _written_out(found, description)
    values = {key: _value(value) for key, value in written.items() if key != "name"}
    plan = specs.Plan(found.name, found.kind, found.load(), values)
    valid = specs.parameters(plan.target)
    for key in values:
        if key not in valid:
            known = [*found.short, *valid]
            raise HauberkError(
                f"{found.name} has no setting {key!r}",
                suggestion(key, known) or (f"valid: {', '.join(known)}" if known else "it has none"),
            )
    missing = [key for key, needed in valid.items() if needed and key not in (*values, *given)]
    if missing:
        shorter = [key for key, (setting, _) in found.short.items() if setting == missing[0]]
        example = f", for example {found.name}:8/255" if found.kind == "threat" else ""
        raise plan.problem(f"the setting {' or '.join([*shorter, missing[0]])} is missing{example}")
    plan = plan.fitted()
    if found.path in CODE:
        trust.require(str(plan.arguments[CODE[found.path]]))
    return plan


def settings(name: str, kind: Kind | None = None) -> list[str]:
    """The names of a method's settings, and what is short for one."""
    found = entry(name, kind)
    return [*specs.parameters(found.load()), *found.short]


def spec(obj: Any) -> Spec:
    """The plain description of a registered object; ``build(spec(x)) == x``.

    A configuration (attack, objective, certificate, threat) is described by its fields; a model by the call
    that built it, which its builder keeps in ``module.spec``.
    """
    kept = getattr(obj, "spec", None)
    if isinstance(kept, dict):
        return kept
    if not dataclasses.is_dataclass(obj) or isinstance(obj, type):
        raise HauberkError(f"{type(obj).__name__} has no spec", "only registered objects do")
    path = f"{type(obj).__module__}:{type(obj).__qualname__}"
    name = next((e.name for e in _ENTRIES.values() if e.path == path), None)
    if name is None:
        raise HauberkError(f"{path} is not registered", "call hauberk.registry.register first")
    return {"name": name} | {f.name: describe(getattr(obj, f.name)) for f in dataclasses.fields(obj) if f.init}


def describe(value: Any) -> Any:
    """Plain values for YAML and JSON: a registered object by its spec, any other dataclass by its fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        path = f"{type(value).__module__}:{type(value).__qualname__}"
        if any(e.path == path for e in _ENTRIES.values()):
            return spec(value)
        return {f.name: describe(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, list | tuple):
        return [describe(v) for v in value]
    return value


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return _planned(value) if "name" in value else {key: _value(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_value(v) for v in value)
    if isinstance(value, str):
        return _shorthand_value(value)
    return value


def _shorthand_value(value: str) -> Any:
    name, separator, rest = value.partition(":")
    if separator and name in _ENTRIES and _ENTRIES[name].kind in SIZES:
        return _planned(value)
    near = suggestion(name, [e.name for e in _ENTRIES.values() if e.kind in SIZES])
    if separator and near and name not in _ENTRIES and rest[:1].isdigit():
        raise HauberkError(f"there is no {' or '.join(SIZES)} called {name!r}", near)
    numerator, slash, denominator = value.partition("/")
    if slash and numerator.strip().isdigit() and denominator.strip().isdigit() and rest == "":
        return number(value)
    return value


def _shorthand(text: str) -> Spec:
    name, separator, size = text.partition(":")
    if not separator:
        return {"name": name}
    known = _ENTRIES.get(name.lower())
    return {"name": name.lower(), SIZES.get(known.kind if known else "", "eps"): number(size)}


def _written_out(found: Entry, description: Mapping[str, Any]) -> Mapping[str, Any]:
    """The description with short forms as the parts that they stand for."""
    for key, (setting, part) in found.short.items():
        if key in description:
            if setting in description:
                raise HauberkError(f"{found.name} has both {key} and {setting}", f"give {setting} alone")
            rest = {k: v for k, v in description.items() if k != key}
            description = rest | {setting: {"name": part, key: description[key]}}
    return description
