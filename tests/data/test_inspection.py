"""What a data set's notes say of its images and labels, in every format alike."""

from __future__ import annotations

import gzip
import pickle

import numpy as np
import pytest

from hauberk.data import load
from hauberk.errors import HauberkError


@pytest.fixture
def arrays(random_images):
    return {
        "x_train": random_images(40, 6, 5, 3, seed=1), "y_train": np.arange(40) % 4,
        "x_val": random_images(8, 6, 5, 3, seed=3), "y_val": np.arange(8) % 4,
        "x_test": random_images(12, 6, 5, 3, seed=2), "y_test": np.arange(12) % 4,
    }  # fmt: skip


@pytest.fixture
def read(tmp_path):
    def save_and_load(arrays, **settings):
        np.savez(tmp_path / "own.npz", **arrays)
        return load({"name": "npz", "file": "own.npz", "layout": "NHWC"} | settings, tmp_path)

    return save_and_load


def notes(dataset) -> str:
    return " ".join(dataset.notes)


def test_nothing_is_said_of_good_data(arrays, read):
    assert read(arrays).notes == ()
    assert load("digits").notes == ()


def test_copies_of_training_images_in_test(arrays, read):
    arrays["x_test"] = arrays["x_train"][:10]
    arrays["y_test"] = arrays["y_train"][:10]
    assert "10 images of the test split are in the train split too, pixel by pixel (for example id 0), of 10" in notes(
        read(arrays)
    )


@pytest.mark.parametrize(
    ("part", "row", "other", "words"),
    [
        ("test", 5, "train", "1 image of the test split is in the train split too"),
        ("test", 0, "val", "1 image of the test split is in the val split too"),
        ("val", 3, "train", "1 image of the val split is in the train split too"),
    ],
)
def test_one_copy_in_another_split(arrays, read, part, row, other, words):
    arrays[f"x_{part}"][row] = arrays[f"x_{other}"][7]
    found = read(arrays)
    assert words in notes(found) and len(found.notes) == 1
    assert f"id {row + (40 if part == 'val' else 0)}" in notes(found)


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_one_image_under_two_labels(arrays, read, part):
    arrays[f"x_{part}"][1] = arrays[f"x_{part}"][0]
    assert f"1 image of the {part} split stands under more than one label." in notes(read(arrays))
    arrays[f"x_{part}"][4] = arrays[f"x_{part}"][0]  # a third copy, with the first one's label
    assert f"1 image of the {part} split stands" in notes(read(arrays))


def test_copies_with_one_label_within_a_split_are_no_lie(arrays, read):
    arrays["x_train"][4] = arrays["x_train"][0]
    assert read(arrays).notes == ()


@pytest.mark.parametrize(("value", "count"), [(0, 1), (0, 3), (255, 2), (17, 1)])
@pytest.mark.parametrize("part", ["train", "test"])
def test_images_of_one_value(arrays, read, part, value, count):
    arrays[f"x_{part}"][:count] = value
    word = "image" if count == 1 else "images"
    assert f"{count} {word} of the {part} split {'has' if count == 1 else 'have'} one value in every pixel" in notes(
        read(arrays)
    )


def test_classes_without_test_images(arrays, read):
    arrays["y_test"] = np.arange(12) % 3
    assert "The test split has no image of 1 class: 3." in notes(read(arrays))
    arrays["y_test"] = np.arange(12) % 2
    assert "The test split has no image of 2 classes: 2, 3." in notes(read(arrays))
    arrays["y_test"] = np.full(12, 2)
    assert "All test images are of one class, 2" in notes(read(arrays))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros(40, int), "class 1, 2, 3"),
        (np.arange(40) % 3, "no training image is of class 3"),
        (np.where(np.arange(40) % 4 == 1, 2, np.arange(40) % 4), "no training image is of class 1"),
        (np.arange(40) % 4 + 1, "no training image is of class 0"),
        (2 * (np.arange(40) % 4), "no training image is of class 1, 3, 5"),
    ],
)
def test_a_class_without_training_images_is_refused(arrays, read, labels, words):
    names = [str(k) for k in range(max(4, int(labels.max()) + 1))]
    with pytest.raises(HauberkError, match=words):
        read(arrays | {"y_train": labels}, classes=names)


