"""The layout of ImageNet-1k: a folder for each class, named by its WordNet id, read from disk as it is needed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, validate_call

from hauberk import reading
from hauberk.data import files
from hauberk.data.dataset import Dataset
from hauberk.data.folder import MOST
from hauberk.data.grouped import TABLE_BYTES
from hauberk.data.image_file import ENDINGS, Form
from hauberk.data.inspection import counted, named
from hauberk.data.splits import in_files, stratified
from hauberk.data.streamed import ImageFiles, names_array
from hauberk.errors import HauberkError

_WNID = re.compile(r"n[0-9]{8}")
_LAYOUT = "train/WNID/*.JPEG and val/WNID/*.JPEG, or val/*.JPEG and a mapping"


@validate_call
def imagenet(
    folder: Path = Path("imagenet"),
    size: Annotated[int, Field(ge=1, le=MOST)] = 224,
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.875,
    val_size: Annotated[int, Field(ge=0)] = 10_000,
    mapping: Path | None = None,
    root: Path | None = None,
) -> Dataset:
    """ImageNet-1k, or a part of it in the same layout, whose images stay in their files (Russakovsky et al. 2015).

    The publisher's validation images are the test split, since the labels of its test images are not public; the
    validation split is held out of train by hashes of places.  Classes are the WordNet ids of ``train`` in their order.

    Args:
        folder: holds ``train/WNID/*`` and ``val/WNID/*``, or ``val/*`` and a mapping; relative to ``root``.
        size: pixels a side.
        share: of the shorter side that the central square has before it is resized; 0.875 are 224 of 256 pixels.
        val_size: how many train images are held out, stratified by class.
        mapping: where ``val`` has no folders, a file in ``folder`` with a line ``FILE CLASS`` for each image, the class
            being a WordNet id or its place from 0; or ``LOC_val_solution.csv``.
        root: the folder of data sets; see :func:`hauberk.data.load` for the default.

    Raises:
        HauberkError: if the layout is another one, a class has no image, or an image of ``val`` has no class.
    """
    base = files.data_root(root) / folder
    for part in ("train", "val"):
        if not (base / part).is_dir():
            raise HauberkError(f"expected the folder {base / part}, which is not there", f"expected {_LAYOUT}")
    classes = tuple(sorted(_inside(base / "train", folders=True)))
    odd = [name for name in classes if not _WNID.fullmatch(name)]
    if odd or len(classes) < 2:
        hint = f"expected {_LAYOUT}; folders of other names are read by image_folder"
        raise HauberkError(
            f"{base / 'train'}: {named(odd) or 'too few folders'}: expected folders named by WordNet ids", hint
        )
    learnt, labels = _by_folder(base, "train", classes)
    flat = not _inside(base / "val", folders=True)
    if flat != (mapping is not None):
        hint = "set mapping: FILE" if flat else "leave mapping out"
        raise HauberkError(f"{base / 'val'} has {'no ' if flat else ''}class folders", hint)
    tested, theirs = _by_folder(base, "val", classes) if mapping is None else _mapped(base, base / mapping, classes)
    held = stratified(np.array(labels), val_size, "val")
    parts = np.concatenate([held.astype(np.int64), np.full(len(tested), 2)])
    ids = np.concatenate([np.arange(len(learnt)), np.arange(len(tested))])
    images = ImageFiles(base, names_array([*learnt, *tested]), Form(size, 3, share))
    remarks = ("The test split is the publisher's validation split.",)
    return in_files(base.name, classes, images, np.array([*labels, *theirs]), parts, ids, remarks, pictures=False)


def _inside(folder: Path, folders: bool) -> list[str]:
    """The names of the folders, or of the images, that lie in a folder."""
    with os.scandir(folder) as entries:
        return [
            entry.name for entry in entries
            if not entry.name.startswith(".")
            and (entry.is_dir() if folders else entry.name.lower().endswith(ENDINGS))
        ]  # fmt: skip


def _by_folder(base: Path, part: str, classes: tuple[str, ...]) -> tuple[list[str], list[int]]:
    """The images of a split in the order of class and file name, as paths below ``base``, and their classes."""
    unknown = sorted(set(_inside(base / part, folders=True)) - set(classes))
    if unknown:
        raise HauberkError(f"{base / part}: there is no class {unknown[0]!r} in train", "use the classes of train")
    names, labels = [], []
    for label, wnid in enumerate(classes):
        found = sorted(_inside(base / part / wnid, folders=False)) if (base / part / wnid).is_dir() else []
        if not found and part == "train":
            hint = f"expected files ending in {', '.join(ENDINGS)}"
            raise HauberkError(f"{base / part / wnid} holds no images", hint)
        names += [f"{part}/{wnid}/{name}" for name in found]
        labels += [label] * len(found)
    return names, labels


def _mapped(base: Path, path: Path, classes: tuple[str, ...]) -> tuple[list[str], list[int]]:
    """The images of a flat ``val`` in the order of their names, and their classes by a mapping."""
    known = _mapping(path, {wnid: label for label, wnid in enumerate(classes)})
    found = sorted(_inside(base / "val", folders=False))
    labels = [known.get(name, known.get(name.partition(".")[0], -1)) for name in found]
    without = [name for name, label in zip(found, labels, strict=True) if label < 0]
    if without or not found:
        what = f"{counted(len(without), 'image')} without a class in {path.name}: {named(without)}"
        raise HauberkError(
            f"{base / 'val'}: {what if found else 'no images'}",
            "give a mapping that names the class of each image of val",
        )
    return [f"val/{name}" for name in found], labels


def _mapping(path: Path, classes: Mapping[str, int]) -> dict[str, int]:
    """The class of each file name; a class is a WordNet id or a place from 0."""
    if not path.is_file():
        raise HauberkError(
            f"expected the file {path}, which is not there", "it must give the class of each image of val"
        )
    places = {str(label): label for label in classes.values()} | dict(classes)
    found: dict[str, int] = {}
    for number, line in enumerate(reading.text(path, TABLE_BYTES).splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words or (number == 1 and words[0] == "ImageId"):
            continue
        label = places.get(words[1]) if len(words) > 1 else None
        if label is None or found.setdefault(words[0], label) != label:
            raise HauberkError(
                f"{path}: line {number} names no class of train, or names another class than an earlier line: "
                f"{line[:60]!r}",
                "expected FILE WNID, or FILE NUMBER with the number counted from 0 in the order of the WordNet ids",
            )
    return found
