"""Whose code may run: what the user names in this command, and nothing that a file names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token

from hauberk.errors import HauberkError

_EVERYTHING = "*"
_TRUSTED: ContextVar[frozenset[str]] = ContextVar("trusted", default=frozenset())


@contextmanager
def trusting(*sources: str, everything: bool = False) -> Iterator[None]:
    """Inside, specs may run the code that these sources name.

    Args:
        sources: ``module:factory``, each typed by the user.
        everything: whatever a spec names, because the user trusts where the spec comes from.
    """
    token = trust(*sources, everything=everything)
    try:
        yield
    finally:
        _TRUSTED.reset(token)


def trust(*sources: str, everything: bool = False) -> Token[frozenset[str]]:
    """From here to the end of this context (see ``contextvars``); arguments as ``trusting``."""
    return _TRUSTED.set(_TRUSTED.get() | {*sources, *([_EVERYTHING] if everything else [])})


def trusted(source: str) -> bool:
    """Whether the user trusts this code."""
    return bool({source, _EVERYTHING} & _TRUSTED.get())


def require(source: str) -> None:
    """Raise unless the user trusts this code.

    Raises:
        HauberkError: if only a file names it.
    """
    if not trusted(source):
        raise HauberkError(
            f"a recipe or a run names the code {source!r}, which runs only if you trust it",
            "read that code, and add --trust-code if you trust it (in Python: hauberk.trust.trusting)",
        )


def require_file(path: str, kind: str) -> None:
    """Raise unless the user trusts a file that is a program.

    Raises:
        HauberkError: saying what it is.
    """
    if not trusted(path):
        raise HauberkError(
            f"{path} is a {kind} file, which is a program and runs only if you trust it",
            "add --trust-code if you trust its source (in Python: hauberk.trust.trusting(everything=True)), "
            "or give its weights with --arch module:factory",
        )
