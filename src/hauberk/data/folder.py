"""Images in folders, one folder for each class."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, validate_call

from hauberk import reading
from hauberk.data import files
from hauberk.data.arrays import Arrays, one_depth
from hauberk.data.dataset import Dataset, learnable
from hauberk.data.image_file import ENDINGS, Form, ImageFile, head, read_image
from hauberk.data.inspection import counted, named
from hauberk.data.split import SplitName
from hauberk.data.splits import SPLIT_SEED, assemble, split, tenth
from hauberk.errors import HauberkError

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
SURVEYED = 200  # images whose heads are looked at before any is read
MOST = 4096  # pixels a side: one image of that size takes 48 MiB
_LEFTOVERS = ("__MACOSX",)  # what archive programs leave beside the data


@validate_call
def image_folder(
    folder: Path,
    size: Annotated[int, Field(ge=1, le=MOST)],
    channels: Literal[1, 3] = 3,
    root: Path | None = None,
    val_size: Annotated[int, Field(ge=0)] | None = None,
    test_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2,
    val_fraction: Fraction = 0.1,
    classes: tuple[str, ...] | None = None,
) -> Dataset:
    """Images of ``folder/train/CLASS``, ``folder/test/CLASS`` and, if it is there, ``folder/val/CLASS``.

    Without a ``train`` folder, ``folder/CLASS`` is split by a hash of each file's bytes: a file keeps its split
    when it is renamed or when others are added, and exact copies fall on the same side.  Images that look alike do not:
    where several show one patient or scene, make the splits yourself.

    The largest central square is cut out and resized (bicubic, antialiased); an image of ``size`` x ``size`` is left as
    it is.  Classes are the names of the class folders in natural order (2 before 10).  PNG, JPEG and WebP are read,
    16-bit PNGs at full depth; other files are passed over and counted in the notes of the data set.

    Args:
        folder: relative to ``root``; its name is the data set's name.
        size: pixels a side.
        channels: 3 for colour, 1 for grey.
        root: the folder of data sets; see :func:`hauberk.data.load` for the default.
        val_size: with ``train`` but no ``val`` folder, how many train images are held out for validation;
            by default a tenth, 1,000 at most.
        test_fraction: without a ``train`` folder, the share of images for test; 1 where nothing is trained on them.
        val_fraction: without a ``train`` folder, the share of images for validation.
        classes: the names of the class folders, in the order of their labels.

    Raises:
        HauberkError: if a folder is missing, a class has no training image, images lie in folders inside the class
            folders, or an image cannot be read as one picture.
    """
    base, form = files.data_root(root) / folder, Form(size, channels)
    if not base.is_dir():
        raise HauberkError(
            f"expected the folder {base}, which is not there",
            f"put images into {base}/train/CLASS and {base}/test/CLASS, or into {base}/CLASS",
        )
    _check_names(base)
    flat = not (base / "train").is_dir()
    if flat and val_size is not None:
        raise HauberkError(f"{base} has no folder train, so val_size does not apply", "use val_fraction instead")
    names = _classes(base if flat else base / "train", classes)
    reading = _Reading(form)
    if flat:
        return _by_hash(base, names, reading, test_fraction, val_fraction)
    has_val = (base / "val").is_dir()
    if has_val and val_size is not None:
        raise HauberkError(f"{base} has a folder val of its own", "leave val_size out")
    wanted: tuple[SplitName, ...] = ("train", "test", "val") if has_val else ("train", "test")
    listings = {part: reading.listing(base / part, names, every=part == "train") for part in wanted}
    arrays = one_depth({part: reading.read(listing) for part, listing in listings.items()})
    held = tenth(len(arrays["train"].labels)) if val_size is None else val_size
    size_of_val = 0 if has_val else held
    return learnable(assemble(
        base.name, names, arrays["train"], arrays["test"], arrays.get("val"), size_of_val, reading.notes(names)
    ))  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """Properties of a few of a folder's images: their widths and heights, and whether all are grey."""

    sizes: frozenset[tuple[int, int]]
    grey: bool


