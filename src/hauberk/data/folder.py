"""Images in folders, one folder a class."""

from __future__ import annotations

import hashlib
import io
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from PIL import Image, ImageOps
from pydantic import Field, validate_call

from hauberk import reading
from hauberk.data import files
from hauberk.data.arrays import Arrays
from hauberk.data.dataset import Dataset, SplitName
from hauberk.data.splits import SPLIT_SEED, assemble, split, tenth
from hauberk.errors import HauberkError

_FORMATS = ("PNG", "JPEG", "WEBP")  # whatever a file is called: other readers of Pillow start programs
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
_MODES: dict[int, Literal["L", "RGB"]] = {1: "L", 3: "RGB"}
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


@dataclass(frozen=True)
class _Form:
    """What every image is brought to: pixels a side and channels."""

    size: int
    channels: int


@validate_call
def image_folder(
    folder: Path,
    size: Annotated[int, Field(ge=1)],
    channels: Literal[1, 3] = 3,
    root: Path | None = None,
    val_size: Annotated[int, Field(ge=0)] | None = None,
    test_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2,
    val_fraction: Fraction = 0.1,
) -> Dataset:
    """Images of ``folder/train/CLASS``, ``folder/test/CLASS`` and, if it is there, ``folder/val/CLASS``.

    Without a ``train`` folder, ``folder/CLASS`` is split by a hash of each file's bytes: a file keeps its split
    when it is renamed or when others are added, and exact copies fall on the same side.  Images that look alike do not:
    where several show one patient or scene, make the splits yourself.

    The largest central square is cut out and resized (bicubic, antialiased); an image of ``size`` x ``size`` is left as
    it is.  Classes are the names of the class folders, sorted.  PNG, JPEG and WebP are read, other files passed over.

    Args:
        folder: relative to ``root``; its name is the data set's name.
        size: pixels a side.
        channels: 3 for colour, 1 for grey.
        root: the folder of data sets; see :func:`hauberk.data.load` for the default.
        val_size: with ``train`` but no ``val`` folder, how many train images are held out for validation;
            by default a tenth, 1,000 at most.
        test_fraction: without a ``train`` folder, the share of images for test.
        val_fraction: without a ``train`` folder, the share of images for validation.

    Raises:
        HauberkError: if a folder is missing or empty, or an image is damaged or has more than 8 bits a channel.
    """
    base = files.data_root(root) / folder
    form = _Form(size, channels)
    if not base.is_dir():
        raise HauberkError(
            f"expected the folder {base}, which is not there",
            f"put images into {base}/train/CLASS and {base}/test/CLASS, or into {base}/CLASS",
        )
    if not (base / "train").is_dir():
        if val_size is not None:
            raise HauberkError(f"{base} has no folder train, so val_size does not apply", "say val_fraction instead")
        return _by_hash(base, form, test_fraction, val_fraction)
    classes = _classes(base / "train")
    train, test = (_read(_listing(base / part, classes), form) for part in ("train", "test"))
    if (base / "val").is_dir():
        if val_size is not None:
            raise HauberkError(f"{base} has a folder val of its own", "leave val_size out")
        return assemble(base.name, classes, train, test, _read(_listing(base / "val", classes), form))
    held = tenth(len(train.labels)) if val_size is None else val_size
    return assemble(base.name, classes, train, test, val_size=held)


def _classes(folder: Path) -> tuple[str, ...]:
    names = _folders(folder)
    if len(names) < 2:
        raise HauberkError(f"{folder}: expected two class folders or more, got {len(names)}", "one folder a class")
    return names


def _folders(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))


def _listing(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    """Every image of a split with its label, in the order of class and file name."""
    if not folder.is_dir():
        raise HauberkError(f"expected the folder {folder}, which is not there", f"put images into {folder}/CLASS")
    unknown = [name for name in _folders(folder) if name not in classes]
    if unknown:
        raise HauberkError(f"{folder}: there is no class {unknown[0]!r} in train", f"known: {', '.join(classes)}")
    listing = [
        (path, label)
        for label, name in enumerate(classes)
        if (folder / name).is_dir()
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in ENDINGS and not path.name.startswith(".")
    ]
    if not listing:
        raise HauberkError(f"{folder} holds no images", f"expected files ending in {', '.join(ENDINGS)}")
    return listing


def _by_hash(base: Path, form: _Form, test_fraction: float, val_fraction: float) -> Dataset:
    if test_fraction + val_fraction >= 1.0:
        raise HauberkError(
            f"expected test_fraction + val_fraction below 1, got {test_fraction} + {val_fraction}",
            "leave some images to train on",
        )
    classes = _classes(base)
    listing = _listing(base, classes)
    arrays = _read(listing, form)
    place = np.array([_place(path) for path, _ in listing])
    for_test = place < test_fraction
    for_val = ~for_test & (place < test_fraction + val_fraction)
    parts: dict[SplitName, np.ndarray] = {"train": ~for_test & ~for_val, "val": for_val, "test": for_test}
    ids = np.arange(len(listing))
    made = (split(name, Arrays(arrays.images[m], arrays.labels[m]), ids[m]) for name, m in parts.items())
    return Dataset(base.name, classes, *made)


def _place(path: Path) -> float:
    """A number in [0, 1) that depends on the file's bytes alone."""
    key = f"{SPLIT_SEED}|folder".encode()
    digest = hashlib.blake2b(reading.content(path, reading.DATA_BYTES), digest_size=8, key=key).digest()
    return int.from_bytes(digest, "little") / 2**64


def _read(listing: Iterable[tuple[Path, int]], form: _Form) -> Arrays:
    images, labels = [], []
    for path, label in listing:
        images.append(_image(path, form))
        labels.append(label)
    return Arrays(np.stack(images), np.array(labels, dtype=np.int64))


def _image(path: Path, form: _Form) -> np.ndarray:
    """One image, shape (C, size, size), uint8."""
    try:
        with warnings.catch_warnings(), _opened(path) as opened:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if opened.mode.startswith(("I", "F")):
                raise HauberkError(f"{path} has more than 8 bits a channel ({opened.mode})", "convert it to 8 bits")
            upright = ImageOps.exif_transpose(opened).convert(_MODES[form.channels])
            fitted = _central_square(upright).resize((form.size, form.size), Image.Resampling.BICUBIC)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise HauberkError(f"cannot read the image {path}: {error}", "remove it or replace it") from error
    return np.asarray(fitted).reshape(form.size, form.size, form.channels).transpose(2, 0, 1)


def _opened(path: Path) -> Image.Image:
    """An image file whose pixels are not decoded yet."""
    found = Image.open(io.BytesIO(reading.content(path, reading.DATA_BYTES)), formats=_FORMATS)
    if math.prod(found.size) > reading.PIXELS:
        raise HauberkError(f"{path} has {found.width} x {found.height} pixels", f"at most {reading.PIXELS:,} in all")
    return found


def _central_square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))
