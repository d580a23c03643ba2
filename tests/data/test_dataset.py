from pathlib import Path

import numpy as np
import pytest
import torch

from hauberk import registry
from hauberk.data import Dataset, Split, load
from hauberk.errors import HauberkError


def make_split(name, ids, labels=None, shape=(3, 4, 5), seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (len(ids), *shape), generator=generator, dtype=torch.uint8)
    return Split(name, images, torch.tensor(labels or [i % 2 for i in ids]).long(), torch.tensor(ids).long())


def make_dataset(**changes):
    parts = {
        "train": make_split("train", [0, 1, 2, 3]),
        "val": make_split("val", [4, 5]),
        "test": make_split("test", [0, 1, 2]),
    } | changes
    return Dataset("toy", ("a", "b"), **parts)


def test_batch_divides_by_255_exactly():
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    batch = Split("test", images, torch.tensor([0]), torch.tensor([7])).batch()
    expected = (np.arange(256) / 255.0).astype(np.float32).reshape(1, 1, 16, 16)  # rounded once, from float64
    assert batch.images.dtype == torch.float32
    assert np.array_equal(batch.images.numpy(), expected)


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (None, [0, 1, 2, 3]),
        (slice(1, 3), [1, 2]),
        (torch.tensor([3, 0]), [3, 0]),
        (torch.tensor([True, False, False, True]), [0, 3]),
    ],
)
def test_rows_travel_together(index, rows):
    split = make_split("train", [10, 11, 12, 13], labels=[1, 0, 1, 1])
    batch = split.batch(index)
    assert batch.ids.tolist() == [split.ids[r] for r in rows]
    assert batch.labels.tolist() == [split.labels[r] for r in rows]
    assert torch.equal((batch.images * 255).round().to(torch.uint8), split.images[rows])
    if index is not None:
        assert torch.equal(split.select(index).ids, batch.ids)


def test_batch_leaves_the_split_alone():
    split = make_split("train", [0, 1])
    before = split.images.clone()
    split.batch().images.mul_(0)
    assert torch.equal(split.images, before)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": torch.rand(2, 3, 4, 4)}, "expected uint8"),
        ({"images": torch.zeros(2, 4, 4, dtype=torch.uint8)}, r"shape \(N, C, H, W\)"),
        ({"images": torch.zeros(2, 3, 0, 4, dtype=torch.uint8)}, r"shape \(N, C, H, W\)"),
        ({"labels": torch.tensor([0.0, 1.0])}, "int64 labels"),
        ({"labels": torch.tensor([[0], [1]])}, "int64 labels"),
        ({"ids": torch.tensor([0, 1, 2])}, "int64 ids"),
        ({"ids": torch.tensor([5, 5])}, "appear twice"),
    ],
)
def test_split_refuses(change, words):
    good = {
        "images": torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
        "labels": torch.tensor([0, 1]),
        "ids": torch.tensor([0, 1]),
    }
    Split("train", **good)
    with pytest.raises(HauberkError, match=words):
        Split("train", **(good | change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"val": make_split("val", [3, 9])}, "train and val share 1 samples, for example id 3"),
        ({"val": make_split("test", [8, 9])}, "splits train, val and test"),
        ({"test": make_split("test", [0, 1], shape=(1, 4, 5))}, "one image shape"),
        ({"test": make_split("test", [])}, "test split is empty"),
        ({"test": make_split("test", [0, 1], labels=[0, 2])}, r"labels in 0\.\.1, got 0\.\.2"),
        ({"train": make_split("train", [0, 1], labels=[-1, 0])}, r"got -1\.\.0"),
    ],
)
def test_dataset_refuses(change, words):
    make_dataset()
    with pytest.raises(HauberkError, match=words):
        make_dataset(**change)


def test_one_class_is_refused():
    parts = {name: make_split(name, [k], labels=[0]) for k, name in enumerate(("train", "val", "test"))}
    with pytest.raises(HauberkError, match="at least two classes"):
        Dataset("toy", ("only",), **parts)


def test_val_may_be_empty():
    assert len(make_dataset(val=make_split("val", [])).val.batch()) == 0


def test_shape_and_statistics_are_those_of_train():
    dataset = make_dataset(test=make_split("test", [0, 1], seed=5))
    assert dataset.input_shape == (3, 4, 5)
    assert dataset.num_classes == 2
    pixels = dataset.train.images.numpy().astype(np.float64) / 255
    assert dataset.mean == pytest.approx(pixels.mean((0, 2, 3)), rel=1e-12)
    assert dataset.std == pytest.approx(pixels.std((0, 2, 3)), rel=1e-12)


def test_a_constant_channel_has_unit_std():
    images = torch.full((5000, 2, 1, 1), 51, dtype=torch.uint8)
    images[4999, 1] = 0  # beyond the first piece that is counted
    train = Split("train", images, torch.zeros(5000, dtype=torch.int64), torch.arange(5000))
    shape = {"shape": (2, 1, 1)}
    dataset = Dataset("toy", ("a", "b"), train, make_split("val", [], **shape), make_split("test", [0], **shape))
    assert dataset.std[0] == 1.0
    assert dataset.mean[0] == pytest.approx(0.2)
    assert dataset.std[1] == pytest.approx(images[:, 1].double().div(255).std(correction=0).item(), rel=1e-12)


# --- load -----------------------------------------------------------------------------------------------------


def test_load_by_bare_name_and_by_description():
    assert load("digits").name == load({"name": "digits"}).name == "digits"
    assert load("digits", root=Path("nowhere")).name == "digits"  # needs no folder


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ("digit", "did you mean 'digits'"),
        ({"name": "cifar10", "valsize": 5}, "did you mean 'val_size'"),
        ({"name": "cifar10", "val_size": -1}, "val_size"),
        ({"name": "cifar10", "val_size": 2.5}, "val_size"),
        ({"name": "npz", "file": "a.npz"}, "layout"),
        ({"name": "npz", "file": "a.npz", "layout": "CHWN"}, "NHWC"),
        ({"name": "pgd"}, "no dataset called 'pgd'"),
        ({"val_size": 3}, "no dataset called ''"),
    ],
)
def test_load_refuses(description, words):
    with pytest.raises(HauberkError, match=words):
        load(description)


def test_root_from_description_then_argument_then_environment(small_cifar10, monkeypatch, tmp_path):
    folder = small_cifar10[0]
    plain = {"name": "cifar10", "val_size": 20, "verify": False}
    monkeypatch.setenv("HAUBERK_DATA", str(folder))
    assert len(load(plain).test) == 30
    monkeypatch.setenv("HAUBERK_DATA", "nowhere")
    assert len(load(plain, root=folder).test) == 30
    assert len(load(plain | {"root": str(folder)}, root=tmp_path / "nowhere").test) == 30
    with pytest.raises(HauberkError, match="nowhere"):
        load(plain)
    monkeypatch.delenv("HAUBERK_DATA")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(HauberkError, match=r"data.cifar-10-batches-py.data_batch_1"):
        load(plain)


def test_a_loader_must_return_a_dataset(monkeypatch):
    monkeypatch.setitem(registry._ENTRIES, "odd", registry.Entry("dataset", "odd", "builtins:dict", "not a loader"))
    monkeypatch.setattr(registry.Entry, "load", lambda self: lambda size=1: {})
    with pytest.raises(HauberkError, match=r"expected builtins:dict to return a hauberk\.data\.Dataset, got dict"):
        load("odd")


def test_every_registered_loader_can_be_imported():
    for entry in registry.entries("dataset"):
        assert callable(entry.load()), entry.name
