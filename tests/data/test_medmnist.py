import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from hauberk.data import MultiLabelDataset, MultiLabelSplit, load, medmnist
from hauberk.data.multilabel import RULES
from hauberk.errors import HauberkError

SIZES = {"train": 40, "val": 10, "test": 12}


@pytest.fixture
def save(tmp_path, random_images):
    """Write a MedMNIST file with random images and return its arrays."""

    def write(flag, shape=(28, 28), classes=2, **changes):
        arrays = {}
        for seed, (part, count) in enumerate(SIZES.items()):
            arrays[f"{part}_images"] = random_images(count, *shape, seed=seed)
            arrays[f"{part}_labels"] = (np.arange(count) % classes).astype(np.uint8)[:, None]
        arrays |= changes
        np.savez(tmp_path / f"{flag}.npz", **{k: v for k, v in arrays.items() if v is not None})
        return arrays

    return write


def read(folder, flag, **settings):
    return load({"name": "medmnist", "flag": flag, "verify": False} | settings, folder)


@pytest.mark.parametrize(("flag", "shape"), [("pneumoniamnist", (28, 28)), ("dermamnist", (28, 28, 3))])
def test_published_splits_are_kept(tmp_path, save, flag, shape):
    arrays = save(flag, shape)
    dataset = read(tmp_path, flag)
    assert dataset.name == flag
    assert dataset.input_shape == (shape[2] if len(shape) == 3 else 1, 28, 28)
    for part in (dataset.train, dataset.val, dataset.test):
        images = part.images.permute(0, 2, 3, 1).numpy()
        assert np.array_equal(images.reshape(-1, *shape), arrays[f"{part.name}_images"])
        assert np.array_equal(part.labels.numpy(), arrays[f"{part.name}_labels"][:, 0])
    assert dataset.val.ids.tolist() == list(range(40, 50))
    assert dataset.test.ids.tolist() == list(range(12))


def test_other_sizes_are_other_files(tmp_path, save):
    save("bloodmnist_64", (64, 64, 3), classes=8)
    dataset = read(tmp_path, "bloodmnist", size=64)
    assert dataset.name == "bloodmnist_64"
    assert dataset.input_shape == (3, 64, 64)
    with pytest.raises(HauberkError, match="size"):
        read(tmp_path, "bloodmnist", size=32)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(HauberkError) as caught:
        read(tmp_path, "octmnist", size=128)
    assert str(tmp_path / "octmnist_128.npz") in caught.value.message
    assert "put octmnist_128.npz (https://zenodo.org/records/10519652/files/octmnist_128.npz)" in caught.value.hint


def test_unknown_flags(tmp_path):
    with pytest.raises(HauberkError, match="did you mean 'pathmnist'"):
        read(tmp_path, "pathmnst")
    with pytest.raises(HauberkError, match="name: npz"):
        read(tmp_path, "xyz")


def test_the_published_sum_is_checked(tmp_path, save):
    save("pneumoniamnist")
    with pytest.raises(HauberkError, match="expected the published file with md5 28209eda"):
        read(tmp_path, "pneumoniamnist", verify=True)


def test_download(tmp_path, save, monkeypatch):
    save("breastmnist")
    content = (tmp_path / "breastmnist.npz").read_bytes()
    published = replace(medmnist._FLAGS["breastmnist"], sums={28: hashlib.md5(content).hexdigest()})
    monkeypatch.setitem(medmnist._FLAGS, "breastmnist", published)
    monkeypatch.setattr(medmnist, "_URL", f"{tmp_path.as_uri()}/")
    dataset = read(tmp_path / "new", "breastmnist", download=True, verify=True)
    assert len(dataset.test) == 12
    assert (tmp_path / "new" / "breastmnist.npz").read_bytes() == content


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test_labels": np.full((12, 1), 2, np.uint8)}, r"labels in 0\.\.1, got 2"),
        ({"train_images": np.zeros((40, 28, 28, 28), np.uint8)}, None),
        ({"val_labels": None}, "lacks val_labels"),
        ({"val_labels": np.zeros((9, 1), np.uint8)}, "10 images and 9 labels"),
    ],
)
def test_foreign_arrays_are_refused(tmp_path, save, changes, words):
    save("pneumoniamnist", **changes)
    with pytest.raises(HauberkError, match=words):
        read(tmp_path, "pneumoniamnist")


# --- several findings an image --------------------------------------------------------------------------------


@pytest.fixture
def chest(save):
    """Findings are rare, so that images with none, one and several all occur."""
    random = np.random.default_rng(0)
    findings = {f"{p}_labels": (random.random((n, 14)) < 0.08).astype(np.uint8) for p, n in SIZES.items()}
    return save("chestmnist", **findings)


def test_findings_are_read_as_published(tmp_path, chest):
    dataset = medmnist.multi_label("chestmnist", root=tmp_path, verify=False)
    assert isinstance(dataset, MultiLabelDataset)
    assert dataset.findings[0] == "atelectasis"
    assert len(dataset.findings) == 14
    for part in (dataset.train, dataset.val, dataset.test):
        assert len(part) == SIZES[part.name]
        assert part.multi_label.dtype == torch.bool
        assert np.array_equal(part.multi_label.numpy(), chest[f"{part.name}_labels"] == 1)
        assert np.array_equal(part.images[:, 0].numpy(), chest[f"{part.name}_images"])


