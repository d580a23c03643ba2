"""Generated images from a file: the published layout, mapped and packed, what it says of itself, what is refused."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from hauberk.data import Dataset, load
from hauberk.data.generated import stored, write
from hauberk.data.generation import traces
from hauberk.data.provenance import Provenance
from hauberk.errors import HauberkError

DIGITS = {"name": "digits"}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    dice = np.random.default_rng(0)
    return {"image": dice.integers(0, 256, (50, 8, 8, 1), np.uint8), "label": np.arange(50) % 10}


def generated(path: Path, **settings) -> Dataset:
    return load({"name": "generated", "of": DIGITS, "file": str(path), **settings})


def test_the_published_layout_is_mapped(tmp_path, arrays):
    np.savez(tmp_path / "edm.npz", **arrays)
    found = generated(tmp_path / "edm.npz")
    assert np.array_equal(found.train.images.permute(0, 2, 3, 1).numpy(), arrays["image"])
    assert np.array_equal(found.train.labels.numpy(), arrays["label"])
    assert isinstance(stored(tmp_path / "edm.npz", "image"), np.memmap)
    told = found.provenance
    assert (told.generator, told.trained_on, told.conditional, told.labels) == ("edm", "unknown", None, "file")


def test_what_is_written_to_a_mapped_array_never_reaches_the_file(tmp_path, arrays):
    path = tmp_path / "edm.npz"
    np.savez(path, **arrays)
    before = path.read_bytes()
    stored(path, "image")[:] = 0
    assert path.read_bytes() == before


@pytest.mark.parametrize("names", [("images", "labels"), ("x", "y"), ("data", "targets")])
def test_packed_files_and_other_names_hold_the_same(tmp_path, arrays, names):
    np.savez_compressed(tmp_path / "a.npz", **dict(zip(names, (arrays["image"][..., 0], arrays["label"]), strict=True)))
    found = generated(tmp_path / "a.npz", layout="NHW")
    assert np.array_equal(found.train.images[:, 0].numpy(), arrays["image"][..., 0])


def test_fortran_order_is_read_as_it_is(tmp_path, arrays):
    np.savez(tmp_path / "f.npz", image=np.asfortranarray(arrays["image"]), label=arrays["label"])
    assert np.array_equal(stored(tmp_path / "f.npz", "image"), arrays["image"])


def test_a_smaller_number_is_within_a_larger_one(tmp_path, arrays):
    np.savez(tmp_path / "edm.npz", **arrays)
    rows = [{r.numpy().tobytes() for r in generated(tmp_path / "edm.npz", images=n).train.images} for n in (10, 20)]
    assert (len(rows[0]), len(rows[1])) == (10, 20)
    assert rows[0] < rows[1]
    with pytest.raises(HauberkError, match="51 were asked for"):
        generated(tmp_path / "edm.npz", images=51)


def test_what_hauberk_writes_says_where_it_comes_from(tmp_path, arrays, digits):
    path = tmp_path / "own.npz"
    images, labels = torch.from_numpy(arrays["image"]).permute(0, 3, 1, 2), torch.from_numpy(arrays["label"])
    known = Provenance("ddpm", "train", conditional=True, settings={"seed": 3})
    write(path, images, labels, known, traces(digits.train))
    told = generated(path).provenance
    assert (told.generator, told.trained_on, told.conditional) == ("ddpm", "train", True)
    assert told.settings == {"seed": 3}
    with pytest.raises(HauberkError, match="the recipe says 'edm'"):
        generated(path, generator="edm")
    write(path, images, labels, known, traces(digits.test))
    with pytest.raises(HauberkError, match="learnt from 400 test images"):
        generated(path)


def test_a_recipe_says_what_a_file_does_not(tmp_path, arrays):
    np.savez(tmp_path / "edm.npz", **arrays)
    told = generated(tmp_path / "edm.npz", generator="EDM", conditional=True, trained_on="other", filter="top 20 %")
    assert (told.provenance.generator, told.provenance.conditional) == ("EDM", True)
    assert (told.provenance.trained_on, told.provenance.filter) == ("other", "top 20 %")
    for split in ("test", "val", "train and val"):
        with pytest.raises(HauberkError, match="that was trained on"):
            generated(tmp_path / "edm.npz", trained_on=split)


def broken(arrays: dict[str, np.ndarray], **changed: np.ndarray) -> dict[str, np.ndarray]:
    return {key: value for key, value in {**arrays, **changed}.items() if value is not None}


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"image": None}, "no generated images"),
        ({"label": None}, "no labels"),
        ({"label": np.arange(49) % 10}, "50 images and 49 labels"),
        ({"label": np.full(50, 10)}, r"in 10\.\.10"),
        ({"image": np.zeros((50, 8, 8, 1), np.float32)}, "expected uint8"),
        ({"image": np.zeros((50, 8, 8, 3), np.uint8)}, "give images of|of shape"),
        ({"image": np.zeros((50, 64), np.uint8)}, "which axes"),
        ({"provenance": np.array(json.dumps({"price": 3}))}, "an unknown form"),
        ({"provenance": np.array("{")}, "own.npz"),
        ({"label": np.zeros(50)}, "expected integer labels"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, arrays, changed, problem):
    np.savez(tmp_path / "own.npz", **broken(arrays, **changed))
    with pytest.raises(HauberkError, match=problem):
        generated(tmp_path / "own.npz")


def test_damaged_and_missing_files_are_refused(tmp_path, arrays):
    path = tmp_path / "own.npz"
    with pytest.raises(HauberkError, match="is not there"):
        generated(path)
    np.savez(path, **arrays)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(HauberkError, match="whole"):
        generated(path)
    with zipfile.ZipFile(path, "w") as archive:
        head = "{'descr': '|u1', 'fortran_order': False, 'shape': (50, 8, 8, 1), }".ljust(117) + "\n"
        archive.writestr("image.npy", b"\x93NUMPY\x01\x00v\x00" + head.encode() + bytes(99))
    with pytest.raises(HauberkError, match="not an array, or is incomplete"):
        generated(path)
