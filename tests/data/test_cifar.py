import hashlib
import pickle
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from hauberk.data import cifar, load
from hauberk.errors import HauberkError

KINDS = {"fine": 100, "coarse": 20}
SMALL = {"name": "cifar10", "val_size": 20, "verify": False}


def test_small_files_in_order(small_cifar10, fingerprints):
    folder, train, test = small_cifar10
    dataset = load(SMALL, folder)
    assert dataset.input_shape == (3, 32, 32)
    assert dataset.classes[3] == "cat"
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (180, 20, 30)
    for part in (dataset.train, dataset.val):
        assert np.array_equal(part.images.numpy(), train[part.ids.numpy()])
        assert torch.equal(part.labels, part.ids % 40 % 10)
    assert np.array_equal(dataset.test.images.numpy(), test)
    assert not fingerprints(dataset.train) & fingerprints(dataset.val)


def test_published_sums_are_checked_before_reading(small_cifar10):
    with pytest.raises(HauberkError, match=r"data_batch_1: expected the published file with md5 c99cafc1") as caught:
        load({"name": "cifar10"}, small_cifar10[0])
    assert "verify: false" in caught.value.hint


def test_missing_file_is_named(small_cifar10):
    path = small_cifar10[0] / "cifar-10-batches-py" / "data_batch_4"
    path.unlink()
    with pytest.raises(HauberkError) as caught:
        load(SMALL, small_cifar10[0])
    assert str(path) in caught.value.message
    assert "unpack cifar-10-python.tar.gz (https://www.cs.toronto.edu" in caught.value.hint
    assert "download: true" in caught.value.hint


def test_a_file_with_code_is_refused_even_unverified(small_cifar10):
    path = small_cifar10[0] / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(HauberkError, match=r"test_batch: the pickle holds code: it uses os\.system"):
        load(SMALL, small_cifar10[0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": [10] * 30}, r"labels in 0\.\.9, got 10\.\.10"),
        ({"labels": [-1] * 30}, r"labels in 0\.\.9, got -1"),
        ({"labels": [0] * 29}, "30 images and 29 labels"),
        ({"labels": [0.5] * 30}, "list of integers under 'labels'"),
        ({"labels": None}, "list of integers under 'labels'"),
        ({"data": np.zeros((30, 3072))}, r"expected data of uint8 \(N, 3072\), got float64"),
        ({"data": np.zeros((30, 3071), np.uint8)}, r"got uint8 \(30, 3071\)"),
        ({"data": [1, 2]}, "got list"),
    ],
)
def test_foreign_contents_are_refused(small_cifar10, write_batch, changes, words):
    write_batch(small_cifar10[0] / "cifar-10-batches-py" / "test_batch", 30, **changes)
    with pytest.raises(HauberkError, match=words):
        load(SMALL, small_cifar10[0])


def test_val_size_larger_than_train(small_cifar10):
    with pytest.raises(HauberkError, match="hold out between 0 and 199 of 200"):
        load(SMALL | {"val_size": 200}, small_cifar10[0])


def test_download_and_unpack(small_cifar10, tmp_path_factory, monkeypatch):
    folder = small_cifar10[0]
    source = tmp_path_factory.mktemp("publisher") / "cifar-10-python.tar.gz"
    with tarfile.open(source, "w:gz") as tar:
        tar.add(folder / "cifar-10-batches-py", "cifar-10-batches-py")
    sums = {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in (folder / "cifar-10-batches-py").iterdir()}
    published = replace(
        cifar._CIFAR10,
        url=source.as_uri(),
        archive_md5=hashlib.md5(source.read_bytes()).hexdigest(),
        sums={name: sums[name] for name in cifar._CIFAR10.sums},
    )
    monkeypatch.setattr(cifar, "_CIFAR10", published)
    new = tmp_path_factory.mktemp("new")
    fetched = load({"name": "cifar10", "val_size": 20, "download": True}, new)
    assert torch.equal(fetched.test.images, load(SMALL, folder).test.images)
    source.unlink()
    load({"name": "cifar10", "val_size": 20, "download": True}, new)  # nothing is fetched twice


@pytest.fixture
def small_cifar100(tmp_path, write_batch):
    folder = tmp_path / "cifar-100-python"
    for name, count in (("train", 300), ("test", 100)):
        fine, coarse = [i % 100 for i in range(count)], [i % 100 // 5 for i in range(count)]
        write_batch(folder / name, count, labels=[], fine_labels=fine, coarse_labels=coarse)
    names = {f"{kind}_label_names": [f"{kind[0]}{k}".encode() for k in range(n)] for kind, n in KINDS.items()}
    (folder / "meta").write_bytes(pickle.dumps(names, 4))
    return tmp_path


def test_cifar100_fine_and_coarse(small_cifar100):
    fine = load({"name": "cifar100", "val_size": 100, "verify": False}, small_cifar100)
    assert fine.classes[:2] == ("f0", "f1")
    assert torch.equal(fine.test.labels, torch.arange(100))
    assert torch.bincount(fine.val.labels).tolist() == [1] * 100
    coarse = load({"name": "cifar100", "labels": "coarse", "val_size": 100, "verify": False}, small_cifar100)
    assert coarse.num_classes == 20
    assert coarse.name == "cifar100-coarse"
    assert torch.equal(coarse.test.labels, torch.arange(100) // 5)


def test_cifar100_meta_is_needed(small_cifar100):
    (small_cifar100 / "cifar-100-python" / "meta").write_bytes(pickle.dumps({b"x": 1}, 4))
    with pytest.raises(HauberkError, match="meta lacks fine_label_names"):
        load({"name": "cifar100", "verify": False}, small_cifar100)


@pytest.mark.slow
def test_official_files(official, reader, fingerprints):
    dataset = load("cifar10", official)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (49_000, 1_000, 10_000)
    assert torch.bincount(dataset.val.labels).tolist() == [100] * 10
    assert dataset.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=2e-4)  # the values in every CIFAR-10 recipe
    assert dataset.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=2e-4)
    expected = reader.load("cifar10")
    assert list(dataset.classes) == expected["classes"]
    for part, which in ((dataset.train, "train"), (dataset.val, "train"), (dataset.test, "test")):
        images = part.images.permute(0, 2, 3, 1).numpy()
        assert np.array_equal(images, expected[f"x_{which}"][part.ids.numpy()])
        assert np.array_equal(part.labels.numpy(), expected[f"y_{which}"][part.ids.numpy()])
    train, val, test = (fingerprints(s) for s in (dataset.train, dataset.val, dataset.test))
    assert not train & val
    assert not (train | val) & test


@pytest.mark.slow
def test_one_changed_byte_is_noticed(official, tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for path in (official / "cifar-10-batches-py").iterdir():
        (folder / path.name).symlink_to(path)
    content = bytearray((folder / "data_batch_1").read_bytes())
    content[20_000_000] ^= 1
    (folder / "data_batch_1").unlink()
    (folder / "data_batch_1").write_bytes(content)
    with pytest.raises(HauberkError, match="expected the published file with md5 c99cafc152244af753f735de768cd75f"):
        load("cifar10", tmp_path)
