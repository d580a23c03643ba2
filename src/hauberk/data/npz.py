"""Arrays of the user's own in one ``.npz`` file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, validate_call

from hauberk.data import files
from hauberk.data.arrays import Arrays, Layout, one_depth, to_integers, to_labels, to_nchw
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
) -> Dataset:
    """Images and labels from ``x_train, y_train, x_test, y_test``, and ``x_val, y_val`` if they are there.

    Images are uint8, uint16, or floats in [0, 1], which become bytes if they are 255ths and else 65,535ths.  Nothing in
    the file is unpickled.

    Args:
        file: the ``.npz`` file, relative to ``root``; its stem is the data set's name.
        layout: the meaning of the image axes, ``NHWC``, ``NCHW`` or ``NHW``.
        root: the folder of data sets; see :func:`hauberk.data.load` for the default.
        val_size: how many train images are held out for validation where the file has no ``x_val``;
            by default a tenth, 1,000 at most.
        classes: the name of each class; by default an array ``classes`` of the file, else the numbers 0, 1, ...

    Raises:
        HauberkError: if the file is missing or damaged, or an array is not what is expected.
    """
    path = files.data_root(root) / file
    hint = f"put {path.name} into {path.parent}, with x_train, y_train, x_test, y_test (numpy.savez)"
    required = ["x_train", "y_train", "x_test", "y_test"]
    arrays = files.read_npz(path, required, ("x_val", "y_val", "classes"), hint)
    if ("x_val" in arrays) != ("y_val" in arrays):
        raise HauberkError(f"{path}: expected both x_val and y_val or neither", "save both arrays")
    names = [name for name in ("train", "test", "val") if f"x_{name}" in arrays]
    if "val" in names and val_size is not None:
        raise HauberkError(f"{path} has a validation split of its own", "leave val_size out")
    parts = one_depth({name: _part(arrays, name, layout, path) for name in names})
    train = parts["train"]
    size = tenth(len(train.labels)) if val_size is None else val_size
    return learnable(assemble(
        path.stem, classes or _classes(arrays, train.labels, path), train, parts["test"], parts.get("val"), size,
        _remarks(arrays, train),
    ))  # fmt: skip


def _part(arrays: dict[str, np.ndarray], part: str, layout: Layout, path: Path) -> Arrays:
    name = f"{path}, x_{part}"
    images = to_nchw(to_integers(arrays[f"x_{part}"], name), layout, name)
    return Arrays(images, to_labels(arrays[f"y_{part}"], f"{path}, y_{part}"))


def _remarks(arrays: dict[str, np.ndarray], train: Arrays) -> tuple[str, ...]:
    floats = any(np.issubdtype(arrays[x].dtype, np.floating) for x in ("x_train", "x_test"))
    if floats and train.images.dtype == np.uint16:
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
