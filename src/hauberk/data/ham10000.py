"""HAM10000: photographs of skin lesions, split so that no lesion is on both sides.

The images are CC BY-NC 4.0, so no record, bundle or page holds one of them (``Dataset.pictures``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import validate_call

from hauberk.data import files
from hauberk.data.arrays import Arrays, to_integers, to_labels, to_nchw
from hauberk.data.dataset import Dataset
from hauberk.data.inspection import counted
from hauberk.data.splits import assemble
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
    remarks = ("The splits share no lesion; this is not the published split of DermaMNIST.",)
    return replace(assemble(SMALL, tuple(DIAGNOSES.values()), train, test, val, remarks=remarks), pictures=False)


def check_apart(groups: Mapping[str, np.ndarray], what: str, path: Path) -> None:
    """Raise if something that several images show (a lesion, a patient) is in more than one split.

    Args:
        groups: its name for each image, by split.
        what: it is, in the singular.
        path: of the file that says so.
    """
    names = {part: set(values.tolist()) for part, values in groups.items()}
    parts = list(names)
    for place, one in enumerate(parts):
        for other in parts[place + 1 :]:
            shared = names[one] & names[other]
            if shared:
                first = min(shared)
                raise HauberkError(
                    f"{path}: {one} and {other} share {counted(len(shared), what)}, for example "
                    f"{first.decode(errors='replace') if isinstance(first, bytes) else first}",
                    f"keep all images of one {what} in one split: what was learnt of it is no fresh test",
                )


def _part(arrays: Mapping[str, np.ndarray], part: str, path: Path) -> Arrays:
    name = f"{path}, {part}_images"
    images = to_nchw(to_integers(arrays[f"{part}_images"], name), "NHWC", name)
    return Arrays(images, to_labels(arrays[f"{part}_labels"], f"{path}, {part}_labels"))