def survey(base: Path) -> Stored:
    """Look at the heads of a few images below a folder, evenly spread over them.

    Raises:
        HauberkError: if there are none.
    """
    below = sorted(p for p in base.rglob("*") if p.suffix.lower() in ENDINGS)
    paths = [p for p in below if not any(map(_hidden, p.relative_to(base).parts))]
    found = [seen for path in paths[:: max(1, len(paths) // SURVEYED)] if (seen := head(path)) is not None]
    if not found:
        raise HauberkError(f"{base} holds no images", f"{_EXPECTED}, in one folder for each class")
    return Stored(frozenset(size for size, _ in found), all(grey for _, grey in found))


def _check_names(base: Path) -> None:
    """Raise if a folder of images is called nearly like a split: it would be passed over, or taken for a class."""
    names = _folders(base)
    alone = {"test", "val"} & set(names)
    if alone and set(names) <= {"test", "val", "extra"}:
        raise HauberkError(
            f"{base} has a folder {min(alone)} but no folder train",
            f"to evaluate on that folder only, give {base}/test",
        )
    splits = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}
    for name in names if {"train", "training", "test", "testing"} & {n.casefold() for n in names} else ():
        meant = splits.get(name.casefold(), name.casefold())
        if name != meant and meant in ("train", "val", "test") and meant not in names:
            raise HauberkError(
                f"{base / name} is not read: the folders of the splits must be called train, val and test",
                f"rename it to {meant}",
            )


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts runs of digits as numbers: 2 before 10, class2 before class10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return (*((0, int(p), "") if p[0] in "0123456789" else (1, 0, p) for p in parts), (-1, 0, name))


def _classes(folder: Path, given: tuple[str, ...] | None) -> tuple[str, ...]:
    found = _folders(folder)
    if len(found) < 2:
        inner = _folders(folder / found[0]) if found else ()
        hint = f"did you mean the folder {folder / found[0]}?" if len(inner) > 1 else "one folder a class"
        raise HauberkError(f"{folder}: expected two class folders or more, got {len(found)}", hint)
    if given is None:
        return found
    if len(set(given)) != len(given) or set(given) != set(found):
        raise HauberkError(
            f"{folder}: the setting classes must name each class folder once, got {', '.join(given)}",
            f"the folders are {', '.join(found)}",
        )
    return given


def _folders(folder: Path) -> tuple[str, ...]:
    names = (p.name for p in folder.iterdir() if p.is_dir() and not _hidden(p.name))
    return tuple(sorted(names, key=natural))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in _LEFTOVERS


@dataclass
class _Reading:
    """Files on their way to arrays, and what is to be said of them."""

    form: Form
    skipped: Counter[str] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)
    sizes: set[tuple[int, int]] = field(default_factory=set)

    def listing(self, folder: Path, classes: Sequence[str], every: bool) -> list[tuple[Path, int]]:
        """Every image of a split with its label, in the order of class and file name.

        Args:
            folder: of the class folders.
            classes: their names.
            every: whether each class must have an image.
        """
        if not folder.is_dir():
            raise HauberkError(f"expected the folder {folder}, which is not there", f"put images into {folder}/CLASS")
        unknown = [name for name in _folders(folder) if name not in classes]
        if unknown:
            raise HauberkError(f"{folder}: there is no class {unknown[0]!r} in train", f"known: {', '.join(classes)}")
        self.skipped.update(_ending(p) for p in folder.iterdir() if p.is_file() and not _hidden(p.name))
        found = []
        for label, name in enumerate(classes):
            images = self._of_class(folder / name) if (folder / name).is_dir() else []
            if every and not images:
                raise HauberkError(f"{folder / name} holds no images{_instead(folder / name)}", _EXPECTED)
            found += [(path, label) for path in images]
        if not found:
            raise HauberkError(f"{folder} holds no images", _EXPECTED)
        return found

    def _of_class(self, folder: Path) -> list[Path]:
        images = []
        for path in sorted(folder.iterdir()):
            if _hidden(path.name):
                continue
            if path.is_dir():
                if any(p.suffix.lower() in ENDINGS for p in path.rglob("*") if not _hidden(p.name)):
                    raise HauberkError(
                        f"{folder} has images one folder deeper, in {path.name}",
                        f"put them into {folder} itself, or give the folder that holds the class folders",
                    )
            elif path.suffix.lower() in ENDINGS:
                images.append(path)
            else:
                self.skipped[_ending(path)] += 1
        return images

    def read(self, listing: Iterable[tuple[Path, int]]) -> Arrays:
        """Images and labels; 8-bit images are brought to 16 bits where some image has 16."""
        images, labels = [], []
        for path, label in listing:
            found = read_image(path, self.form)
            self._count(found)
            images.append(found.pixels)
            labels.append(label)
        if len({image.dtype for image in images}) > 1:
            images = [i if i.dtype == np.uint16 else i.astype(np.uint16) * 257 for i in images]
        return Arrays(np.stack(images), np.array(labels, dtype=np.int64))

    def _count(self, found: ImageFile) -> None:
        self.sizes.add(found.stored)
        marks = {
            "all": True, "grey": found.grey, "turned": found.turned, "transparent": found.transparent,
            "16 bits": found.pixels.dtype == np.uint16, "oblong": found.stored[0] != found.stored[1],
        }  # fmt: skip
        self.images.update(name for name, true in marks.items() if true)

    def notes(self, classes: Sequence[str]) -> tuple[str, ...]:
        """What was passed over or changed, in sentences."""
        n, of, said = self.images["all"], self.images, []
        if self.skipped:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.skipped.items()))
            said.append(f"{counted(self.skipped.total(), 'file')} passed over, being no PNG, JPEG or WebP: {kinds}.")
        if len(self.sizes) > 1:
            small, large = min(self.sizes, key=_area), max(self.sizes, key=_area)
            said.append(f"The images come in {len(self.sizes)} sizes, from {_by(small)} to {_by(large)} pixels; "
                        f"each is resized to {self.form.size}x{self.form.size}.")  # fmt: skip
        if of["oblong"]:
            said.append(f"{of['oblong']:,} of {n:,} images are not square; their longer side is cut.")
        if 0 < of["grey"] < n:
            made = "given three equal channels" if self.form.channels == 3 else "left as they are, the others made grey"
            said.append(f"{of['grey']:,} of {n:,} images have no colours and are {made}.")
        elif not of["grey"] and self.form.channels == 1:
            said.append("The images are in colour and are made grey.")
        if of["turned"]:
            said.append(f"{of['turned']:,} of {n:,} images are turned as their EXIF orientation says.")
        if of["transparent"]:
            said.append(f"{of['transparent']:,} of {n:,} images have transparent pixels; they are laid over black.")
        if 0 < of["16 bits"] < n:
            said.append(f"{of['16 bits']:,} of {n:,} images have 16 bits a channel; others are brought to that scale.")
        if list(classes) == sorted(classes, key=natural) != sorted(classes):
            said.append(f"Classes are in natural order ({named(classes)}); a program that sorts them as text numbers "
                        "them otherwise.")  # fmt: skip
        return tuple(said)


