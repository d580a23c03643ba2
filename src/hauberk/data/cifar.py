"""CIFAR-10 and CIFAR-100 in the publisher's own files, the "python version"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, validate_call

from hauberk.data import files
from hauberk.data.arrays import Arrays
from hauberk.data.dataset import Dataset
from hauberk.data.pickles import read_arrays, text
from hauberk.data.splits import VAL_SIZE, assemble
from hauberk.errors import HauberkError

_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class _Published:
    """What the publisher put out: the archive, its folder, and the md5 of each file that is read."""

    url: str
    archive: str
    archive_md5: str
    folder: str
    sums: Mapping[str, str]


_CIFAR10 = _Published(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    archive="cifar-10-python.tar.gz",
    archive_md5="c58f30108f718f92721af3b95e74349a",
    folder="cifar-10-batches-py",
    sums={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
)

_CIFAR100 = _Published(
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    archive="cifar-100-python.tar.gz",
    archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
    folder="cifar-100-python",
    sums={
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48",
    },
)


@validate_call
def cifar10(
    root: Path | None = None,
    val_size: Annotated[int, Field(ge=0)] = VAL_SIZE,
    download: bool = False,
    verify: bool = True,
) -> Dataset:
    """CIFAR-10: 50,000 train and 10,000 test images of 32x32 colour pixels, 10 classes (Krizhevsky 2009).

    Args:
        root: the folder that holds ``cifar-10-batches-py``; see :func:`hauberk.data.load` for the default.
        val_size: how many train images are held out for validation.
        download: fetch the archive if a file is missing.
        verify: compare the md5 of each file with the published one.

    Raises:
        HauberkError: if a file is missing, is not the published one, or holds code.
    """
    content = _read(_CIFAR10, files.data_root(root), download, verify)
    batches = [_arrays(path, values, "labels") for path, values in content.items()]
    train = Arrays(np.concatenate([b.images for b in batches[:-1]]), np.concatenate([b.labels for b in batches[:-1]]))
    return assemble("cifar10", _CIFAR10_CLASSES, train, batches[-1], val_size=val_size)


@validate_call
def cifar100(
    root: Path | None = None,
    labels: Literal["fine", "coarse"] = "fine",
    val_size: Annotated[int, Field(ge=0)] = VAL_SIZE,
    download: bool = False,
    verify: bool = True,
) -> Dataset:
    """CIFAR-100: 50,000 train and 10,000 test images of 32x32 colour pixels (Krizhevsky 2009).

    Args:
        root: the folder that holds ``cifar-100-python``; see :func:`hauberk.data.load` for the default.
        labels: the 100 ``fine`` classes or the 20 ``coarse`` ones.
        val_size: how many train images are held out for validation.
        download: fetch the archive if a file is missing.
        verify: compare the md5 of each file with the published one.

    Raises:
        HauberkError: if a file is missing, is not the published one, or holds code.
    """
    (train, test, (meta_path, meta)) = _read(_CIFAR100, files.data_root(root), download, verify).items()
    names = meta.get(f"{labels}_label_names")
    if not isinstance(names, list):
        raise HauberkError(f"{meta_path} lacks {labels}_label_names", "fetch the published file again")
    arrays = [_arrays(path, values, f"{labels}_labels") for path, values in (train, test)]
    name = "cifar100" if labels == "fine" else "cifar100-coarse"
    return assemble(name, tuple(text(n) for n in names), arrays[0], arrays[1], val_size=val_size)


def _read(published: _Published, root: Path, download: bool, verify: bool) -> dict[Path, dict[str, Any]]:
    paths = {name: root / published.folder / name for name in published.sums}
    archive = root / published.archive
    if download and not all(path.exists() for path in paths.values()):
        if not archive.exists():
            files.download(published.url, archive, published.archive_md5)
        files.unpack(archive, published.folder, published.sums)
    hint = f"unpack {published.archive} ({published.url}) in {root}, or set download: true"
    return {
        path: read_arrays(files.read_file(path, published.sums[name] if verify else None, hint), path)
        for name, path in paths.items()
    }


def _arrays(path: Path, values: dict[str, Any], key: str) -> Arrays:
    data, labels = values.get("data"), values.get(key)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3 * 32 * 32:
        found = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise HauberkError(f"{path}: expected data of uint8 (N, 3072), got {found}", "fetch the published file again")
    if not isinstance(labels, list) or not all(isinstance(v, int) for v in labels):
        raise HauberkError(f"{path}: expected a list of integers under {key!r}", "fetch the published file again")
    return Arrays(data.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64))
