"""Write small sets of images as the files that Hauberk's data sets read.

    python reproductions/image_sets.py FOLDER                              # all, into $HAUBERK_DATA, else ./data
    python reproductions/image_sets.py FOLDER pneumoniamnist ham10000_28   # these two

FOLDER holds a ``read_data.py`` whose ``load(name)`` gives the arrays of one set, and whose ``official(folder)`` writes
the published files of CIFAR-10.  What is written, and the description that reads it:

    cifar10          cifar-10-batches-py/            {name: cifar10}
    cifar100         cifar100_300.npz                {name: npz, file: cifar100_300.npz, layout: NHWC}
    pneumoniamnist   pneumoniamnist.npz              {name: medmnist, flag: pneumoniamnist, verify: false}
    ham10000_28      ham10000_28_by_lesion.npz       {name: ham10000_28}

CIFAR-100 has 300 training images a class there.  The training images of PneumoniaMNIST stand in another order than in
the published file, so their sum is another one.  The reader's dermamnist is HAM10000 split by lesion, not DermaMNIST.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

from hauberk.data.files import data_root

PARTS = ("train", "val", "test")


def reader_of(folder: Path) -> ModuleType:
    """The module ``read_data`` of a folder."""
    description = importlib.util.spec_from_file_location("read_data", folder / "read_data.py")
    assert description is not None and description.loader is not None
    reader = importlib.util.module_from_spec(description)
    description.loader.exec_module(reader)
    return reader


def cifar10(reader: ModuleType, out: Path) -> None:
    """The publisher's six files."""
    reader.official(out)


def cifar100(reader: ModuleType, out: Path) -> None:
    """``x_train``, ``y_train``, ``x_test``, ``y_test`` and ``classes``."""
    arrays = reader.load("cifar100")
    parts = {name: arrays[name] for name in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(out / "cifar100_300.npz", **parts, classes=np.array(arrays["classes"]))


def pneumoniamnist(reader: ModuleType, out: Path) -> None:
    """MedMNIST's layout: labels have an axis of length one."""
    arrays = reader.load("pneumoniamnist")
    parts = {f"{part}_images": arrays[f"x_{part}"] for part in PARTS}
    np.savez(out / "pneumoniamnist.npz", **parts, **{f"{part}_labels": arrays[f"y_{part}"][:, None] for part in PARTS})


def ham10000_28(reader: ModuleType, out: Path) -> None:
    """Images, labels and the lesion that each image shows."""
    arrays = reader.load("dermamnist")
    names = {"images": "x", "labels": "y", "lesions": "lesion_id"}
    parts = {f"{part}_{ours}": arrays[f"{theirs}_{part}"] for part in PARTS for ours, theirs in names.items()}
    np.savez(out / "ham10000_28_by_lesion.npz", **parts)


WRITERS: dict[str, Callable[[ModuleType, Path], None]] = {
    "cifar10": cifar10, "cifar100": cifar100, "pneumoniamnist": pneumoniamnist, "ham10000_28": ham10000_28,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds read_data.py")
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(WRITERS)}; by default all")
    options = parser.parse_args()
    unknown = set(options.sets) - set(WRITERS)
    if unknown:
        parser.error(f"there is no set {min(unknown)}; known: {', '.join(WRITERS)}")
    out = data_root(None)
    out.mkdir(parents=True, exist_ok=True)
    reader = reader_of(options.folder)
    for name in options.sets or WRITERS:
        WRITERS[name](reader, out)


if __name__ == "__main__":
    main()
