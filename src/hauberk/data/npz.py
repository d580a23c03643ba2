"""Arrays of the user's own in one ``.npz`` file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, validate_call

from hauberk.data import files
from hauberk.data.arrays import COLOUR, Arrays, Layout, one_depth, to_channels, to_integers, to_labels, to_nchw
from hauberk.data.dataset import Dataset, learnable
from hauberk.data.splits import assemble, tenth
from hauberk.errors import HauberkError
from hauberk.reading import check_classes


@validate_call
def npz(
    file: Path,
    layout: Layout,
    root: Path | None = None,
    val_size: Annotated[int, Field(ge=0)] | None = None,
    classes: tuple[str, ...] | None = None,
    channels: Literal[1, 3] | None = None,
) -> Dataset:
    """Images and labels from ``x_train, y_train, x_test, y_test``, and ``x_val, y_val`` if they are there.

    Also known are ``train_images, train_labels, ...``, and one pair ``images, labels`` (or ``x, y``) that is all test.
    A file without training images is for judging.  Images are uint8, uint16, or floats in [0, 1], which become bytes if
    they are 255ths and else 65,535ths.  Nothing in the file is unpickled.

    Args:
        file: the ``.npz`` file, relative to ``root``; its stem is the data set's name.
        layout: the meaning of the image axes, ``NHWC``, ``NCHW`` or ``NHW``.
        root: the folder of data sets; see :func:`hauberk.data.load` for the default.
        val_size: how many train images are held out for validation where the file has no ``x_val``;
            by default a tenth, 1,000 at most.
        classes: the name of each class; by default an array ``classes`` of the file, else the numbers 0, 1, ...
        channels: 3 gives grey images three equal channels, 1 makes colours grey; by default as they are.

    Raises:
        HauberkError: if the file is missing or damaged, or an array is not what is expected.
    """
    path = files.data_root(root) / file
    arrays = _read(path)
    names = [name for name in ("train", "test", "val") if f"x_{name}" in arrays]
    if "val" in names and val_size is not None:
        raise HauberkError(f"{path} has a validation split of its own", "leave val_size out")
    parts = one_depth({name: _part(arrays, name, layout, path, channels) for name in names})
    test = parts["test"]
    train = parts.get("train") or Arrays(test.images[:0], test.labels[:0])
    size = (tenth(len(train.labels)) if val_size is None else val_size) if len(train.labels) else 0
    labels = train.labels if len(train.labels) else test.labels
    return learnable(assemble(
        path.stem, classes or _classes(arrays, labels, path), train, test, parts.get("val"), size,
        _remarks(arrays, test),
    ))  # fmt: skip


PAIRS = {  # what the arrays of a split may be called
    part: ((f"x_{part}", f"y_{part}"), (f"X_{part}", f"y_{part}"), (f"{part}_images", f"{part}_labels"),
           (f"{part}_x", f"{part}_y"), (f"{part}_data", f"{part}_labels"))
    for part in ("train", "val", "test")
}  # fmt: skip
ALONE = (("images", "labels"), ("x", "y"), ("X", "y"), ("data", "labels"), ("data", "targets"))  # all of them test
EXPECTED = "name the arrays x_train, y_train, x_test, y_test, or images and labels alone (numpy.savez)"


def _names(path: Path) -> dict[str, str]:
    """The array of the file that stands for ``x_train``, ``y_train``, ...

    Raises:
        HauberkError: if there are no test images.
    """
    if not path.exists():
        hint = f"put {path.name} into {path.parent}; {EXPECTED}"
        raise HauberkError(f"expected the file {path}, which is not there", hint)
    held = list(files.arrays_of(path))
    pairs = {part: next((p for p in known if set(p) <= set(held)), None) for part, known in PAIRS.items()}
    if not (pairs["train"] or pairs["test"]):
        pairs["test"] = next((p for p in ALONE if set(p) <= set(held)), None)
    if not pairs["val"] and {"x_val", "y_val"} & set(held):
        raise HauberkError(f"{path}: expected both x_val and y_val or neither", "save both arrays")
    half = [name for name in ("x_train", "x_test", "y_train", "y_test") if name in held and not pairs[name[2:]]]
    if half or not pairs["test"]:
        lacks = ("y_" if half[0][0] == "x" else "x_") + half[0][2:] if half else "x_test"
        raise HauberkError(f"{path} lacks {lacks}; it holds {', '.join(held) or 'nothing'}", EXPECTED)
    found = {f"{axis}_{part}": name for part, p in pairs.items() if p for axis, name in zip("xy", p, strict=True)}
    return found | ({"classes": "classes"} if "classes" in held else {})


def _read(path: Path) -> dict[str, np.ndarray]:
    names = _names(path)
    found = files.read_npz(path, list(names.values()), (), EXPECTED)
    return {meant: found[name] for meant, name in names.items()}


def image_shape(path: Path) -> tuple[int, ...]:
    """The shape of the test images, from the head of their array."""
    return files.arrays_of(path)[_names(path)["x_test"]]


def likely_layout(shape: tuple[int, ...]) -> Layout | None:
    """The meaning of the axes of images of that shape; None where there are two, or none."""
    if len(shape) == 3:
        return "NHW"
    if len(shape) != 4 or (shape[1] in COLOUR) == (shape[3] in COLOUR):
        return None
    return "NCHW" if shape[1] in COLOUR else "NHWC"


def _part(
    arrays: dict[str, np.ndarray], part: str, layout: Layout, path: Path, channels: int | None
) -> Arrays:
    name = f"{path}, x_{part}"
    images = to_channels(to_nchw(to_integers(arrays[f"x_{part}"], name), layout, name), channels, name)
    return Arrays(images, to_labels(arrays[f"y_{part}"], f"{path}, y_{part}"))


def _remarks(arrays: dict[str, np.ndarray], some: Arrays) -> tuple[str, ...]:
    floats = any(np.issubdtype(arrays[x].dtype, np.floating) for x in ("x_train", "x_test") if x in arrays)
    if floats and some.images.dtype == np.uint16:
        return ("The images are floats finer than 255ths; they are rounded to 65,535ths.",)
    return ()


def _classes(arrays: dict[str, np.ndarray], labels: np.ndarray, path: Path) -> tuple[str, ...]:
    names = arrays.get("classes")
    if names is None:
        return tuple(str(k) for k in range(check_classes(int(labels.max(initial=0)) + 1, path)))
    if names.ndim != 1 or names.dtype.kind != "U":
        raise HauberkError(f"{path}: expected classes to be a list of text, got {names.dtype} {names.shape}",
                           "save it as numpy.array(['cat', 'dog'])")  # fmt: skip
    return tuple(str(n) for n in names)
