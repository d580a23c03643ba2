import numpy as np
import pytest

from hauberk.data import load
from hauberk.data.arrays import to_integers, to_labels, to_nchw
from hauberk.errors import HauberkError


@pytest.fixture
def arrays(random_images):
    return {
        "x_train": random_images(40, 6, 5, 3, seed=1),
        "y_train": np.arange(40) % 4,
        "x_test": random_images(12, 6, 5, 3, seed=2),
        "y_test": np.arange(12) % 4,
    }


@pytest.fixture
def read(tmp_path):
    def save_and_load(arrays, **settings):
        np.savez(tmp_path / "own.npz", **arrays)
        return load({"name": "npz", "file": "own.npz", "layout": "NHWC"} | settings, tmp_path)

    return save_and_load


def test_arrays_arrive_as_they_are(arrays, read, fingerprints):
    dataset = read(arrays)
    assert dataset.name == "own"
    assert dataset.classes == ("0", "1", "2", "3")
    assert dataset.input_shape == (3, 6, 5)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (36, 4, 12)  # a tenth is held out
    assert np.array_equal(dataset.test.images.permute(0, 2, 3, 1).numpy(), arrays["x_test"])
    for part in (dataset.train, dataset.val):
        assert np.array_equal(part.images.permute(0, 2, 3, 1).numpy(), arrays["x_train"][part.ids.numpy()])
        assert np.array_equal(part.labels.numpy(), arrays["y_train"][part.ids.numpy()])
    assert not fingerprints(dataset.train) & fingerprints(dataset.val)


def test_layouts_are_the_same_images(arrays, read):
    expected = read(arrays).test.images
    moved = {k: v.transpose(0, 3, 1, 2) if k[0] == "x" else v for k, v in arrays.items()}
    assert (read(moved, layout="NCHW").test.images == expected).all()
    grey = {k: v[..., 0] if k[0] == "x" else v for k, v in arrays.items()}
    assert (read(grey, layout="NHW").test.images == expected[:, :1]).all()


def test_a_val_of_its_own(arrays, read, random_images):
    val = {"x_val": random_images(8, 6, 5, 3, seed=3), "y_val": np.arange(8) % 4}
    dataset = read(arrays | val)
    assert (len(dataset.train), len(dataset.val)) == (40, 8)
    assert np.array_equal(dataset.val.images.permute(0, 2, 3, 1).numpy(), val["x_val"])
    assert dataset.val.ids.tolist() == list(range(40, 48))
    with pytest.raises(HauberkError, match="validation split of its own"):
        read(arrays | val, val_size=3)
    with pytest.raises(HauberkError, match="both x_val and y_val"):
        read(arrays | {"x_val": val["x_val"]})


def test_class_names(arrays, read):
    assert read(arrays, classes=["a", "b", "c", "d"]).classes == ("a", "b", "c", "d")
    assert read(arrays | {"classes": np.array(["w", "x", "y", "z"])}).classes == ("w", "x", "y", "z")
    with pytest.raises(HauberkError, match="classes to be a list of text"):
        read(arrays | {"classes": np.arange(4)})
    with pytest.raises(HauberkError, match=r"labels in 0\.\.2, got 0\.\.3"):
        read(arrays, classes=["a", "b", "c"])
    for twice in ({"classes": ["a", "b", "c", "b"]}, {}):
        with pytest.raises(HauberkError, match="two classes are called 'b'"):
            read(arrays | {"classes": np.array(["a", "b", "c", "b"])}, **twice)


def test_floats_become_the_bytes_they_came_from():
    every = np.arange(256, dtype=np.uint8)
    for kind in (np.float16, np.float32, np.float64):
        assert np.array_equal(to_integers((every / 255.0).astype(kind), "x"), every)


def test_half_precision_moves_no_image_further():
    values = np.linspace(0, 1, 3001).astype(np.float16)
    found = to_integers(values, "x")
    assert found.dtype == np.uint16
    assert np.abs(found / 65535.0 - values.astype(np.float64)).max() <= 1e-5


