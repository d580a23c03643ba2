"""Records of an evaluation in few files: when many units have one each, they are joined.

Each unit is a file of its own first, so that a kill loses none.  Beyond ``FEW`` of them they are joined with the joined
files that are not much larger, so that the number of files grows like the logarithm of the number of units, and each
row is written about as often.  At the end an evaluation of more than ``FEW`` units is one file, or one for each
``JOINED_BYTES``.  A joined file is whole before what it replaces is removed: a kill between the two leaves units that
are there twice and say the same, which all readers count once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa

from hauberk import unpacking
from hauberk.errors import HauberkError
from hauberk.records import (
    Part,
    RecordKind,
    apart,
    evaluation_key,
    file_name,
    merge,
    packed,
    read,
    read_parts,
    replaces,
    write,
)
from hauberk.storage import LOCK, atomic_write, locked

FEW = 64  # units of an evaluation that may have a file each
JOINED_BYTES = 1 << 28  # of the rows of a joined file


class Store:
    """The records of one kind in a folder, as the driver of one evaluation finds and keeps them.

    Args:
        folder: of the records.
        kind: of record.
    """

    def __init__(self, folder: Path, kind: RecordKind) -> None:
        self._folder, self._kind = folder, kind
        self._own: set[str] = set()  # keys of the units of this evaluation
        self._alone: set[Path] = set()  # their files of one unit
        self._keys: dict[Path, frozenset[str]] = {}  # of joined files, whose name is the hash of these
        self._found: dict[str, Part] = {}  # what they held at the start
        self._look(keep=True)

    def find(self, key: str) -> Part | None:
        """The record of a unit of this evaluation, None where there is none."""
        path = self._folder / f"{self._kind}-{key}.parquet"
        found = self._read(path)
        if found is not None:
            self._alone.add(path)
        else:
            found = self._found.get(key)
        if found is not None:
            self._own.add(key)
        return found

    def keep(self, item: Part) -> None:
        """Write the record of a unit of this evaluation; errors as ``records.write``."""
        key = item.key
        with locked(self._folder / LOCK):  # no other process joins a record that changes meanwhile
            joined = self._found.get(key)
            self._own.add(key)
            if joined is not None and not replaces(item, joined):
                return
            self._alone.add(write(self._folder, item))
            if len(self._alone) > FEW:
                self._join(whole=False)

    def settle(self) -> None:
        """Join what this evaluation left, if it has many units."""
        if len(self._own) > FEW:
            with locked(self._folder / LOCK):
                self._join(whole=True)

    def _read(self, path: Path) -> Part | None:
        """A file of one unit, which another process may join with others at this moment."""
        if not path.exists():
            return None
        try:
            return read(path)
        except HauberkError:
            if path.exists():
                raise
            self._look(keep=True)
            return None

    def _look(self, keep: bool = False) -> None:
        """Read the joined files that are new here."""
        there = self._joined()
        for path in (p for p in there if p not in self._keys):
            try:
                parts = {part.key: part for part in read_parts(path)}
            except HauberkError:
                if path.exists():
                    raise
                return self._look(keep)  # another process joined it with others
            self._keys[path] = frozenset(parts)
            self._found |= parts if keep else {}
        self._keys = {path: self._keys[path] for path in there}
        return None

    def _joined(self) -> list[Path]:
        return sorted(self._folder.glob(f"{self._kind}-joined-*.parquet"))

    def _join(self, whole: bool) -> None:
        """Join files of one unit with joined ones: with all, or with those that are at most twice as large together."""
        self._look()
        taken = sorted(path for path in self._alone if path.exists())
        count = len(taken)
        own = [path for path, keys in self._keys.items() if keys & self._own]
        for path in sorted(own, key=lambda p: len(self._keys[p])):
            if not whole and len(self._keys[path]) > 2 * count:
                break
            taken.append(path)
            count += len(self._keys[path])
        sources: dict[str, set[Path]] = defaultdict(set)
        parts: dict[str, list[Part]] = defaultdict(list)
        for path in taken:
            for part in read_parts(path):
                key = evaluation_key(part)
                parts[key].append(part)
                sources[key].add(path)
        for key, paths in sources.items():
            if len(paths) > 1:
                written = write_joined(self._folder, merge(parts[key]))
                for path in paths.difference(written):
                    path.unlink()
        self._alone = {path for path in self._alone if path.exists()}


def write_joined(folder: Path, parts: Iterable[Part]) -> list[Path]:
    """Write the parts of one evaluation into one file, or as few as a reader takes, and return their paths."""
    ordered = sorted(parts, key=lambda p: (p.table.column("id")[0].as_py(), p.key))
    size = sum(p.table.nbytes for p in ordered)
    if len(ordered) == 1:
        return [write(folder, ordered[0])]
    content = _joined(ordered) if size <= JOINED_BYTES else b""
    if not content:
        half = len(ordered) // 2
        return [*write_joined(folder, ordered[:half]), *write_joined(folder, ordered[half:])]
    path = folder / file_name(ordered)
    atomic_write(path, content)
    return [path]


def _joined(parts: Sequence[Part]) -> bytes:
    """What a file of several parts holds; empty where its reader would refuse it."""
    first, names = parts[0], apart(parts[0])
    own = [{"unit": {k: p.unit[k] for k in names if k in p.unit}, "rows": p.table.num_rows} for p in parts]
    unit = {k: v for k, v in first.unit.items() if k not in names}
    table = pa.concat_tables([p.table for p in parts])
    content = packed(Part(first.kind, unit, first.facts, table), {"parts": own})
    try:
        unpacking.table_of(content, "")
    except HauberkError:
        return b""
    return content
