import gzip
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hauberk.data import idx, load
from hauberk.errors import HauberkError

PATH = Path("train-images-idx3-ubyte")
SMALL = {"name": "mnist", "val_size": 10, "verify": False}


@pytest.mark.parametrize("shape", [(7,), (2, 3), (2, 3, 4), (0, 28, 28)])
def test_format(idx_bytes, random_images, shape):
    array = random_images(*shape)
    assert np.array_equal(idx.read_idx(idx_bytes(array), PATH), array)


def test_every_other_length_is_refused(idx_bytes, random_images):
    content = idx_bytes(random_images(2, 3, 4))
    for length in range(len(content)):
        with pytest.raises(HauberkError, match="truncated" if length >= 16 else "begins 00 00 08"):
            idx.read_idx(content[:length], PATH)
    with pytest.raises(HauberkError, match=r"longer than it says: expected 40 bytes for shape \(2, 3, 4\), got 41"):
        idx.read_idx(content + b"x", PATH)


def test_sizes_that_would_not_fit_in_memory_are_only_a_message(idx_bytes, random_images):
    content = idx_bytes(random_images(2, 3, 4))
    with pytest.raises(HauberkError, match="truncated"):
        idx.read_idx(content[:4] + b"\xff" * 12 + content[16:], PATH)


@pytest.mark.parametrize("head", [b"\x00\x00\x0d\x03", b"\x01\x00\x08\x03", b"\x1f\x8b\x08\x00", b"\x00\x00\x08\x00"])
def test_other_files_are_refused(head):
    with pytest.raises(HauberkError, match="expected an IDX file of unsigned bytes"):
        idx.read_idx(head + bytes(100), PATH)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("where", ["MNIST/raw", "MNIST", "."])
def test_layouts(tmp_path, write_mnist, fingerprints, where, compressed):
    images, labels, test_images, test_labels = write_mnist(tmp_path / where, compressed)
    dataset = load(SMALL, tmp_path)
    assert dataset.input_shape == (1, 28, 28)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (90, 10, 30)
    for part in (dataset.train, dataset.val):
        assert np.array_equal(part.images[:, 0].numpy(), images[part.ids.numpy()])
        assert np.array_equal(part.labels.numpy(), labels[part.ids.numpy()])
    assert np.array_equal(dataset.test.images[:, 0].numpy(), test_images)
    assert np.array_equal(dataset.test.labels.numpy(), test_labels)
    assert not fingerprints(dataset.train) & fingerprints(dataset.val)


def test_fashion_has_its_own_folder(tmp_path, write_mnist):
    write_mnist(tmp_path / "FashionMNIST" / "raw")
    assert load(SMALL | {"name": "fashion_mnist"}, tmp_path).classes[9] == "Ankle boot"
    with pytest.raises(HauberkError) as caught:
        load(SMALL, tmp_path)
    assert str(tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte") in caught.value.message
    assert "put train-images-idx3-ubyte or train-images-idx3-ubyte.gz (https://" in caught.value.hint


def test_another_set_under_the_same_names_is_noticed(tmp_path, write_mnist):
    write_mnist(tmp_path)
    with pytest.raises(HauberkError, match="expected the published file with md5 6bbc9ace"):
        load("mnist", tmp_path)


@pytest.mark.parametrize(
    "content", [gzip.compress(bytes(100), mtime=0)[:-9], b"text", b"\x1f\x8b"], ids=["short", "text", "magic"]
)
def test_damaged_gzip(tmp_path, write_mnist, content):
    write_mnist(tmp_path, compressed=True)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(content)
    with pytest.raises(HauberkError, match=r"t10k-labels-idx1-ubyte\.gz is damaged or truncated"):
        load(SMALL, tmp_path)


def test_labels_in_place_of_images(tmp_path, write_mnist, idx_bytes):
    write_mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros(100, np.uint8)))
    with pytest.raises(HauberkError, match=r"expected images, got an array of shape \(100,\)"):
        load(SMALL, tmp_path)


def test_label_out_of_range(tmp_path, write_mnist, idx_bytes):
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.full(30, 10, np.uint8)))
    with pytest.raises(HauberkError, match=r"labels in 0\.\.9, got 10"):
        load(SMALL, tmp_path)


def test_download(tmp_path, write_mnist, monkeypatch):
    publisher = tmp_path / "publisher"
    write_mnist(publisher, compressed=True)

    def sums(path):
        return tuple(hashlib.md5(c).hexdigest() for c in (gzip.decompress(path.read_bytes()), path.read_bytes()))

    published = {name: sums(publisher / f"{name}.gz") for name in idx._MNIST.sums}
    monkeypatch.setattr(idx, "_MNIST", replace(idx._MNIST, url=f"{publisher.as_uri()}/", sums=published))
    dataset = load({"name": "mnist", "val_size": 10, "download": True}, tmp_path / "new")
    assert {p.name for p in (tmp_path / "new" / "MNIST" / "raw").iterdir()} == {f"{name}.gz" for name in published}
    assert torch.equal(dataset.test.images, load(SMALL, publisher).test.images)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mean", "std"), [("mnist", 0.1307, 0.3081), ("fashion_mnist", 0.2860, 0.3530)])
def test_official_files(official, reader, fingerprints, name, mean, std):
    dataset = load(name, official)
    expected = reader.load(name)
    assert list(dataset.classes) == expected["classes"]
    assert dataset.mean == pytest.approx((mean,), abs=3e-4)  # the values in every recipe
    assert dataset.std == pytest.approx((std,), abs=3e-4)
    assert np.array_equal(dataset.test.images[:, 0].numpy(), expected["x_test"])
    assert np.array_equal(dataset.train.labels.numpy(), expected["y_train"][dataset.train.ids.numpy()])
    train, val, test = (fingerprints(s) for s in (dataset.train, dataset.val, dataset.test))
    assert not train & val
    assert not (train | val) & test
