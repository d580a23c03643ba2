"""Plain descriptions are looked at as data, before anything that they describe is built."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Any, get_args, get_type_hints

from pydantic import ConfigDict, Field, PydanticUserError, TypeAdapter

from hauberk.errors import HauberkError

DEPTH = 24  # blocks within blocks
VALUES = 20_000  # in one description
TEXT = 4_096  # characters of one value
LARGEST = 10**9  # no setting takes a larger integer
# what no network has more of: channels, units, classes or pixels a side; layers one after another; draws, or rows kept
Width = Annotated[int, Field(le=65_536)]
Depth = Annotated[int, Field(le=1_000)]
Rows = Annotated[int, Field(le=10_000_000)]
ABSENT = "not set"


def check_plain(value: Any, what: str) -> None:
    """Raise if a description is deeper, longer or larger than any that means something.

    Args:
        value: nested plain values; objects among them are left alone.
        what: what it describes, for messages.

    Raises:
        HauberkError: naming the limit.
    """
    level, seen = [value], 0
    for _ in range(DEPTH):
        seen += len(level)
        if seen > VALUES:
            raise HauberkError(
                f"{what}: expected at most {VALUES:,} values", "give only settings in a description, and no data"
            )
        for item in level:
            _check_leaf(item, what)
        level = [inner for item in level for inner in _inside(item)]
        if not level:
            return
    raise HauberkError(f"{what}: expected at most {DEPTH} blocks within each other", "use fewer nested blocks")


def _inside(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else []


def _check_leaf(value: Any, what: str) -> None:
    if isinstance(value, int) and not -LARGEST <= value <= LARGEST:
        raise HauberkError(f"{what}: {short(value)} is too large for a setting", f"use at most {LARGEST:,}")
    if isinstance(value, str) and len(value) > TEXT:
        raise HauberkError(f"{what}: expected at most {TEXT:,} characters a value, got {len(value):,}", "shorten it")
    if isinstance(value, Mapping) and not all(isinstance(key, str) for key in value):
        odd = next(key for key in value if not isinstance(key, str))
        raise HauberkError(f"{what}: expected names of settings as text, got {short(odd)}", "put it into quotes")


def short(value: Any) -> str:
    """A value as messages show it: its beginning, if it is long."""
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"{'-' if value < 0 else ''}10^{math.log10(abs(value)):.0f} or so"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def parameters(target: Callable[..., Any]) -> dict[str, bool]:
    """The settings of a class or builder; True for those without a default."""
    if dataclasses.is_dataclass(target):
        absent = dataclasses.MISSING
        return {
            f.name: f.default is absent and f.default_factory is absent for f in dataclasses.fields(target) if f.init
        }
    every = inspect.signature(target).parameters.values()
    return {p.name: p.default is p.empty for p in every if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}


@lru_cache(maxsize=512)
def _hints(target: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        return get_type_hints(target, include_extras=True)
    except (NameError, TypeError):  # a third party's annotations may not be there at run time
        return {}


@lru_cache(maxsize=2048)
def _adapter(target: Callable[..., Any], name: str) -> TypeAdapter[Any] | None:
    annotation = _hints(target).get(name, Any)
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # a type with a configuration of its own
        pass
    try:
        return TypeAdapter(annotation)
    except PydanticUserError:
        return None


def checked(target: Callable[..., Any], name: str, value: Any) -> Any:
    """A setting's value as its annotation has it.

    Raises:
        ValueError: pydantic's, if the value has another type or is out of range.
    """
    adapter = _adapter(target, name)
    return value if adapter is None else adapter.validate_python(value)


def admits(target: Callable[..., Any], name: str, made: Callable[..., Any]) -> bool:
    """Whether a setting may hold what a class or builder makes; where annotations do not say, it may."""
    product = made if isinstance(made, type) else _hints(made).get("return", Any)
    wanted = [c for c in _classes(_hints(target).get(name, Any)) if isinstance(c, type)]
    if not isinstance(product, type) or not wanted:
        return Any in set(_classes(_hints(target).get(name, Any))) or not isinstance(product, type)
    try:
        return any(issubclass(product, c) for c in wanted)
    except TypeError:  # a protocol that cannot be asked
        return True


def _classes(annotation: Any) -> Iterator[Any]:
    inner = get_args(annotation)
    if not inner:
        yield annotation
    for part in inner:
        if isinstance(part, type) or get_args(part) or part is Any:
            yield from _classes(part)


@dataclass(frozen=True)
class Plan:
    """A description that was looked at and may be built.

    Args:
        name: of the method.
        kind: of the method.
        target: the class or builder that is called.
        arguments: its settings; parts are plans of their own.
    """

    name: str
    kind: str
    target: Callable[..., Any]
    arguments: Mapping[str, Any]

    def fitted(self) -> Plan:
        """The same with every value as its annotation has it; parts are only asked whether they belong there.

        Raises:
            HauberkError: on a value of another type or out of range.
        """
        return replace(self, arguments={key: self._fitting(key, value) for key, value in self.arguments.items()})

    def _fitting(self, key: str, value: Any) -> Any:
        parts = list(_parts(value))
        for part in parts:
            if not admits(self.target, key, part.target):
                raise self.problem(f"{key} cannot be {part.name}, which is a {part.kind}")
        if parts:
            return value
        try:
            return checked(self.target, key, value)
        except ValueError as error:
            raise self.problem(_plain(error, key)) from error

    def make(self, context: Mapping[str, Any]) -> Any:
        """Build it, and what is in it first.

        Raises:
            HauberkError: if the settings do not fit each other.
        """
        arguments = {key: _made(value) for key, value in self.arguments.items()}
        try:
            with _bounded(self.kind):
                return self.target(**arguments | dict(context))
        except (TypeError, ValueError, OverflowError) as error:
            raise self.problem(_plain(error)) from error

    def problem(self, text: str) -> HauberkError:
        """An error about this description."""
        return HauberkError(f"{self.name}: {text}", f"see: hauberk explain {self.name}")


@contextmanager
def _bounded(kind: str) -> Iterator[None]:
    """While a network is made, its numbers are counted before they are filled in."""
    if kind not in ("model", "defence"):
        yield
        return
    from hauberk.weights import bounded

    with bounded():
        yield


def _parts(value: Any) -> Iterator[Plan]:
    if isinstance(value, Plan):
        yield value
    elif isinstance(value, Mapping | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _parts(inner)


def _made(value: Any) -> Any:
    if isinstance(value, Plan):
        return value.make({})
    if isinstance(value, dict):
        return {key: _made(inner) for key, inner in value.items()}
    return tuple(_made(inner) for inner in value) if type(value) is tuple else value


def _plain(error: Exception, key: str = "") -> str:
    """Pydantic's report, one line for each field."""
    errors = getattr(error, "errors", None)
    if errors is None:
        return str(error)
    head = [key] if key else []
    return "; ".join(
        f"{'.'.join([*head, *map(str, e['loc'])])}: {e['msg']} (got {short(e['input'])})"
        if e["loc"] or head
        else str(e["msg"]).removeprefix("Value error, ")  # of settings that do not fit each other
        for e in errors()
    )


def difference(known: Any, wanted: Any, key: str = "") -> str:
    """The first key in which two descriptions differ, with both values."""
    if isinstance(known, Mapping) and isinstance(wanted, Mapping):
        for name in [*known, *(k for k in wanted if k not in known)]:
            if known.get(name, ABSENT) != wanted.get(name, ABSENT):
                return difference(known.get(name, ABSENT), wanted.get(name, ABSENT), f"{key}.{name}" if key else name)
    there, here = (value if value is ABSENT else short(value) for value in (known, wanted))
    return f"its {key or 'recipe'} is {there}, this one's is {here}"
