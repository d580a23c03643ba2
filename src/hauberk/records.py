"""Records: one row per sample and unit of work, in Parquet files that are written atomically.

A unit of work is keyed by a hash of all that its result depends on (weights, data, threat, configuration, seed,
tile, schema, dtype).  Resuming means doing the units that are missing; merging is the set union of units.  The same
key with different content is an error.

A file holds one unit, or several of one evaluation, one after the other: then its head says which, with how many rows.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from hauberk import reading, unpacking
from hauberk.batch import Samples
from hauberk.errors import HauberkError
from hauberk.record_schemas import BESIDE as BESIDE
from hauberk.record_schemas import COLUMNS, PICTURES
from hauberk.record_schemas import MEASURED as MEASURED
from hauberk.record_schemas import SCHEMAS as SCHEMAS
from hauberk.record_schemas import RecordKind as RecordKind
from hauberk.storage import atomic_write

HASHED_ROWS = 64  # images that are floats at one time while they are hashed
APART = ("data", "purpose", "start", "stop")
INLINE = 10_000  # numbers that facts hold themselves; a larger array is a file of its own, which they name


def content_hash(value: Any) -> str:
    """SHA-256 of canonical JSON, an array by its own hash: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=_named).encode()).hexdigest()[:16]


def _named(value: Any) -> dict[str, str]:
    """What stands for an array in JSON: the key of the part that holds it."""
    if isinstance(value, np.ndarray):
        return {"array": unit_key("array", _array_unit(value))}
    raise TypeError(f"{type(value).__name__} is no plain value")


def _array_unit(values: np.ndarray) -> dict[str, Any]:
    content = np.ascontiguousarray(values, dtype=np.float64)
    return {"content": hashlib.sha256(content.tobytes()).hexdigest(), "shape": list(values.shape)}