_EXPECTED = f"expected files ending in {', '.join(ENDINGS)}"


def _instead(folder: Path) -> str:
    """What a folder without images holds."""
    if not folder.is_dir():
        return ""
    kinds = Counter(_ending(p) for p in folder.iterdir() if p.is_file() and not _hidden(p.name))
    if not kinds:
        return ": it is empty"
    return f" but {', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))}"


def _ending(path: Path) -> str:
    return path.suffix.lower() or "without an ending"


def _area(size: tuple[int, int]) -> tuple[int, tuple[int, int]]:
    return size[0] * size[1], size


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _by_hash(
    base: Path, classes: tuple[str, ...], reading: _Reading, test_fraction: float, val_fraction: float
) -> Dataset:
    if test_fraction + val_fraction >= 1.0 and (test_fraction, val_fraction) != (1.0, 0.0):
        raise HauberkError(
            f"expected test_fraction + val_fraction below 1, got {test_fraction} + {val_fraction}",
            "choose smaller fractions, so that images are left for training",
        )
    listing = reading.listing(base, classes, every=True)
    arrays = reading.read(listing)
    place = np.array([_place(path) for path, _ in listing])
    for_test = place < test_fraction
    for_val = ~for_test & (place < test_fraction + val_fraction)
    parts: dict[SplitName, np.ndarray] = {"train": ~for_test & ~for_val, "val": for_val, "test": for_test}
    ids = np.arange(len(listing))
    train, val, test = (split(name, Arrays(arrays.images[m], arrays.labels[m]), ids[m]) for name, m in parts.items())
    return learnable(Dataset(base.name, classes, train, val, test, reading.notes(classes)))


def _place(path: Path) -> float:
    """A number in [0, 1) that depends on the file's bytes alone."""
    key = f"{SPLIT_SEED}|folder".encode()
    digest = hashlib.blake2b(reading.content(path, reading.DATA_BYTES), digest_size=8, key=key).digest()
    return int.from_bytes(digest, "little") / 2**64
