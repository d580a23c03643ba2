"""MNIST and Fashion-MNIST in the IDX format, plain or gzipped."""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, validate_call

from hauberk import unpacking
from hauberk.data import files
from hauberk.data.arrays import Arrays
from hauberk.data.dataset import Dataset
from hauberk.data.splits import VAL_SIZE, assemble
from hauberk.errors import HauberkError, reason

_UNSIGNED_BYTE = 0x08


@dataclass(frozen=True)
class _Published:
    """What the publisher put out: for each file the md5 of its content, and of the gzipped file that is fetched."""

    name: str
    classes: tuple[str, ...]
    url: str
    folder: str
    sums: Mapping[str, tuple[str, str]]


_MNIST = _Published(
    name="mnist",
    classes=tuple(str(k) for k in range(10)),
    url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    folder="MNIST",
    sums={
        "train-images-idx3-ubyte": ("6bbc9ace898e44ae57da46a324031adb", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        "train-labels-idx1-ubyte": ("a25bea736e30d166cdddb491f175f624", "d53e105ee54ea40749a09fcbcd1e9432"),
        "t10k-images-idx3-ubyte": ("2646ac647ad5339dbf082846283269ea", "9fb629c4189551a2d022fa330f9573f3"),
        "t10k-labels-idx1-ubyte": ("27ae3e4e09519cfbb04c329615203637", "ec29112dd5afa0611ce80d1b7f02629c"),
    },
)

_FASHION_MNIST = _Published(
    name="fashion_mnist",
    classes=(
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    folder="FashionMNIST",
    sums={
        "train-images-idx3-ubyte": ("f4a8712d7a061bf5bd6d2ca38dc4d50a", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        "train-labels-idx1-ubyte": ("9018921c3c673c538a1fc5bad174d6f9", "25c81989df183df01b3e8a0aad5dffbe"),
        "t10k-images-idx3-ubyte": ("8181f5470baa50b63fa0f6fddb340f0a", "bef4ecab320f06d8554ea6380940ec79"),
        "t10k-labels-idx1-ubyte": ("15d484375f8d13e6eb1aabb0c3f46965", "bb300cfdad3c16e7a12a480ee83cd310"),
    },
)


@validate_call
def mnist(
    root: Path | None = None,
    val_size: Annotated[int, Field(ge=0)] = VAL_SIZE,
    download: bool = False,
    verify: bool = True,
) -> Dataset:
    """MNIST: 60,000 train and 10,000 test images of 28x28 grey pixels, 10 digits (LeCun et al. 1998).

    Args:
        root: the folder that holds the four files, or ``MNIST/raw`` or ``MNIST`` with them; plain or ``.gz``.
        val_size: how many train images are held out for validation.
        download: fetch a file that is missing.
        verify: compare the md5 of each file's content with that of the published one.

    Raises:
        HauberkError: if a file is missing, truncated, or not the published one.
    """
    return _load(_MNIST, files.data_root(root), val_size, download, verify)


@validate_call
def fashion_mnist(
    root: Path | None = None,
    val_size: Annotated[int, Field(ge=0)] = VAL_SIZE,
    download: bool = False,
    verify: bool = True,
) -> Dataset:
    """Fashion-MNIST: 60,000 train and 10,000 test images of 28x28 grey pixels, 10 clothes (Xiao et al. 2017).

    Args:
        root: the folder that holds the four files, or ``FashionMNIST/raw`` or ``FashionMNIST`` with them; plain or
            ``.gz``.
        val_size: how many train images are held out for validation.
        download: fetch a file that is missing.
        verify: compare the md5 of each file's content with that of the published one.

    Raises:
        HauberkError: if a file is missing, truncated, or not the published one.
    """
    return _load(_FASHION_MNIST, files.data_root(root), val_size, download, verify)


def read_idx(content: bytes, path: Path) -> np.ndarray:
    """The array in an IDX file of unsigned bytes.

    The format: two zero bytes, the type (8: unsigned byte), the number of dimensions d, d sizes as big-endian 32-bit
    integers, then the values in C order, as MNIST's publisher describes it.

    Args:
        content: the file, not compressed.
        path: where it came from, for messages.

    Raises:
        HauberkError: if it is not such a file, or is longer or shorter than its sizes say.
    """
    dimensions = content[3] if len(content) >= 4 else 0
    head = 4 + 4 * dimensions
    if content[:3] != bytes([0, 0, _UNSIGNED_BYTE]) or not dimensions or len(content) < head:
        found = content[:4].hex(" ") or "nothing"
        raise HauberkError(
            f"{path}: expected an IDX file of unsigned bytes, which begins 00 00 08, got {found}", "fetch it again"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:head])
    expected = head + math.prod(shape)
    if len(content) != expected:
        state = "truncated" if len(content) < expected else "longer than it says"
        raise HauberkError(
            f"{path} is {state}: expected {expected} bytes for shape {shape}, got {len(content)}", "fetch it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=head).reshape(shape)


def _load(published: _Published, root: Path, val_size: int, download: bool, verify: bool) -> Dataset:
    arrays = {name: _read(published, name, root, download, verify) for name in published.sums}
    train, test = (
        Arrays(arrays[f"{part}-images-idx3-ubyte"][:, None], arrays[f"{part}-labels-idx1-ubyte"])
        for part in ("train", "t10k")
    )
    return assemble(published.name, published.classes, train, test, val_size=val_size)


def _read(published: _Published, name: str, root: Path, download: bool, verify: bool) -> np.ndarray:
    raw = root / published.folder / "raw"
    folders = (raw, root / published.folder, root)
    found = next((f / (name + end) for f in folders for end in ("", ".gz") if (f / (name + end)).exists()), None)
    url = f"{published.url}{name}.gz"
    if found is None and download:
        found = raw / f"{name}.gz"
        files.download(url, found, published.sums[name][1])
    path = found or raw / name
    content = files.read_file(path, None, f"put {name} or {name}.gz ({url}) there, or say download: true")
    if path.suffix == ".gz":
        content = _decompress(content, path)
    array = read_idx(content, path)
    if verify:
        files.check_md5(path, hashlib.md5(content, usedforsecurity=False).hexdigest(), published.sums[name][0])
    if array.ndim != (3 if "images" in name else 1):
        raise HauberkError(f"{path}: expected {name.split('-')[1]}, got an array of shape {array.shape}",
                           "it is another file under this name: fetch it again")  # fmt: skip
    return array


def _decompress(content: bytes, path: Path) -> bytes:
    try:
        return unpacking.gunzip(content, path)
    except (OSError, EOFError, zlib.error) as error:
        raise HauberkError(f"{path} is damaged or truncated: {reason(error)}", "fetch it again") from error