def data_hash(samples: Samples) -> str:
    """SHA-256 over ids, labels and the bytes of the float32 images, in the order of ids: 16 hexadecimal digits."""
    order = samples.ids.argsort()
    digest = hashlib.sha256()
    for tensor in (samples.ids[order], samples.labels[order]):
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    for rows in torch.split(order, HASHED_ROWS):
        images = samples.select(rows).batch().images.float()
        digest.update(images.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Part:
    """The rows of one unit of work.

    Args:
        kind: of what.
        unit: all that the result depends on, plain JSON values; its hash is the key.
        facts: what else the rows need to be read, the same for every row (a model's Lipschitz bounds, class names).
        table: the rows.
    """

    kind: RecordKind
    unit: Mapping[str, Any]
    facts: Mapping[str, Any]
    table: pa.Table

    @property
    def key(self) -> str:
        """The hash that names the unit."""
        return unit_key(self.kind, self.unit)

    def column(self, name: str) -> np.ndarray:
        """One numeric column as a numpy array."""
        return np.asarray(self.table.column(name).to_numpy(zero_copy_only=False))


def unit_key(kind: RecordKind, unit: Mapping[str, Any]) -> str:
    """The key of a unit of work: the hash of its description and of the schema of its rows."""
    return content_hash({"kind": kind, "schema": COLUMNS[kind], "unit": dict(unit)})


def file_name(parts: Sequence[Part]) -> str:
    """The name of the file that holds a part, or several of one evaluation."""
    if len(parts) == 1:
        return f"{parts[0].kind}-{parts[0].key}.parquet"
    return f"{parts[0].kind}-joined-{content_hash({'joined': sorted(p.key for p in parts)})}.parquet"


def part(kind: RecordKind, unit: Mapping[str, Any], facts: Mapping[str, Any], columns: Mapping[str, Any]) -> Part:
    """Build a part from columns; absent columns are null.  Rows are sorted by id, so the order of work never shows."""
    rows = len(columns["id"])
    arrays = [
        pa.array(columns[f.name], f.type, from_pandas=True) if f.name in columns else pa.nulls(rows, f.type)
        for f in SCHEMAS[kind]
    ]
    shared = {k: v.tolist() if isinstance(v, np.ndarray) and v.size <= INLINE else v
              for k, v in facts.get("shared", {}).items()}  # fmt: skip
    facts = dict(facts) | ({"shared": shared} if "shared" in facts else {})
    return Part(kind, unit, facts, pa.Table.from_arrays(arrays, schema=SCHEMAS[kind]).sort_by("id"))


def write(folder: Path, item: Part) -> Path:
    """Write a part as ``<kind>-<key>.parquet`` and return its path.

    Raises:
        HauberkError: if a part of the same key with different content is there already.
    """
    path = folder / file_name([item])
    if path.exists() and not replaces(item, read(path)):
        return path
    for values in item.facts.get("shared", {}).values():
        if isinstance(values, np.ndarray):  # before what names it
            write_once(folder, _array_part(values))
    atomic_write(path, packed(item, {}))
    return path


def replaces(item: Part, known: Part) -> bool:
    """Whether a part takes the place of the one of its key: it keeps more pictures, or rests on more votes.

    Raises:
        HauberkError: if they contradict each other.
    """
    if _same(known, item) or _says_more(known, item):
        return False
    if not _says_more(item, known):
        raise HauberkError(
            f"{file_name([item])}: the same unit of work gave different rows",
            "the machine, library or code changed between the runs; move the old records away",
        )
    return True


def packed(item: Part, more: Mapping[str, Any]) -> bytes:
    """The content of a file: a table, and a head with more in it."""
    head = {"kind": item.kind, "unit": dict(item.unit), "facts": dict(item.facts), **more}
    metadata = {b"hauberk": json.dumps(head, default=_named).encode()}
    sink = pa.BufferOutputStream()
    pq.write_table(item.table.replace_schema_metadata(metadata), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def write_once(folder: Path, item: Part) -> None:
    """Write a part whose facts say when and where it was made, unless it is there already."""
    if not (folder / file_name([item])).exists():
        write(folder, item)


def read(path: Path) -> Part:
    """Read the only part of a file; errors as ``read_parts``."""
    found, *more = read_parts(path)
    if more:
        raise HauberkError(f"{path} holds {1 + len(more)} records, expected one", "read them with read_parts")
    return found


def read_parts(path: Path) -> list[Part]:
    """Read all parts of a file.

    Raises:
        HauberkError: if it holds no records of this project or its name does not match its content.
    """
    try:
        table = unpacking.parquet(path)
        head = reading.json_value(table.schema.metadata[b"hauberk"], str(path))
        reading.check_json(head, {"kind": str, "unit": dict, "facts": dict}, path)
        table = table.replace_schema_metadata(None)
        if not table.num_rows or not table.schema.equals(SCHEMAS[head["kind"]]):
            raise KeyError("another schema")
        units = _units(head, table, path)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise HauberkError(f"{path} is not a Hauberk record", "remove it and run the command again") from error
    facts = _with_arrays(head["facts"], path.parent)
    found = [Part(head["kind"], unit, facts, rows) for unit, rows in units]
    if Path(file_name(found)).stem.rpartition("-")[2] not in path.name:
        raise HauberkError(
            f"{path.name}: its name does not match its content",
            "it was changed, or written by another version of Hauberk: remove it and run the command again",
        )
    return found


def _units(head: Mapping[str, Any], table: pa.Table, path: Path) -> list[tuple[dict[str, Any], pa.Table]]:
    """What each unit of a file is, and its rows."""
    if "parts" not in head:
        return [(head["unit"], table)]
    for own in head["parts"]:
        reading.check_json(own, {"unit": dict, "rows": int}, path)
    units, rows = ([own[name] for own in head["parts"]] for name in ("unit", "rows"))
    if min(rows) < 1 or sum(rows) != table.num_rows or len(rows) < 2 or not set().union(*units) <= set(APART):
        raise ValueError("its units are of several evaluations, or have other rows")
    ends = accumulate(rows)
    return [({**head["unit"], **own}, table.slice(end - count, count))
            for own, count, end in zip(units, rows, ends, strict=True)]  # fmt: skip


def _array_part(values: np.ndarray) -> Part:
    rows = np.ascontiguousarray(values, dtype=np.float64).reshape(len(values), -1)
    return part("array", _array_unit(values), {}, {"id": range(len(rows)), "values": list(rows)})


def _with_arrays(facts: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Facts with the arrays that they name."""
    shared = facts.get("shared")
    if not isinstance(shared, dict):
        return facts
    found = {k: _array(folder, v["array"]) if isinstance(v, dict) and set(v) == {"array"} else v
             for k, v in shared.items()}  # fmt: skip
    return facts | {"shared": found}


def _array(folder: Path, key: Any) -> np.ndarray:
    if not isinstance(key, str) or re.fullmatch("[0-9a-f]{16}", key) is None:
        raise HauberkError(f"{folder}: a record names the array {key!r:.40}", "it was changed: do not trust it")
    path = folder / f"array-{key}.parquet"
    try:
        state = path.stat()
    except OSError as error:
        raise HauberkError(f"{path} is missing, but a record needs it", "restore it, or run it again") from error
    return _read_array(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4)
def _read_array(path: Path, _changed: int, _size: int) -> np.ndarray:
    """One array, which all parts that name it share."""
    found = read(path)
    try:
        values = pc.list_flatten(found.table.column("values")).to_numpy().reshape(found.unit["shape"])
        values.flags.writeable = False
        whole = _array_unit(values) == dict(found.unit)
    except (KeyError, TypeError, ValueError) as error:
        raise HauberkError(f"{path} holds no array", "restore it, or run it again") from error
    if not whole:
        raise HauberkError(f"{path}: its numbers do not match the hash in its name", "it was changed: do not trust it")
    return np.asarray(values)


def read_all(folder: Path, kind: RecordKind | None = None) -> list[Part]:
    """All parts of a folder, of one kind or of all that hold measurements, in the order of kind and key.

    A kill may leave a part in two files: it is there once.  Files that are joined meanwhile are looked for again.
    """
    kinds = MEASURED if kind is None else (kind,)
    while True:
        paths = _listed(folder, kinds)
        try:
            return sorted(_union(p for path in paths for p in read_parts(path)), key=lambda p: (p.kind, p.key))
        except HauberkError:
            if paths == _listed(folder, kinds):
                raise


def _listed(folder: Path, kinds: Iterable[RecordKind]) -> list[Path]:
    return sorted(path for kind in kinds for path in folder.glob(f"{kind}-*.parquet"))


def merge(parts: Iterable[Part]) -> list[Part]:
    """The set union of units.

    Raises:
        HauberkError: if one key comes with different content.
    """
    return sorted(_union(parts), key=lambda p: p.key)


def _union(parts: Iterable[Part]) -> Iterable[Part]:
    union: dict[str, Part] = {}
    for item in parts:
        known = union.setdefault(key := item.key, item)
        if known is item or _same(known, item) or _says_more(known, item):
            continue
        if not _says_more(item, known):
            raise HauberkError(f"unit {key} comes with different rows", "one of the runs is stale; run it again")
        union[key] = item
    return union.values()


def group(parts: Iterable[Part]) -> list[Part]:
    """Join the parts of one evaluation: those whose units differ in ``data`` alone, rows sorted by id.

    A part of attacks is superseded by a larger one that holds all its samples with the same labels and clean
    predictions: the last unit of an evaluation that was then extended.  In it the same images had other neighbours, so
    the last bits of an attack may differ.

    The joined part is a unit whose data is the set of the parts' data, so it may be written and read like any other.
    Votes are joined over their blocks too.  Fingerprints, arrays and plans stay as they are.

    Raises:
        HauberkError: if one sample appears twice in one evaluation with different rows.
    """
    groups: dict[str, list[Part]] = {}
    alone: list[Part] = []
    for item in merge(parts):
        if item.kind not in (*MEASURED, "votes"):
            alone.append(item)
            continue
        groups.setdefault(evaluation_key(item), []).append(item)
    joined = alone
    for found in groups.values():
        items = _largest(found)
        table = _each_sample_once(pa.concat_tables([i.table for i in items]))
        data = sorted({str(i.unit["data"]) for i in items})
        unit = {k: v for k, v in items[0].unit.items() if k not in apart(items[0])}
        unit |= {"data": data[0] if len(data) == 1 else content_hash(data)}
        joined.append(Part(items[0].kind, unit, items[0].facts, table))
    return joined


def evaluation_key(item: Part) -> str:
    """The hash that all parts of one evaluation share."""
    shared = {k: v for k, v in item.unit.items() if k not in apart(item)}
    return content_hash({"kind": item.kind, "unit": shared, "facts": dict(item.facts)})


def apart(item: Part) -> tuple[str, ...]:
    """In what the units of one evaluation differ; the rows of votes name their blocks too."""
    return APART if item.kind == "votes" else APART[:1]


def _largest(items: list[Part]) -> list[Part]:
    """The parts without those attacks that a larger part repeats."""
    if items[0].kind != "attack":
        return items
    kept: list[tuple[Part, dict[int, tuple[int, int]]]] = []
    for item in sorted(items, key=lambda i: (-i.table.num_rows, i.key)):
        columns = (item.column(name).tolist() for name in ("id", "label", "clean_prediction"))
        known = {i: (label, clean) for i, label, clean in zip(*columns, strict=True)}
        if not any(len(known) < len(larger) and known.items() <= larger.items() for _, larger in kept):
            kept.append((item, known))
    return [item for item, _ in kept]


def _same(one: Part, other: Part) -> bool:
    """Whether two parts say the same, rows and facts."""
    return bool(one.table.equals(other.table)) and content_hash(dict(one.facts)) == content_hash(dict(other.facts))


def _says_more(item: Part, known: Part) -> bool:
    """Whether a part says what another one says, and more."""
    return _adds_pictures(known, item) or _more_votes(known, item)


def _adds_pictures(known: Part, item: Part) -> bool:
    """Whether a part of an attack says the same as one that is there and keeps more pictures."""
    if item.kind != "attack" or _kept(item) <= _kept(known):
        return False
    one, other = (Part(p.kind, p.unit, p.facts, p.table.drop_columns(list(PICTURES))) for p in (known, item))
    return _same(one, other)


def _more_votes(known: Part, item: Part) -> bool:
    """Whether certificates rest on more votes of the same images than those of another part, where they differ."""
    if item.kind != "certificate" or content_hash(dict(known.facts)) != content_hash(dict(item.facts)):
        return False
    few, more = ([(json.loads(r["evidence"]).get("drawn", float("inf")), r) for r in p.table.to_pylist()]
                 for p in (known, item))  # fmt: skip
    return len(few) == len(more) and all(a == b or a[0] < b[0] for a, b in zip(few, more, strict=True))


def _kept(item: Part) -> int:
    return int(item.table.num_rows - item.table.column("image").null_count)


def _each_sample_once(table: pa.Table) -> pa.Table:
    """Rows in the order of their ids, and of votes of their blocks; repeated ones, which must say the same, once."""
    names = [name for name in ("id", "purpose", "start", "stop") if name in table.column_names]
    table = table.sort_by([(name, "ascending") for name in names])
    ids = table.column("id").to_numpy()
    same = np.ones(len(ids) - 1, dtype=bool)
    for name in names:
        values = table.column(name).to_numpy()
        same &= values[1:] == values[:-1]
    again = np.flatnonzero(same) + 1
    for row in again.tolist():
        if not table.slice(row, 1).equals(table.slice(row - 1, 1)):
            raise HauberkError("one sample has two rows in one evaluation", "the data changed between the runs")
    return table.take(np.setdiff1d(np.arange(len(ids)), again))
