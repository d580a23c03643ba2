"""What a wrong formula is: one textual change to a source file, and the tests that must catch it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One wrong formula.

    Args:
        group: which part of the library it breaks.
        file: below ``src/hauberk``.
        old: text that occurs exactly once.
        new: what takes its place.
        tests: what must fail, as arguments of pytest.
    """

    group: str
    file: str
    old: str
    new: str
    tests: str


def group(name: str, file: str, tests: str, *changes: tuple[str, str]) -> list[Mutant]:
    """Changes to one file that the same tests must catch."""
    return [Mutant(name, file, old, new, tests) for old, new in changes]
