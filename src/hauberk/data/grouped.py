"""Splits that keep all images of one lesion or patient together, and the tables that say which belong together."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hauberk import reading
from hauberk.data.image_file import ENDINGS
from hauberk.data.inspection import counted, named
from hauberk.errors import HauberkError

TABLE_BYTES = 1 << 28  # of a table of images
DEEP = 3  # folders below the given one in which images are looked for


def check_apart(groups: Mapping[str, np.ndarray], what: str, path: Path) -> None:
    """Raise if something that several images show (a lesion, a patient) is in more than one split.

    Args:
        groups: its name for each image, by split.
        what: it is, in the singular.
        path: of the file that says so.
    """
    names = {part: set(values.tolist()) for part, values in groups.items()}
    parts = list(names)
    for place, one in enumerate(parts):
        for other in parts[place + 1 :]:
            shared = names[one] & names[other]
            if shared:
                first = min(shared)
                raise HauberkError(
                    f"{path}: {one} and {other} share {counted(len(shared), what)}, for example "
                    f"{first.decode(errors='replace') if isinstance(first, bytes) else first}",
                    f"keep all images of one {what} in one split: images of one {what} must not be in two splits",
                )


def tenths(groups: Sequence[str], strata: Sequence[int], tenth: Sequence[int]) -> np.ndarray:
    r"""Which part each image falls to, so that all images of a group fall to the same one.

    The n groups of a stratum are sorted by the SHA-256 of their names.  With borders :math:`b_1 \le b_2 \le \dots` in
    tenths, the i-th of them (from 0) falls to part :math:`|\{j : 10 i \ge b_j n\}|`.

    Args:
        groups: the name of each image's group.
        strata: a number of each image, the same within a group (its class, say).
        tenth: the borders; ``(7, 8)`` gives parts 0, 1 and 2 of 70, 10 and 20 per cent of the groups.

    Returns:
        parts, int64, shape (N,).

    Raises:
        HauberkError: if a group has two numbers.
    """
    of: dict[str, int] = {}
    for group, stratum in zip(groups, strata, strict=True):
        if of.setdefault(group, stratum) != stratum:
            raise HauberkError(
                f"the images of {group} are of more than one class",
                "correct the table: all images of one group must have one class",
            )
    part: dict[str, int] = {}
    for stratum in set(of.values()):
        members = sorted((g for g in of if of[g] == stratum), key=lambda g: hashlib.sha256(g.encode()).digest())
        for i, group in enumerate(members):
            part[group] = sum(10 * i >= border * len(members) for border in tenth)
    return np.array([part[group] for group in groups], dtype=np.int64)


def table(path: Path, columns: Iterable[str], hint: str) -> list[dict[str, str]]:
    """The rows of a table with a head, separated by commas, or by tabs where the head has some.

    Args:
        path: the file.
        columns: that it must have; only these are kept.
        hint: where to get the file.

    Raises:
        HauberkError: if it is missing or no such table.
    """
    if not path.is_file():
        raise HauberkError(f"expected the file {path}, which is not there", hint)
    text = reading.text(path, TABLE_BYTES)
    head = text.partition("\n")[0]
    try:
        rows = list(csv.DictReader(io.StringIO(text), delimiter="\t" if "\t" in head else ",", strict=True))
    except csv.Error as error:
        raise HauberkError(f"{path} is not a table of values: {error}", hint) from error
    missing = [name for name in columns if not rows or rows[0].get(name) is None]
    if missing:
        raise HauberkError(f"{path} lacks the column {missing[0]}; its head is {head[:80]!r}", hint)
    short = next((n for n, row in enumerate(rows) if any(row[name] is None for name in columns)), None)
    if short is not None:
        raise HauberkError(f"{path}: row {short + 1} below the head has too few values", hint)
    return [{name: row[name].strip() for name in columns} for row in rows]


def found_below(base: Path, wanted: Sequence[str], hint: str) -> list[str]:
    """The path below a folder of each image that a table names, wherever it lies, at most three folders deep.

    Args:
        base: the folder.
        wanted: file names; with no ending any of an image stands.
        hint: where to get them.

    Raises:
        HauberkError: if some are missing, or one is there twice.
    """
    paths: dict[str, str] = {}
    twice: dict[str, str] = {}
    for depth in range(DEEP + 1):
        for path in base.glob("*/" * depth + "*"):
            if path.suffix.lower() in ENDINGS:
                here = str(path.relative_to(base))
                for name in {path.name, path.stem}:
                    if paths.setdefault(name, here) != here:
                        twice[name] = here
    double = next((name for name in wanted if name in twice), None)
    if double is not None:
        raise HauberkError(f"{base} holds {double} twice: {paths[double]}, {twice[double]}", "keep one of them")
    missing = [name for name in wanted if name not in paths]
    if missing:
        raise HauberkError(
            f"{base} lacks {counted(len(missing), 'image')} of {len(wanted):,} that its table names: {named(missing)}",
            hint,
        )
    return [paths[name] for name in wanted]
