"""HAM10000: photographs of skin lesions, split so that no lesion is on both sides.

The images are CC BY-NC 4.0, so no record, bundle or page holds one of them (``Dataset.pictures``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, validate_call

from hauberk.data import files
from hauberk.data.arrays import Arrays, to_integers, to_labels, to_nchw
from hauberk.data.dataset import Dataset
from hauberk.data.folder import MOST
from hauberk.data.grouped import check_apart, found_below, table, tenths
from hauberk.data.image_file import Form
from hauberk.data.splits import assemble, in_files
from hauberk.data.streamed import ImageFiles, names_array
from hauberk.errors import HauberkError

DIAGNOSES = {  # of the column dx, in MedMNIST's order
    "akiec": "actinic keratoses and intraepithelial carcinoma",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis-like lesions",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic nevi",
    "vasc": "vascular lesions",
}
SMALL = "ham10000_28_by_lesion"
_PARTS = ("train", "val", "test")
_APART = "The splits share no lesion; this is not the published split of DermaMNIST."
_URL = "https://doi.org/10.7910/DVN/DBW86T"
_TABLE = "HAM10000_metadata.csv"
_ENDINGS = (".csv", ".tab", "")


@validate_call
def ham10000(
    folder: Path = Path("HAM10000"),
    size: Annotated[int, Field(ge=1, le=MOST)] = 224,
    root: Path | None = None,
) -> Dataset:
    """HAM10000 as its publisher's photographs, which stay in their files, split by lesion (Tschandl et al. 2018).

    Within a class, the lesions in the order of the SHA-256 of their names fall to train (the first 70 %), val (10 %)
    and test: the split of ``ham10000_28``.  The largest central square of a photograph is resized.

    Args:
        folder: holds ``HAM10000_metadata.csv`` (or ``.tab``, or without an ending) with the columns ``image_id``,
            ``lesion_id`` and ``dx``, and the photographs, at most three folders deep; relative to ``root``.
        size: pixels a side.
        root: the folder of data sets; see :func:`hauberk.data.load` for the default.

    Raises:
        HauberkError: if the table or a photograph is missing, a diagnosis is unknown, or a lesion has two.
    """
    base = files.data_root(root) / folder
    hint = f"unpack HAM10000 ({_URL}) in {base}"
    path = next((p for ending in _ENDINGS if (p := base / f"HAM10000_metadata{ending}").is_file()), base / _TABLE)
    rows = table(path, ("image_id", "lesion_id", "dx"), hint)
    known = list(DIAGNOSES)
    unknown = sorted({row["dx"] for row in rows} - set(known))
    if unknown:
        raise HauberkError(f"{path}: {unknown[0]!r} is not a diagnosis of HAM10000", f"known: {', '.join(known)}")
    labels = [known.index(row["dx"]) for row in rows]
    part = tenths([row["lesion_id"] for row in rows], labels, (7, 8))
    names = found_below(base, [row["image_id"] for row in rows], hint)
    images = ImageFiles(base, names_array(names), Form(size, 3))
    name, ids = f"ham10000_{size}_by_lesion", np.arange(len(rows))
    return in_files(name, tuple(DIAGNOSES.values()), images, np.array(labels), part, ids, (_APART,), pictures=False)


@validate_call
def ham10000_28(root: Path | None = None) -> Dataset:
    """HAM10000 at 28x28 pixels, split by lesion (Tschandl et al. 2018).

    It is not the published split of DermaMNIST, in which photographs of one lesion are in train and in test;
    accuracies compare with published ones only roughly.

    Args:
        root: the folder that holds ``ham10000_28_by_lesion.npz``: uint8 images (N, 28, 28, 3), labels in the order of
            ``DIAGNOSES`` and names of lesions, as ``train_images``, ``train_labels``, ``train_lesions``, and so on for
            ``val`` and ``test``.

    Raises:
        HauberkError: if the file is missing or damaged, or two splits share a lesion.
    """
    path = files.data_root(root) / f"{SMALL}.npz"
    keys = [f"{part}_{what}" for part in _PARTS for what in ("images", "labels", "lesions")]
    arrays = files.read_npz(path, keys, hint=f"put {path.name} into {path.parent}; docs/data.md says what it holds")
    for part in _PARTS:
        if len(arrays[f"{part}_lesions"]) != len(arrays[f"{part}_labels"]):
            raise HauberkError(f"{path}: expected one lesion for each {part} image", "write the three arrays together")
    check_apart({part: arrays[f"{part}_lesions"] for part in _PARTS}, "lesion", path)
    train, val, test = (_part(arrays, part, path) for part in _PARTS)
    return replace(assemble(SMALL, tuple(DIAGNOSES.values()), train, test, val, remarks=(_APART,)), pictures=False)


def _part(arrays: Mapping[str, np.ndarray], part: str, path: Path) -> Arrays:
    name = f"{path}, {part}_images"
    images = to_nchw(to_integers(arrays[f"{part}_images"], name), "NHWC", name)
    return Arrays(images, to_labels(arrays[f"{part}_labels"], f"{path}, {part}_labels"))
