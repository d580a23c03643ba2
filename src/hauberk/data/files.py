"""Files of data sets: their folders, checks against the published sums, and downloads."""

from __future__ import annotations

import hashlib
import http.client
import os
import tarfile
import urllib.request
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hauberk import reading, unpacking
from hauberk.errors import HauberkError, reason
from hauberk.storage import atomic_write, replacing

_CHUNK = 1 << 20


def data_root(root: Path | None) -> Path:
    """The folder of data sets: the one given, else the environment variable ``HAUBERK_DATA``, else ``./data``."""
    return root if root is not None else Path(os.environ.get("HAUBERK_DATA") or "data")


def read_file(path: Path, md5: str | None, hint: str) -> bytes:
    """The content of a file.

    Args:
        path: the file.
        md5: the published sum, or None not to check it.
        hint: where to get the file, for the message if it is missing.

    Raises:
        HauberkError: if it is missing, cannot be read, or is not the published one.
    """
    try:
        content = reading.content(path, reading.DATA_BYTES)
    except FileNotFoundError as error:
        raise HauberkError(f"expected the file {path}, which is not there", hint) from error
    except OSError as error:
        raise HauberkError(f"cannot read {path}: {error.strerror}", hint) from error
    if md5 is not None:
        check_md5(path, hashlib.md5(content, usedforsecurity=False).hexdigest(), md5)
    return content


def check_md5(path: Path, found: str, expected: str) -> None:
    """Raise unless the two sums agree."""
    if found != expected:
        raise HauberkError(
            f"{path}: expected the published file with md5 {expected}, got {found}",
            "it is damaged or another version: fetch it again, or set verify: false if it differs on purpose",
        )


def file_md5(path: Path) -> str:
    """The md5 of a file of any size."""
    reading.check_regular(path)
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def download(url: str, path: Path, md5: str) -> None:
    """Fetch a file, check its sum, and only then give it its name.

    Args:
        url: the publisher's address.
        path: where to put it.
        md5: the published sum.

    Raises:
        HauberkError: without a connection, or if another file comes; nothing is left behind then.
    """
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with (
            urllib.request.urlopen(url, timeout=60) as response,  # noqa: S310  (addresses are constants of this package)
            replacing(path) as handle,
        ):
            while chunk := response.read(_CHUNK):
                digest.update(chunk)
                handle.write(chunk)
            check_md5(path, digest.hexdigest(), md5)
    except (OSError, http.client.HTTPException) as error:
        raise HauberkError(
            f"cannot download {url}: {reason(error)}",
            f"fetch it on a machine with a connection and put {path.name} into {path.parent}",
        ) from error


def unpack(archive: Path, folder: str, sums: Mapping[str, str]) -> None:
    """Take the named files, and nothing else, out of ``folder`` within a tar archive, and put them beside it.

    Args:
        archive: a ``.tar.gz`` file.
        folder: the folder inside the archive, and the one made next to it.
        sums: the published md5 of each file.

    Raises:
        HauberkError: if the archive is damaged, lacks a file, or holds another one under its name.
    """
    try:
        with tarfile.open(archive) as tar:
            for name, md5 in sums.items():
                member = tar.extractfile(f"{folder}/{name}")
                content = b"" if member is None else member.read(reading.PICKLE_BYTES)
                target = archive.parent / folder / name
                check_md5(target, hashlib.md5(content, usedforsecurity=False).hexdigest(), md5)
                atomic_write(target, content)
    except (tarfile.TarError, KeyError, EOFError, zlib.error, OSError) as error:
        message = f"{archive} is not the published archive: {reason(error)}"
        raise HauberkError(message, "remove it and fetch it again") from error


def arrays_of(path: Path) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the arrays of a ``.npz`` file, from their heads.

    Raises:
        HauberkError: if it is damaged.
    """
    unpacking.check_npz(path)
    if not zipfile.is_zipfile(path):
        raise HauberkError(f"{path} is not a whole .npz file", "fetch it again, or write it with numpy.savez")
    return unpacking.npz_shapes(path)


def read_npz(path: Path, required: list[str], optional: tuple[str, ...] = (), hint: str = "") -> dict[str, np.ndarray]:
    """The named arrays of a ``.npz`` file; pickled objects are refused.

    Args:
        path: the file.
        required: keys that must be there.
        optional: keys that are read if they are there.
        hint: where to get the file, for the message if it is missing.

    Raises:
        HauberkError: if the file is missing or damaged, lacks a key, or holds Python objects.
    """
    if not path.exists():
        raise HauberkError(f"expected the file {path}, which is not there", hint)
    unpacking.check_npz(path)
    if not zipfile.is_zipfile(path):
        raise HauberkError(f"{path} is not a whole .npz file", "fetch it again, or write it with numpy.savez")
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in required if key not in archive.files]
            if missing:
                raise HauberkError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(archive.files)}", hint)
            found = {key: archive[key] for key in (*required, *optional) if key in archive.files}
            odd = [key for key, value in found.items() if not isinstance(value, np.ndarray)]
            if odd:
                raise HauberkError(f"{path}: {odd[0]} is not an array", "write it with numpy.savez")
            return found
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise HauberkError(
                f"{path} holds Python objects, and reading those can run code",
                "save plain arrays: numpy.savez(path, x_train=images, y_train=labels.astype('int64'), ...)",
            ) from error
        message = f"{path} is not a whole .npz file: {reason(error)}"
        raise HauberkError(message, "fetch it again, or write it with numpy.savez") from error
