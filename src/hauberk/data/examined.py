"""Checks of the files of a streamed data set before any is decoded: broken files, sizes, copies across splits."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hauberk.data.image_file import head
from hauberk.data.inspection import counted, named
from hauberk.data.streamed import ImageFiles, in_threads

TAIL = 4096  # bytes at the end of a file by which copies are looked for
AT_ONCE = 4096  # files that are looked at before the next are asked for


@dataclass
class _Seen:
    """What was seen of the files so far."""

    broken: list[str] = field(default_factory=list)
    small: list[str] = field(default_factory=list)
    sizes: set[tuple[int, int]] = field(default_factory=set)


def examined(splits: Mapping[str, ImageFiles]) -> tuple[str, ...]:
    """Sentences on files that cannot be read, on sizes, and on files of one split that another split has too.

    Heads, sizes and the last 4 KiB of all files are read.  Two files are copies if their bytes are the same; only those
    that agree in size and end with a file of another split are read as a whole.  Damage that a head does not show is
    found when the image is decoded.

    Args:
        splits: the files of each, in the order train, val, test.
    """
    seen = _Seen()
    keys = {name: _looked_at(images, seen) for name, images in splits.items()}
    said = []
    if seen.broken:
        said.append(f"{counted(len(seen.broken), 'file')} cannot be read as an image: {named(seen.broken)}.")
    if len(seen.sizes) > 1:
        (w, h), (wide, high) = (pick(seen.sizes, key=math.prod) for pick in (min, max))
        said.append(f"The images come in {len(seen.sizes):,} sizes, from {w}x{h} to {wide}x{high} pixels.")
    if seen.small:
        said.append(f"{counted(len(seen.small), 'image')} of fewer pixels to be made larger: {named(seen.small)}.")
    names = list(splits)
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            said += _copies(one, other, splits, keys)
    return tuple(said)


def _looked_at(images: ImageFiles, seen: _Seen) -> np.ndarray:
    """A key of each file that its copies share, uint64; what else is to be said of it goes to ``seen``."""
    form = images.form

    def one(row: int) -> tuple[tuple[int, int] | None, int]:
        found = head(images.path(row))
        return (None, 0) if found is None else (found[0], _end(images, row))

    keys = np.zeros(len(images), dtype=np.uint64)
    for start in range(0, len(images), AT_ONCE):
        rows = range(start, min(start + AT_ONCE, len(images)))
        for row, (size, key) in zip(rows, in_threads(one, rows), strict=True):
            keys[row] = key
            if size is None:
                seen.broken.append(images.path(row).name)
                continue
            seen.sizes.add(size)
            if min(size) * form.share < form.size:
                seen.small.append(images.path(row).name)
    return keys


def _end(images: ImageFiles, row: int) -> int:
    """The size of a file and its last bytes, hashed to 64 bits."""
    path = images.path(row)
    size = path.stat().st_size
    with path.open("rb") as handle:
        handle.seek(max(0, size - TAIL))
        content = size.to_bytes(8, "little") + handle.read(TAIL)
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _copies(one: str, other: str, splits: Mapping[str, ImageFiles], keys: Mapping[str, np.ndarray]) -> list[str]:
    """A sentence on the files of ``other`` whose bytes are those of a file of ``one``."""
    alike = np.intersect1d(keys[one], keys[other])
    mine, theirs = (
        Counter(_whole(splits[name], int(row)) for row in np.flatnonzero(np.isin(keys[name], alike)))
        for name in (one, other)
    )
    number = sum(count for key, count in theirs.items() if key and key in mine)
    if not number:
        return []
    what = "learnt from" if one == "train" else "chosen on"
    return [f"{counted(number, 'file')} of the {other} split {'is' if number == 1 else 'are'} in the {one} split too, "
            f"byte by byte: what is {what} is no fresh test."]  # fmt: skip


def _whole(images: ImageFiles, row: int) -> bytes:
    """SHA-256 of a file; nothing of one whose head cannot be read."""
    if head(images.path(row)) is None:
        return b""
    with images.path(row).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").digest()
