import hashlib
import io
import socket
import tarfile

import numpy as np
import pytest

from hauberk.data import files
from hauberk.errors import HauberkError


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def test_read_file_checks_the_sum(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"hello")
    assert files.read_file(path, "5d41402abc4b2a76b9719d911017c592", "") == b"hello"  # md5 of hello, RFC 1321
    assert files.file_md5(path) == "5d41402abc4b2a76b9719d911017c592"
    assert files.read_file(path, None, "") == b"hello"
    with pytest.raises(HauberkError, match=r"expected the published file with md5 0+, got 5d41402a"):
        files.read_file(path, "0" * 32, "")


def test_a_missing_file_is_named_with_the_next_step(tmp_path):
    with pytest.raises(HauberkError, match="is not there") as caught:
        files.read_file(tmp_path / "sub" / "a", None, "put it there")
    assert str(tmp_path / "sub" / "a") in str(caught.value)
    assert caught.value.hint == "put it there"


def test_an_unreadable_file(tmp_path):
    with pytest.raises(HauberkError, match="is a folder, expected a file"):
        files.read_file(tmp_path, None, "")


def test_download_keeps_the_right_file_only(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"x" * (3 << 20))
    target = tmp_path / "deep" / "target"
    with pytest.raises(HauberkError, match="expected the published file"):
        files.download(source.as_uri(), target, "0" * 32)
    assert list(target.parent.iterdir()) == []
    files.download(source.as_uri(), target, md5(source.read_bytes()))
    assert target.read_bytes() == source.read_bytes()
    assert list(target.parent.iterdir()) == [target]


def test_without_a_connection_the_message_says_what_to_put_where(tmp_path):
    with socket.socket() as held:  # bound but not listening: a port where nothing can answer
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/cifar.tar.gz"
        with pytest.raises(HauberkError, match="cannot download") as caught:
            files.download(url, tmp_path / "cifar.tar.gz", "0" * 32)
    assert url in str(caught.value)
    assert f"put cifar.tar.gz into {tmp_path}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def archive(tmp_path):
    """A tar archive with the file wanted, one not wanted, and one that climbs out of the folder."""
    path = tmp_path / "set.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name in ("set/wanted", "set/other", "../escaped"):
            info = tarfile.TarInfo(name)
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
    return path


def test_unpack_takes_the_named_files_only(archive, tmp_path):
    files.unpack(archive, "set", {"wanted": md5(b"set/wanted")})
    assert (tmp_path / "set" / "wanted").read_bytes() == b"set/wanted"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["set", "set.tar.gz", "wanted"]


def test_unpack_refuses_another_file_under_the_name(archive, tmp_path):
    with pytest.raises(HauberkError, match="expected the published file"):
        files.unpack(archive, "set", {"wanted": "0" * 32})
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("damage", ["missing", "truncated", "not an archive"])
def test_unpack_refuses_a_damaged_archive(archive, damage):
    if damage == "truncated":
        archive.write_bytes(archive.read_bytes()[:60])
    elif damage == "not an archive":
        archive.write_bytes(b"<html>moved</html>")
    with pytest.raises(HauberkError, match="not the published archive"):
        files.unpack(archive, "set", {"absent": md5(b"")})


def test_npz_keys(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(3), b=np.arange(4))
    found = files.read_npz(path, ["a"], ("c",))
    assert list(found) == ["a"]
    assert found["a"].tolist() == [0, 1, 2]
    with pytest.raises(HauberkError, match="lacks c; it holds a, b"):
        files.read_npz(path, ["a", "c"])


def test_npz_never_unpickles(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.array([{"code": 1}], dtype=object))
    with pytest.raises(HauberkError, match="holds Python objects"):
        files.read_npz(path, ["a"])


def test_damaged_npz(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(1000))
    whole = path.read_bytes()
    for content in (whole[:500], whole[:-10], b"", b"text"):
        path.write_bytes(content)
        with pytest.raises(HauberkError, match=r"not a whole \.npz"):
            files.read_npz(path, ["a"])
    changed = bytearray(whole)
    changed[400] ^= 1  # the archive's own check sum no longer fits
    path.write_bytes(changed)
    with pytest.raises(HauberkError, match=r"not a whole \.npz"):
        files.read_npz(path, ["a"])
