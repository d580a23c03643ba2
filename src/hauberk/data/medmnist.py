"""The 2-D sets of MedMNIST, version 3.0, in the publisher's ``.npz`` files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import validate_call

from hauberk import registry
from hauberk.data import files
from hauberk.data.arrays import Arrays, to_integers, to_labels, to_nchw
from hauberk.data.dataset import Dataset
from hauberk.data.multilabel import RULES, MultiLabelDataset, MultiLabelSplit, Rule
from hauberk.data.split import SplitName
from hauberk.data.splits import assemble
from hauberk.errors import HauberkError

_URL = "https://zenodo.org/records/10519652/files/"
_SPLITS: tuple[SplitName, SplitName, SplitName] = ("train", "val", "test")

Size = Literal[28, 64, 128, 224]


@dataclass(frozen=True)
class _Published:
    """What the publisher put out: class (or finding) names, the md5 of the file of each image size, and terms."""

    names: tuple[str, ...]
    sums: Mapping[int, str]
    multi_label: bool = False
    pictures: bool = True


_ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver", "lung-left", "lung-right",
    "pancreas", "spleen",
)
_FLAGS: dict[str, _Published] = {
    "pathmnist": _Published(
        (
            "adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle", "normal colon mucosa",
            "cancer-associated stroma", "colorectal adenocarcinoma epithelium",
        ),
        {
            28: "a8b06965200029087d5bd730944a56c1",
            64: "55aa9c1e0525abe5a6b9d8343a507616",
            128: "ac42d08fb904d92c244187169d1fd1d9",
            224: "2c51a510bcdc9cf8ddb2af93af1eadec",
        },
    ),
    "chestmnist": _Published(
        (
            "atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia",
            "pneumothorax", "consolidation", "edema", "emphysema", "fibrosis", "pleural", "hernia",
        ),
        {
            28: "02c8a6516a18b556561a56cbdd36c4a8",
            64: "9de6cd0b934ebb5b7426cfba5efbae16",
            128: "db107e5590b27930b62dbaf558aebee3",
            224: "45bd33e6f06c3e8cdb481c74a89152aa",
        },
        multi_label=True,
    ),
    "dermamnist": _Published(
        (
            "actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma",
            "benign keratosis-like lesions", "dermatofibroma", "melanoma", "melanocytic nevi", "vascular lesions",
        ),
        {
            28: "0744692d530f8e62ec473284d019b0c7",
            64: "b70a2f5635c6199aeaa28c31d7202e1f",
            128: "2defd784463fa5243564e855ed717de1",
            224: "8974907d8e169bef5f5b96bc506ae45d",
        },
        pictures=False,  # CC BY-NC 4.0, the others are CC BY 4.0
    ),
    "octmnist": _Published(
        ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
        {
            28: "c68d92d5b585d8d81f7112f81e2d0842",
            64: "e229e9440236b774d9f0dfef9d07bdaf",
            128: "0a97e76651ace45c5d943ee3f65b63ae",
            224: "abc493b6d529d5de7569faaef2773ba3",
        },
    ),
    "pneumoniamnist": _Published(
        ("normal", "pneumonia"),
        {
            28: "28209eda62fecd6e6a2d98b1501bb15f",
            64: "8f4eceb4ccffa70c672198ea285246c6",
            128: "05b46931834c231683c68f40c47b2971",
            224: "d6a3c71de1b945ea11211b03746c1fe1",
        },
    ),
    "retinamnist": _Published(
        ("grade 0", "grade 1", "grade 2", "grade 3", "grade 4"),
        {
            28: "bd4c0672f1bba3e3a89f0e4e876791e4",
            64: "afda852cc34dcda56f86ad2b2457dbcc",
            128: "e48e916a24454daf90583d4e6efb1a18",
            224: "eae7e3b6f3fcbda4ae613ebdcbe35348",
        },
    ),
    "breastmnist": _Published(
        ("malignant", "normal, benign"),
        {
            28: "750601b1f35ba3300ea97c75c52ff8f6",
            64: "742edef2a1fd1524b2efff4bd7ba9364",
            128: "363e4b3f8d712e9b5de15470a2aaadf1",
            224: "b56378a6eefa9fed602bb16d192d4c8b",
        },
    ),
    "bloodmnist": _Published(
        (
            "basophil", "eosinophil", "erythroblast", "immature granulocytes", "lymphocyte", "monocyte",
            "neutrophil", "platelet",
        ),
        {
            28: "7053d0359d879ad8a5505303e11de1dc",
            64: "2b94928a2ae4916078ca51e05b6b800b",
            128: "adace1e0ed228fccda1f39692059dd4c",
            224: "b718ff6835fcbdb22ba9eacccd7b2601",
        },
    ),
    "tissuemnist": _Published(
        (
            "Collecting Duct, Connecting Tubule", "Distal Convoluted Tubule", "Glomerular endothelial cells",
            "Interstitial endothelial cells", "Leukocytes", "Podocytes", "Proximal Tubule Segments",
            "Thick Ascending Limb",
        ),
        {
            28: "ebe78ee8b05294063de985d821c1c34b",
            64: "123ece2eba09d0aa5d698fda57103344",
            128: "61b955355d7425a89687b06cca3ce0c2",
            224: "b077128c4a949f0a4eb01517f9037b9c",
        },
    ),
    "organamnist": _Published(
        _ORGANS,
        {
            28: "68e3f8846a6bd62f0c9bf841c0d9eacc",
            64: "2dcccc29b88e6da5a01161ef20cda288",
            128: "eeae80d0a227a8d099027e1b3cfd3b60",
            224: "50747347e05c87dd3aaf92c49f9f3170",
        },
    ),
    "organcmnist": _Published(
        _ORGANS,
        {
            28: "b9ceb9546e10131b32923c5bbeaea2b1",
            64: "3ce34a8724ea6f548e6db4744d03b6a9",
            128: "773c1f009daa3fe5d9a2a201b2a7ed94",
            224: "050f5e875dc056f6768abf94ec9995d1",
        },
    ),
    "organsmnist": _Published(
        _ORGANS,
        {
            28: "9ab87b696fb54e2a387ebe992d6ed5f1",
            64: "53a6d115339d874c25e309a994ff46d3",
            128: "ded0c5fa01a95dc4978b956f613e9b8e",
            224: "b354719e553fbbb2513d5533f52a4cb1",
        },
    ),
}


@validate_call
def medmnist(
    flag: str,
    size: Size = 28,
    rule: Rule | None = None,
    root: Path | None = None,
    download: bool = False,
    verify: bool = True,
) -> Dataset:
    """A 2-D set of MedMNIST by its flag, split as published (Yang et al. 2023).

    Val ids continue those of train, so that no two of these splits share one.

    Args:
        flag: for example ``pneumoniamnist`` or ``dermamnist``.
        size: 28, or 64, 128 or 224 pixels a side.
        rule: how a multi-label set (``chestmnist``) becomes single-label, ``only_positive``, ``at_most_one`` or
            ``any_finding``; see :meth:`hauberk.data.multilabel.MultiLabelDataset.single_label`.
        root: the folder that holds ``<flag>.npz`` (``<flag>_64.npz`` ...); see :func:`hauberk.data.load` for the
            default.
        download: fetch the file if it is missing.
        verify: compare the file's md5 with the published one.

    Raises:
        HauberkError: on an unknown flag, a missing, damaged or foreign file, or a multi-label set without a rule.
    """
    published = _published(flag)
    if published.multi_label and rule is None:
        raise HauberkError(
            f"{flag} has several findings for each image, but a classifier gives one class",
            f"choose rule: {', '.join(RULES)}; or read all findings with hauberk.data.medmnist.multi_label",
        )
    if published.multi_label and rule is not None:
        return multi_label(flag, size, root, download, verify).single_label(rule)
    if rule is not None:
        raise HauberkError(f"{flag} already has one class for each image", "leave rule out")
    path, arrays = _read(flag, size, root, download, verify)
    train, val, test = (
        Arrays(_images(arrays, part, path), to_labels(arrays[f"{part}_labels"], f"{path}, {part}_labels"))
        for part in _SPLITS
    )
    return replace(assemble(path.stem, published.names, train, test, val), pictures=published.pictures)


@validate_call
def multi_label(
    flag: str, size: Size = 28, root: Path | None = None, download: bool = False, verify: bool = True
) -> MultiLabelDataset:
    """A multi-label set of MedMNIST as published; the arguments are those of :func:`medmnist`.

    Raises:
        HauberkError: on an unknown or single-label flag, or a missing, damaged or foreign file.
    """
    published = _published(flag)
    if not published.multi_label:
        raise HauberkError(f"{flag} has one class for each image", "read it with hauberk.data.medmnist.medmnist")
    path, arrays = _read(flag, size, root, download, verify)
    first_val = len(arrays["train_images"])
    starts = {"train": 0, "val": first_val, "test": 0}
    parts = []
    for part in _SPLITS:
        images, findings = _images(arrays, part, path), _findings(arrays[f"{part}_labels"], f"{path}, {part}_labels")
        ids = torch.arange(len(images)) + starts[part]
        parts.append(MultiLabelSplit(part, torch.from_numpy(np.ascontiguousarray(images)), findings, ids))
    return MultiLabelDataset(path.stem, published.names, *parts)


def _published(flag: str) -> _Published:
    if flag not in _FLAGS:
        known = list(_FLAGS)
        raise HauberkError(
            f"there is no 2-D MedMNIST set called {flag!r}",
            registry.suggestion(flag, known) or f"known: {', '.join(known)}; read arrays of your own with name: npz",
        )
    return _FLAGS[flag]


def _read(flag: str, size: int, root: Path | None, download: bool, verify: bool) -> tuple[Path, dict[str, np.ndarray]]:
    folder = files.data_root(root)
    path = folder / (f"{flag}.npz" if size == 28 else f"{flag}_{size}.npz")
    url, md5 = f"{_URL}{path.name}", _FLAGS[flag].sums[size]
    if download and not path.exists():
        files.download(url, path, md5)
    if verify and path.exists():
        files.check_md5(path, files.file_md5(path), md5)
    keys = [f"{part}_{what}" for part in _SPLITS for what in ("images", "labels")]
    return path, files.read_npz(path, keys, hint=f"put {path.name} ({url}) into {folder}, or say download: true")


def _images(arrays: dict[str, np.ndarray], part: str, path: Path) -> np.ndarray:
    images, name = arrays[f"{part}_images"], f"{path}, {part}_images"
    return to_nchw(to_integers(images, name), "NHW" if images.ndim == 3 else "NHWC", name)


def _findings(values: np.ndarray, name: str) -> torch.Tensor:
    if values.ndim != 2 or not np.isin(values, (0, 1)).all():
        raise HauberkError(f"{name}: expected 0 or 1 for each image and finding, got shape {values.shape}",
                           "it is another file under this name: fetch it again")  # fmt: skip
    return torch.from_numpy(values.astype(bool))
