"""Files that a kill leaves whole or absent, and locks that end with the process that holds them.

Every file of the library is written here.  A temporary file is locked for as long as its writer lives, so one that
nobody locks was left by a kill and may be removed.  Where the system or the file system has no locks, temporary files
stay and processes are not kept apart.
"""

from __future__ import annotations

import os
import platform
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from hauberk.errors import HauberkError
from hauberk.reading import kind_of

try:
    import fcntl
except ImportError:  # pragma: no cover  (not a POSIX system)
    fcntl = None  # type: ignore[assignment]

PART, LOCK = ".part-", ".lock"


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file so that it is either absent or whole, with the permissions that the umask leaves.

    Raises:
        HauberkError: if the disk is full or the folder cannot be written; what was finished before is untouched.
    """
    try:
        with replacing(path) as handle:
            handle.write(content)
    except OSError as error:
        raise _failed(path, error) from error


def check_own(folder: Path, parts: Sequence[str]) -> None:
    """Raise if a folder holds anything but these parts and hidden files: it belongs to something else.

    Raises:
        HauberkError: naming what stands there.
    """
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    others = [name for name in found if name not in parts and not name.startswith(".")]
    if others:
        raise HauberkError(
            f"{folder} holds {others[0]!r} and no run, but a run needs a folder of its own",
            f"choose one inside it: --out {folder / 'run'}",
        )


def append(path: Path, line: bytes) -> None:
    """Add a line to the end of a file; a kill may cut it short.

    Raises:
        HauberkError: if it cannot be written.
    """
    check_replaceable(path)
    try:
        with path.open("ab") as handle:
            handle.write(line)
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        raise _failed(path, error) from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` at the end of the block: temporary name, flush to disk, rename.

    If the block fails, nothing is left of it.  What killed writers of the same file left is removed first.

    Raises:
        OSError: if it cannot be written.
    """
    check_replaceable(path)
    make_folder(path.parent)
    sweep(path.parent, path.name)
    handle = _temporary(path)
    temporary = Path(handle.name)
    try:
        with handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush(path.parent)


def check_replaceable(path: Path) -> None:
    """Raise if there is something else than a file where one is to be written; a device or pipe is never replaced.

    Raises:
        HauberkError: saying what is there.
    """
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # nothing is there, or what is wrong with the folder is said when it is written
    if not stat.S_ISREG(mode):
        raise HauberkError(f"{path} is {kind_of(mode)}, which no file may replace", "choose another name")


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that a power failure does not lose them."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _flush(folder.parent)


def sweep(folder: Path, name: str = "") -> None:
    """Remove temporary and lock files that killed processes left in a folder; those of living ones are held, and stay.

    Args:
        folder: where to look; it need not exist.
        name: only what is on its way to a file of this name.
    """
    with suppress(OSError):
        found = [e.path for e in os.scandir(folder) if _is_temporary(e, name)]
        for path in found:
            with suppress(OSError), Path(path).open("r+b") as handle:
                if _hold(handle):
                    Path(path).unlink()


@contextmanager
def locked(path: Path, busy: str | None = None) -> Iterator[None]:
    """Hold a lock file during the block; it is gone afterwards, and what a killed process left of it locks nobody out.

    Args:
        path: the lock file.
        busy: what a process that has the lock is doing, for the error; None waits until it has finished.

    Raises:
        HauberkError: if another process has the lock and ``busy`` is given, or the folder cannot be written.
    """
    handle = _lock(path, busy)
    with handle:
        try:
            yield
        finally:
            with suppress(OSError):  # released before it is closed: who waits for this file looks whether it is there
                path.unlink()


def _lock(path: Path, busy: str | None) -> BinaryIO:
    while True:
        check_replaceable(path)  # what a link leads to is not written over
        try:
            make_folder(path.parent)
            handle = path.open("a+b")
        except OSError as error:
            raise _failed(path, error) from error
        if _hold(handle, wait=busy is None) is False:
            with handle:
                raise HauberkError(
                    f"another process{_owner(handle)} {busy}", "wait until it has finished, or choose another folder"
                )
        if _is_there(handle, path):
            break
        handle.close()
    with suppress(OSError):  # on a full disk the lock holds without a name
        handle.truncate(0)
        handle.write(f"{os.getpid()} {platform.node()}".encode())
        handle.flush()
    return handle


def _owner(handle: BinaryIO) -> str:
    handle.seek(0)
    pid, _, host = handle.read(300).decode(errors="replace").partition(" ")
    if not pid.isdigit():
        return ""
    return f" (pid {pid})" if host == platform.node() else f" (pid {pid} on {host})"


def _hold(handle: BinaryIO, wait: bool = False) -> bool | None:
    """Lock an open file: True if it is held now, False if another process holds it, None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _temporary(path: Path) -> BinaryIO:
    """A new temporary file, locked; open makes it readable for whom the umask allows."""
    while True:
        temporary = path.with_name(f"{_prefix(path.name)}{secrets.token_hex(8)}")
        handle = temporary.open("xb")
        _hold(handle, wait=True)
        if _is_there(handle, temporary):  # nobody swept it before it was locked
            return handle
        handle.close()


def _prefix(name: str) -> str:
    return f"{PART}{name[:60]}-" if name else PART


def _is_there(handle: BinaryIO, path: Path) -> bool:
    """Whether an open file still is the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _is_temporary(entry: os.DirEntry[str], name: str) -> bool:
    known = entry.name.startswith(_prefix(name)) or (not name and entry.name == LOCK)
    return known and entry.is_file(follow_symlinks=False)


def _flush(folder: Path) -> None:
    """Write a folder's list of names to the disk, where the file system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _failed(path: Path, error: OSError) -> HauberkError:
    return HauberkError(
        f"cannot write {path}: {error.strerror or error}", "free some space or choose another folder, then run it again"
    )
