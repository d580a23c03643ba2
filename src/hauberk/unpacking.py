"""Compressed and binary files: what they unpack to is looked at before they are unpacked.

The limits stand in ``reading``.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

from hauberk.errors import HauberkError
from hauberk.reading import (
    HEADER_BYTES,
    MEMBERS,
    RATIO,
    RECORD_BYTES,
    ROWS,
    UNPACKED,
    UNPACKED_RECORDS,
    check_regular,
    content,
)


def check_unpacked(where: object, size: int, unpacked: int, always: int = UNPACKED) -> None:
    """Raise if compressed data says that it grows to more than data does.

    Args:
        where: the file, for the message.
        size: bytes of the file.
        unpacked: bytes that it says it holds.
        always: what is allowed whatever the size.
    """
    allowed = max(always, RATIO * size)
    if unpacked > allowed:
        raise HauberkError(
            f"{where}: {size:,} bytes that unpack to {unpacked:,} bytes, expected at most {allowed:,}",
            "do not open this file: images never compress so much",
        )


def check_npz(path: Path) -> None:
    """Raise if an .npz file holds more arrays, or unpacks to more, than data does; its reader says all else.

    Raises:
        HauberkError: naming the limit.
    """
    check_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return
    if len(members) > MEMBERS:
        raise HauberkError(
            f"{path} holds {len(members):,} arrays, expected at most {MEMBERS:,}", "check that it is a data set"
        )
    size = path.stat().st_size
    check_unpacked(path, size, sum(m.file_size for m in members))
    for member in members:
        check_unpacked(path, size, _claimed(path, member))


def _claimed(path: Path, member: zipfile.ZipInfo) -> int:
    """The bytes that the head of an array says it has: they are set aside before they are read."""
    shape, size = _head(path, member)
    return math.prod(shape) * size


def npz_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the arrays of an .npz file; what is no array has the shape ()."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    return {member.filename.removesuffix(".npy"): _head(path, member)[0] for member in members}


def _head(path: Path, member: zipfile.ZipInfo) -> tuple[tuple[int, ...], int]:
    """Shape of an array of an .npz file and bytes of one value; () and 0 where it is none."""
    from numpy.lib import format as npy

    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as handle:
            version = npy.read_magic(handle)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = read(handle)
    except Exception:  # no array, or damaged in any way: its reader says so
        return (), 0
    return shape, dtype.itemsize


def gunzip(packed: bytes, where: object) -> bytes:
    """The content of gzip data, all of its members.

    Raises:
        HauberkError: if it unpacks to more than data does.
        zlib.error, EOFError: if it is damaged or cut short.
    """
    allowed, found = max(UNPACKED, RATIO * len(packed)), bytearray()
    rest = packed
    while rest:
        member = zlib.decompressobj(wbits=31)
        found += member.decompress(rest, allowed + 1 - len(found))
        if len(found) > allowed:
            check_unpacked(where, len(packed), len(found))
        if not member.eof:
            raise EOFError("it ends before its last block")
        rest = member.unused_data.lstrip(b"\0")
    return bytes(found)


def check_safetensors(path: Path) -> None:
    """Raise if the head of a safetensors file is longer than that of any model, or than the file.

    Raises:
        HauberkError: saying so.
    """
    check_regular(path)
    with path.open("rb") as handle:
        head, size = int.from_bytes(handle.read(8), "little"), os.fstat(handle.fileno()).st_size
    if head > min(HEADER_BYTES, size):
        raise HauberkError(f"{path} is truncated or not a safetensors file", "train the model again")


def parquet(path: Path) -> Any:
    """The table of a Parquet file of records.

    Raises:
        HauberkError: if it is a link or no file, or unpacks to more than records do.
        OSError, pyarrow.ArrowInvalid: if it is damaged.
    """
    return table_of(content(path, RECORD_BYTES, links=False), path)


def table_of(packed: bytes, where: object) -> Any:
    """The table that the bytes of a Parquet file of records hold; errors as ``parquet``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if len(packed) > RECORD_BYTES:
        raise HauberkError(f"{where} has {len(packed):,} bytes, expected at most {RECORD_BYTES:,}", "do not open it")
    file = pq.ParquetFile(io.BytesIO(packed))
    head, schema = file.metadata, file.schema_arrow
    chunks = [head.row_group(i).column(j) for i in range(head.num_row_groups) for j in range(head.num_columns)]
    unpacked = sum(8 * max(0, chunk.num_values) + chunk.total_uncompressed_size for chunk in chunks)
    check_unpacked(where, len(packed), unpacked, UNPACKED_RECORDS)
    if head.num_rows > ROWS:
        raise HauberkError(f"{where}: {head.num_rows:,} rows, expected at most {ROWS:,}", "do not open this file")
    texts = [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_binary(f.type)]
    table = pq.read_table(io.BytesIO(packed), read_dictionary=texts)  # a text that is repeated is kept once
    for name in texts:
        check_unpacked(where, len(packed), sum(map(_unpacked, table.column(name).chunks)), UNPACKED_RECORDS)
    return table.cast(schema)


def _unpacked(column: Any) -> int:
    """Bytes of a dictionary-encoded column with every value written out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    return int(pc.sum(pc.take(pc.binary_length(column.dictionary), column.indices)).as_py() or 0)


def check_stored(where: object, packed: bytes) -> None:
    """Raise if a zip archive that should be stored as it is, such as a checkpoint of torch, is compressed.

    Raises:
        HauberkError: if it unpacks to more than it is.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return  # its reader will say so
    if unpacked > len(packed):
        raise HauberkError(f"{where}: {len(packed):,} bytes that unpack to {unpacked:,}", "do not open this file")
