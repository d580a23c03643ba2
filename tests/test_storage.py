"""Files whole or absent, temporary files swept, locks that end with their process."""

import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hauberk import storage
from hauberk.errors import HauberkError


@contextmanager
def process(work: Callable[[Callable[[], None]], None]) -> Iterator[int]:
    """Another process, which has called the function that it is given and now waits to be killed."""
    read, write = os.pipe()
    child = os.fork()
    if not child:

        def ready() -> None:
            os.write(write, b"x")
            signal.pause()

        try:
            work(ready)
        finally:
            os._exit(1)
    os.close(write)
    try:
        assert os.read(read, 1) == b"x"
        yield child
    finally:
        os.close(read)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def writing(path: Path) -> Callable[[Callable[[], None]], None]:
    def work(ready: Callable[[], None]) -> None:
        with storage.replacing(path) as handle:
            handle.write(b"half")
            handle.flush()
            ready()

    return work


def holding(path: Path) -> Callable[[Callable[[], None]], None]:
    def work(ready: Callable[[], None]) -> None:
        with storage.locked(path):
            ready()

    return work


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002, 0o027])
def test_files_have_the_permissions_that_the_umask_leaves(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        storage.atomic_write(tmp_path / "new" / "run.json", b"1")
        storage.append(tmp_path / "new" / "metrics.jsonl", b"1")
    finally:
        os.umask(before)
    for path in (tmp_path / "new").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_a_lock_file_that_nobody_holds_is_swept(tmp_path: Path) -> None:
    (tmp_path / storage.LOCK).write_text("")
    storage.atomic_write(tmp_path / "a", b"1")
    assert names(tmp_path) == [storage.LOCK, "a"]
    storage.sweep(tmp_path)
    assert names(tmp_path) == ["a"]
    with process(holding(tmp_path / storage.LOCK)):
        storage.sweep(tmp_path)
        assert names(tmp_path) == [storage.LOCK, "a"]


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace"])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    target = tmp_path / "run.json"
    storage.atomic_write(target, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(call, full)
    with pytest.raises(HauberkError, match=r"cannot write .*run.json: No space left on device"):
        storage.atomic_write(target, b"new")
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["run.json"]


def test_a_line_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(HauberkError, match=r"cannot write .*metrics.jsonl: No such file"):
        storage.append(tmp_path / "gone" / "metrics.jsonl", b"1\n")


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HauberkError, match=r"cannot write .*lock"), storage.locked(tmp_path / "file" / "lock"):
        pass
    with pytest.raises(HauberkError, match=r"cannot write .*run.json"):
        storage.atomic_write(tmp_path / "file" / "run.json", b"1")


def test_ctrl_c_leaves_no_temporary_file(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), storage.replacing(tmp_path / "a") as handle:
        handle.write(b"half")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_the_name_reaches_the_disk_after_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, real_flush, real_replace = [], os.fsync, Path.replace

    def flush(handle: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        real_flush(handle)

    def replace(self: Path, target: Path) -> None:
        done.append("rename")
        real_replace(self, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(Path, "replace", replace)
    storage.atomic_write(tmp_path / "new" / "run.json", b"1")
    assert done == ["folder", "file", "rename", "folder"]
    done.clear()
    storage.append(tmp_path / "new" / "metrics.jsonl", b"1\n")
    assert done == ["file"]


def test_what_a_kill_left_is_swept_and_a_living_process_keeps_its_file(tmp_path: Path) -> None:
    target = tmp_path / "run.json"
    target.write_bytes(b"old")
    with process(writing(target)):
        storage.sweep(tmp_path)
        storage.atomic_write(target, b"between")
        assert len(names(tmp_path)) == 2
    assert len(names(tmp_path)) == 2
    storage.sweep(tmp_path)
    assert names(tmp_path) == ["run.json"]
    assert target.read_bytes() == b"between"


def test_the_next_write_of_a_file_sweeps_what_a_kill_left_of_it_and_nothing_else(tmp_path: Path) -> None:
    with process(writing(tmp_path / "report.html")), process(writing(tmp_path / "other.html")):
        pass
    (tmp_path / ".part-of-somebody").write_text("")
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / ".part-report.html-link").symlink_to(tmp_path / "elsewhere")
    storage.atomic_write(tmp_path / "report.html", b"1")
    kept = [name.rpartition("-")[0] for name in names(tmp_path) if name.startswith(".part-")]
    assert kept == [".part-of", ".part-other.html", ".part-report.html"]
    assert (tmp_path / ".part-report.html-link").is_symlink()


def test_a_temporary_file_swept_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, swept = storage._hold, []

    def hold(handle, wait=False):  # type: ignore[no-untyped-def]
        if not swept:
            swept.append(handle.name)
            Path(handle.name).unlink()
        return real(handle, wait)

    monkeypatch.setattr(storage, "_hold", hold)
    storage.atomic_write(tmp_path / "a", b"1")
    assert swept and (tmp_path / "a").read_bytes() == b"1"


def test_a_lock_names_the_process_that_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with (
        process(holding(path)) as other,
        pytest.raises(HauberkError, match=rf"another process \(pid {other}\) is busy"),
        storage.locked(path, "is busy"),
    ):
        pass
    with storage.locked(path, "is busy"):  # the other was killed and left its file
        assert names(tmp_path) == ["lock"]
        with pytest.raises(HauberkError, match=rf"pid {os.getpid()}\)"), storage.locked(path, "is busy"):
            pass
    assert names(tmp_path) == []


def test_a_lock_of_another_machine_is_named_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with storage.locked(tmp_path / "lock"):
        monkeypatch.setattr(storage.platform, "node", lambda: "elsewhere")
        with pytest.raises(HauberkError, match=rf"\(pid {os.getpid()} on "), storage.locked(tmp_path / "lock", "works"):
            pass
        (tmp_path / "lock").write_text("")
        with pytest.raises(HauberkError, match="another process works"), storage.locked(tmp_path / "lock", "works"):
            pass


def test_a_link_in_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("private")
    (tmp_path / "lock").symlink_to(tmp_path / "mine")
    with pytest.raises(HauberkError, match=r"lock is a .*link"), storage.locked(tmp_path / "lock"):
        pass
    assert (tmp_path / "mine").read_text() == "private"


def test_processes_that_wait_for_a_lock_take_turns(tmp_path: Path) -> None:
    counter, children = tmp_path / "counter", []
    counter.write_text("0")
    for _ in range(4):
        child = os.fork()
        if not child:
            for _ in range(50):
                with storage.locked(tmp_path / "lock"):
                    counter.write_text(str(int(counter.read_text()) + 1))
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert counter.read_text() == "200"
    assert names(tmp_path) == ["counter"]


def test_a_lock_file_that_went_while_one_waited_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, released = storage._hold, []

    def hold(handle, wait=False):  # type: ignore[no-untyped-def]
        if not released:
            released.append(handle.name)
            Path(handle.name).unlink()
        return real(handle, wait)

    monkeypatch.setattr(storage, "_hold", hold)
    with storage.locked(tmp_path / "lock"):
        assert names(tmp_path) == ["lock"]


def test_without_locks_everything_is_written_and_nothing_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".part-abc").write_text("")

    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    for change in (("fcntl", None), ("fcntl.flock", unsupported)):
        with monkeypatch.context() as without:
            without.setattr(f"hauberk.storage.{change[0]}", change[1])
            with storage.locked(tmp_path / "lock", "is busy"):
                storage.atomic_write(tmp_path / "a", b"1")
            storage.sweep(tmp_path)
        assert names(tmp_path) == [".part-abc", "a"]
    storage.sweep(tmp_path)
    assert names(tmp_path) == ["a"]