@pytest.mark.parametrize(
    ("largest", "white"), [(15, 255), (1, 255), (4095, 65535), (255, 65535), (1023, 65535)]
)
def test_values_that_use_little_of_their_range(arrays, read, largest, white):
    """12-bit values in 16 bits, bytes in 16 bits, and images that were divided twice."""
    kind = np.uint8 if white == 255 else np.uint16
    for part in ("train", "val", "test"):
        values = arrays[f"x_{part}"].astype(np.float64)
        values *= largest / values.max()
        arrays[f"x_{part}"] = np.rint(values).astype(kind)
    assert f"No pixel of the train split is brighter than {largest} of {white}" in notes(read(arrays))


def test_finer_floats_are_said(arrays, read):
    fine = {k: v / 256.0 + 0.001 if k[0] == "x" else v for k, v in arrays.items()}
    assert "finer than 255ths" in notes(read(fine))
    coarse = {k: v / 255.0 if k[0] == "x" else v for k, v in arrays.items()}
    assert read(coarse).notes == ()


def test_floats_of_which_one_split_is_finer_have_one_depth(arrays, read):
    arrays["x_test"] = arrays["x_test"] / 256.0
    dataset = read(arrays)
    bytes_ = read({k: v for k, v in arrays.items() if k != "x_test"} | {"x_test": np.zeros((12, 6, 5, 3), np.uint8)})
    assert (dataset.train.batch().images == bytes_.train.batch().images).all()


@pytest.mark.parametrize("kind", ["cifar", "idx", "medmnist"])
def test_published_formats_are_inspected_too(kind, small_cifar10, tmp_path, write_mnist, random_images, idx_bytes):
    if kind == "cifar":
        root, _, _ = small_cifar10
        batch = root / "cifar-10-batches-py"
        (batch / "test_batch").write_bytes((batch / "data_batch_1").read_bytes())
        dataset = load({"name": "cifar10", "val_size": 20, "verify": False}, root)
        assert "40 images of the test split" not in notes(dataset)  # some of them are held out
    elif kind == "idx":
        write_mnist(tmp_path)
        for name in ("images-idx3-ubyte", "labels-idx1-ubyte"):
            (tmp_path / f"t10k-{name}").write_bytes((tmp_path / f"train-{name}").read_bytes())
        dataset = load({"name": "mnist", "val_size": 0, "verify": False}, tmp_path)
        assert "100 images of the test split" in notes(dataset)
    else:
        images = random_images(20, 28, 28)
        content = {f"{part}_images": images for part in ("train", "val", "test")}
        content |= {f"{part}_labels": (np.arange(20) % 2)[:, None] for part in ("train", "val", "test")}
        np.savez(tmp_path / "pneumoniamnist.npz", **content)
        dataset = load({"name": "medmnist", "flag": "pneumoniamnist", "verify": False}, tmp_path)
        assert "20 images of the val split" in notes(dataset)
    assert "in the train split too" in notes(dataset)


@pytest.mark.parametrize("kind", ["cifar", "idx"])
def test_labels_out_of_range_are_refused(kind, small_cifar10, tmp_path, write_mnist, idx_bytes):
    if kind == "cifar":
        root = small_cifar10[0]
        path = root / "cifar-10-batches-py/test_batch"
        content = pickle.loads(path.read_bytes())
        content[b"labels"][0] = 10
        path.write_bytes(pickle.dumps(content))
        description = {"name": "cifar10", "val_size": 20, "verify": False}
    else:
        root = tmp_path
        write_mnist(tmp_path)
        labels = np.full(30, 10, np.uint8)
        (tmp_path / "t10k-labels-idx1-ubyte").unlink()
        (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))
        description = {"name": "mnist", "val_size": 0, "verify": False}
    with pytest.raises(HauberkError, match=r"expected labels in 0\.\.9, got"):
        load(description, root)
