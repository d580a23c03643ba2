"""NIH Chest X-ray: radiographs with up to 14 findings each, which a named rule makes one class of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, validate_call

from hauberk import reading
from hauberk.data import files
from hauberk.data.dataset import Dataset
from hauberk.data.folder import MOST
from hauberk.data.grouped import TABLE_BYTES, check_apart, found_below, table, tenths
from hauberk.data.image_file import Form
from hauberk.data.multilabel import MultiLabelDataset, MultiLabelSplit, Rule
from hauberk.data.split import SplitName
from hauberk.data.streamed import ImageFiles, names_array
from hauberk.errors import HauberkError

FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
NONE = "No Finding"
_URL = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
_TABLES = ("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
_LISTS = ("train_val_list.txt", "test_list.txt")


@validate_call
def nih_chest_xray(
    rule: Rule,
    folder: Path = Path("NIH_Chest_Xray"),
    size: Annotated[int, Field(ge=1, le=MOST)] = 224,
    split: Literal["official", "by_patient"] = "official",
    root: Path | None = None,
) -> Dataset:
    """NIH Chest X-ray (ChestX-ray14) as its publisher's files, in grey, which stay where they are (Wang et al. 2017).

    No patient is in two splits.  The largest central square of a radiograph is resized.

    Args:
        rule: how one class is made of the findings, ``only_positive``, ``at_most_one``, ``any_finding`` or
            ``finding:NAME``; see :meth:`hauberk.data.multilabel.MultiLabelDataset.single_label`.
        folder: holds ``Data_Entry_2017.csv`` (or ``Data_Entry_2017_v2020.csv``) with the columns ``Image Index``,
            ``Finding Labels`` (separated by ``|``) and ``Patient ID``, the lists ``train_val_list.txt`` and
            ``test_list.txt``, and the radiographs, at most three folders deep; relative to ``root``.
        size: pixels a side.
        split: ``official`` tests on the publisher's test list and holds out a tenth of the other patients for
            validation; ``by_patient`` makes 70, 10 and 20 % of the patients.  Patients are in the order of the SHA-256
            of their numbers.
        root: the folder of data sets; see :func:`hauberk.data.load` for the default.

    Raises:
        HauberkError: if a file is missing, a finding is unknown, an image is in no list, or a patient in two splits.
    """
    base = files.data_root(root) / folder
    hint = f"unpack NIH Chest X-ray ({_URL}) in {base}"
    path = next((base / name for name in _TABLES if (base / name).is_file()), base / _TABLES[0])
    rows = table(path, ("Image Index", "Finding Labels", "Patient ID"), hint)
    names, patients = [row["Image Index"] for row in rows], [row["Patient ID"] for row in rows]
    marked = torch.tensor([_marks(row["Finding Labels"], path) for row in rows])
    images = ImageFiles(base, names_array(found_below(base, names, hint)), Form(size, 1))
    own, who = split == "by_patient", np.array(patients)
    part = tenths(patients, [0] * len(rows), (7, 8)) if own else _official(base, names, patients, hint)
    check_apart({name: who[part == number] for number, name in enumerate(("train", "val", "test"))}, "patient", path)
    ids = torch.arange(len(rows))
    splits: list[MultiLabelSplit] = []
    names_of: tuple[SplitName, ...] = ("train", "val", "test")
    for number, name in enumerate(names_of):
        chosen = torch.from_numpy(np.flatnonzero(part == number))
        splits.append(MultiLabelSplit(name, images[chosen], marked[chosen], ids[chosen]))
    kind = f"nih_chest_xray_{size}" + ("_by_patient" if own else "")
    return MultiLabelDataset(kind, FINDINGS, *splits).single_label(rule)


def _marks(text: str, path: Path) -> list[bool]:
    """Yes or no for every finding."""
    said = text.split("|")
    unknown = sorted(set(said) - {NONE, *FINDINGS})
    if unknown or (NONE in said and len(said) > 1):
        what = f"{unknown[0]!r} is not a finding" if unknown else f"{text!r} contradicts itself"
        raise HauberkError(f"{path}: {what}", f"known: {NONE}, or some of {', '.join(FINDINGS)} with | between them")
    return [name in said for name in FINDINGS]


def _official(base: Path, names: list[str], patients: list[str], hint: str) -> np.ndarray:
    """The publisher's test images as part 2, and a tenth of the other patients as part 1."""
    listed = []
    for name in _LISTS:
        if not (base / name).is_file():
            raise HauberkError(f"expected the file {base / name}, which is not there",
                               f"{hint}, or set split: by_patient")  # fmt: skip
        listed.append(set(reading.text(base / name, TABLE_BYTES).split()))
    learnt, tested = listed
    both, neither = learnt & tested, [name for name in names if name not in learnt | tested]
    if both or neither:
        odd = min(both) if both else neither[0]
        where = "both lists" if both else "neither list"
        raise HauberkError(f"{base}: {odd} is in {where} of {', '.join(_LISTS)}", hint)
    test = np.array([name in tested for name in names])
    part = np.full(len(names), 2)
    rest = np.flatnonzero(~test)
    part[rest] = tenths([patients[i] for i in rest], [0] * len(rest), (9,))
    return part