def test_without_a_rule_the_message_names_the_rules(tmp_path, chest):
    with pytest.raises(HauberkError, match="several findings for each image") as caught:
        read(tmp_path, "chestmnist")
    assert all(rule in caught.value.hint for rule in RULES)
    with pytest.raises(HauberkError, match="only_positive"):
        read(tmp_path, "chestmnist", rule="first")


def expected_label(row, rule):
    """The rules, written out for one image; None where it is left out."""
    positive = [k for k, value in enumerate(row) if value]
    if rule == "finding:mass":
        return int(row[4])
    if rule == "any_finding":
        return 1 if positive else 0
    if rule == "only_positive":
        return positive[0] if len(positive) == 1 else None
    return 0 if not positive else positive[0] + 1 if len(positive) == 1 else None


@pytest.mark.parametrize("rule", [*RULES[:3], "finding:mass"])
def test_rules(tmp_path, chest, rule):
    dataset = read(tmp_path, "chestmnist", rule=rule)
    assert dataset.name == f"chestmnist-{rule}"
    assert dataset.num_classes == {"only_positive": 14, "at_most_one": 15}.get(rule, 2)
    for part, first in ((dataset.train, 0), (dataset.val, 40), (dataset.test, 0)):
        labels = [expected_label(row, rule) for row in chest[f"{part.name}_labels"]]
        kept = [i for i, label in enumerate(labels) if label is not None]
        assert part.ids.tolist() == [first + i for i in kept]
        assert part.labels.tolist() == [labels[i] for i in kept]
        assert np.array_equal(part.images[:, 0].numpy(), chest[f"{part.name}_images"][kept])
    assert rule in ("any_finding", "finding:mass") or len(dataset.train) < 40


def test_a_finding_that_is_not_marked_is_named(tmp_path, chest):
    with pytest.raises(HauberkError, match="has no finding 'wart'"):
        read(tmp_path, "chestmnist", rule="finding:wart")


def test_rules_are_for_sets_with_findings_only(tmp_path, save, chest):
    save("pneumoniamnist")
    with pytest.raises(HauberkError, match="leave rule out"):
        read(tmp_path, "pneumoniamnist", rule="any_finding")
    with pytest.raises(HauberkError, match="one class for each image"):
        medmnist.multi_label("pneumoniamnist", root=tmp_path, verify=False)
    with pytest.raises(HauberkError, match="'first' is not a rule"):
        medmnist.multi_label("chestmnist", root=tmp_path, verify=False).single_label("first")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.full((12, 14), 2, np.uint8), "expected 0 or 1"),
        (np.zeros(12, np.uint8), "expected 0 or 1 for each image and finding"),
        (np.zeros((12, 13), np.uint8), r"expected labels of shape \(N, 14\), got \(12, 13\)"),
        (np.zeros((11, 14), np.uint8), r"expected bool labels of shape \(12, F\)"),
    ],
)
def test_wrong_findings_are_refused(tmp_path, save, labels, words):
    good = {f"{p}_labels": np.zeros((n, 14), np.uint8) for p, n in SIZES.items()}
    save("chestmnist", **(good | {"test_labels": labels}))
    with pytest.raises(HauberkError, match=words):
        medmnist.multi_label("chestmnist", root=tmp_path, verify=False)


def test_multi_label_splits_share_no_sample():
    images, findings, ids = torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, 3).bool(), torch.tensor([0, 1])
    parts = [MultiLabelSplit(name, images, findings, ids) for name in SIZES]
    with pytest.raises(HauberkError, match="train and val share 2 samples"):
        MultiLabelDataset("toy", ("a", "b", "c"), *parts)


# --- terms ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flag", "free"), [("pneumoniamnist", True), ("dermamnist", False)])
def test_images_under_a_non_commercial_licence_are_not_passed_on(tmp_path, save, flag, free):
    save(flag)
    dataset = read(tmp_path, flag)
    assert dataset.pictures == free
    assert free != any("hold none" in note for note in dataset.notes)


# --- real images ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["pneumoniamnist", "dermamnist"])
def test_real_images(reader, tmp_path, fingerprints, flag):
    source = reader.load(flag)
    parts = {f"{part}_images": source[f"x_{part}"] for part in SIZES}
    np.savez(tmp_path / f"{flag}.npz", **parts, **{f"{part}_labels": source[f"y_{part}"][:, None] for part in SIZES})
    dataset = read(tmp_path, flag)
    assert dataset.num_classes == len(source["classes"])
    for part in (dataset.train, dataset.val, dataset.test):
        images = part.images.permute(0, 2, 3, 1).numpy().reshape(source[f"x_{part.name}"].shape)
        assert np.array_equal(images, source[f"x_{part.name}"])
        assert np.array_equal(part.labels.numpy(), source[f"y_{part.name}"])
    assert not set(dataset.train.ids.tolist()) & set(dataset.val.ids.tolist())
