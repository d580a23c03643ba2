"""Compressed and binary files ask for no more memory than data does."""

import gzip
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from hauberk import unpacking
from hauberk.data.files import read_npz
from hauberk.errors import HauberkError

MIB = 1 << 20


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of a tenth of a megabyte, so that what exceeds them is made quickly."""
    monkeypatch.setattr(unpacking, "UNPACKED", MIB // 10)
    monkeypatch.setattr(unpacking, "UNPACKED_RECORDS", MIB // 10)
    monkeypatch.setattr(unpacking, "ROWS", 1000)
    monkeypatch.setattr(unpacking, "MEMBERS", 10)
    monkeypatch.setattr(unpacking.check_unpacked, "__defaults__", (MIB // 10,))


def head(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def bombs(folder: Path) -> dict[str, Path]:
    """Archives that are small on the disk and large in memory."""
    found = {name: folder / f"{name}.npz" for name in ("zeros", "many", "claims", "overlong")}
    np.savez_compressed(found["zeros"], x=np.zeros(4 * MIB, np.uint8))
    np.savez_compressed(found["many"], **{f"x{i}": np.zeros(1, np.uint8) for i in range(11)})
    with zipfile.ZipFile(found["claims"], "w") as archive:
        archive.writestr("x.npy", head((10**12,)) + b"0" * 10)
    with zipfile.ZipFile(found["overlong"], "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", head((4,)) + b"0" * MIB)
    return found


@pytest.mark.parametrize("name", ["zeros", "many", "claims", "overlong"])
def test_npz_files_that_grow(name: str, tmp_path: Path) -> None:
    with pytest.raises(HauberkError, match=r"expected at most"):
        read_npz(bombs(tmp_path)[name], ["x"])


def test_npz_files_that_hold_no_arrays(tmp_path: Path) -> None:
    for name, content in {"text": b"hello", "empty": b"", "head": head((3,))[:20]}.items():
        path = tmp_path / f"{name}.npz"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", content)
        with pytest.raises(HauberkError):
            read_npz(path, ["x"])


@pytest.mark.parametrize("members", [1, 8])
def test_gzip_that_grows(members: int) -> None:
    packed = gzip.compress(b"\0" * (4 * MIB // members)) * members
    with pytest.raises(HauberkError, match="expected at most"):
        unpacking.gunzip(packed, "it")


def test_gzip_that_is_whole_and_that_is_not() -> None:
    content = bytes(range(256)) * 4
    assert unpacking.gunzip(gzip.compress(content) + gzip.compress(b"more"), "it") == content + b"more"
    with pytest.raises(EOFError):
        unpacking.gunzip(gzip.compress(content)[:-9], "it")
    with pytest.raises(Exception, match="Error -3"):
        unpacking.gunzip(b"no gzip at all", "it")


def written(folder: Path, columns: dict[str, Any], **settings: Any) -> Path:
    path = folder / "x.parquet"
    pq.write_table(pa.table(columns), path, compression="zstd", **settings)
    return path


@pytest.mark.parametrize(
    "columns",
    [
        {"id": np.zeros(900 * 100, np.int64)},
        {"id": np.zeros(1001, np.int64)},
        {"evidence": ["x" * 2000] * 900},
        {"image": [b"x" * MIB]},
        {"draws": [[0] * 1000] * 900},
    ],
    ids=["rows", "number of rows", "one text many times", "one large value", "lists"],
)
def test_records_that_grow(columns: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(HauberkError, match="expected at most"):
        unpacking.parquet(written(tmp_path, columns))


@pytest.mark.parametrize("settings", [{}, {"use_dictionary": False}, {"row_group_size": 7}])
def test_records_come_back_as_they_were(settings: dict[str, Any], tmp_path: Path) -> None:
    columns = {
        "id": np.arange(20), "evidence": [f'{{"logits": [{i}]}}' for i in range(20)], "image": [None, b"\0\1"] * 10,
        "draws": [[1, 2], []] * 10, "stopped": ["yes", None] * 10,
    }  # fmt: skip
    assert unpacking.parquet(written(tmp_path, columns, **settings)).equals(pa.table(columns))


def test_records_that_are_links(tmp_path: Path) -> None:
    (tmp_path / "link.parquet").symlink_to(written(tmp_path, {"id": np.arange(3)}))
    with pytest.raises(HauberkError, match="is a link"):
        unpacking.parquet(tmp_path / "link.parquet")


def test_safetensors_with_a_head_beyond_the_file(tmp_path: Path) -> None:
    for size in (2**63 - 1, 2**40, 101):
        (tmp_path / "x").write_bytes(struct.pack("<Q", size) + b"{}" + b"\0" * 90)
        with pytest.raises(HauberkError, match="not a safetensors"):
            unpacking.check_safetensors(tmp_path / "x")


def test_checkpoints_that_are_compressed() -> None:
    buffer = io.BytesIO()
    torch.save({"x": torch.zeros(MIB)}, buffer)
    unpacking.check_stored("it", buffer.getvalue())
    packed = io.BytesIO()
    with zipfile.ZipFile(buffer) as stored, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in stored.namelist():
            archive.writestr(name, stored.read(name))
    with pytest.raises(HauberkError, match="unpack to"):
        unpacking.check_stored("it", packed.getvalue())
    unpacking.check_stored("it", b"no archive: its reader says so")