def test_finer_floats_become_65535ths():
    values = np.linspace(0, 1, 10_001)
    assert to_integers(values, "x").dtype == np.uint16
    assert np.abs(to_integers(values, "x") / 65535.0 - values).max() <= 0.5 / 65535 + 1e-12


def test_sixteen_bits_stay_sixteen_bits():
    every = np.arange(65536, dtype=np.uint16)
    assert np.array_equal(to_integers(every, "x"), every)
    assert np.array_equal(to_integers((every / 65535.0).astype(np.float32), "x"), every)
    assert np.array_equal(to_integers(every.astype(">u2"), "x"), every)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("x_train", np.full((40, 6, 5, 3), np.nan), "x_train holds NaN"),
        ("x_test", np.full((12, 6, 5, 3), 1.01), r"expected floats in \[0, 1\], got values in \[1.01, 1.01\]"),
        ("x_test", np.full((12, 6, 5, 3), -0.1), r"expected floats in \[0, 1\], got values in \[-0.1, -0.1\]"),
        ("x_test", np.full((12, 6, 5, 3), np.inf), r"got values in \[inf, inf\]"),
        ("x_test", np.zeros((12, 6, 5, 3), np.int64), "expected uint8, uint16 or floats"),
        ("x_test", np.zeros((12, 6, 5), np.uint8), "expected 4 axes for layout NHWC"),
        ("x_test", np.zeros((12, 3, 6, 5), np.uint8), "set layout: NCHW"),
        ("y_test", np.arange(12) - 1, r"labels in 0\.\.3, got -1"),
        ("y_test", np.arange(12), r"labels in 0\.\.3, got 0\.\.11"),
        ("y_test", np.arange(12) / 2, "expected integer labels"),
        ("y_test", np.full(12, np.nan), "expected integer labels"),
        ("y_test", np.eye(12, dtype=int), r"argmax\(1\) if they are one-hot"),
        ("y_test", np.arange(11) % 4, "12 images and 11 labels"),
        ("y_test", np.array([None] * 12), "holds Python objects"),
    ],
)
def test_wrong_arrays_are_refused(arrays, read, key, value, words):
    with pytest.raises(HauberkError, match=words):
        read(arrays | {key: value})


def test_a_column_of_labels_is_flattened():
    assert to_labels(np.array([[3], [1]], dtype=np.uint8), "y").tolist() == [3, 1]


def test_swapped_layout_is_noticed_both_ways():
    with pytest.raises(HauberkError, match=r"read as NCHW would have 32 channels\n  set layout: NHWC"):
        to_nchw(np.zeros((2, 32, 32, 3)), "NCHW", "x")
    with pytest.raises(HauberkError, match="layout: NHW"):
        to_nchw(np.zeros((2, 28, 28)), "NHWC", "x")


def test_missing_file_and_key(arrays, tmp_path, read):
    with pytest.raises(HauberkError, match="is not there") as caught:
        load({"name": "npz", "file": "sub/own.npz", "layout": "NHW"}, tmp_path)
    assert f"put own.npz into {tmp_path / 'sub'}" in caught.value.hint
    with pytest.raises(HauberkError, match="lacks x_test; it holds x_train, y_train, y_test"):
        read({k: v for k, v in arrays.items() if k != "x_test"})


@pytest.mark.slow
def test_cifar100(reader, read, fingerprints):
    source = reader.load("cifar100")
    keys = ("x_train", "y_train", "x_test", "y_test", "classes")
    dataset = read({k: np.array(source[k]) for k in keys}, val_size=1000)
    assert dataset.num_classes == 100
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (29_000, 1_000, 10_000)
    assert np.bincount(dataset.val.labels.numpy()).tolist() == [10] * 100
    assert np.array_equal(dataset.test.images.permute(0, 2, 3, 1).numpy(), source["x_test"])
    assert not fingerprints(dataset.train) & fingerprints(dataset.val)
