"""Remarks on a data set's images and labels that affect the meaning of results."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch

from hauberk.data.split import Split, SplitName, full_scale
from hauberk.data.streamed import ImageFiles, in_memory

NAMED = 3  # classes or ids that a sentence names, before it counts the rest
UNSEEN = "The images stay in their files until needed: hauberk check looks for broken files and copies across splits."
DARK = 1 / 16  # of the largest value that a pixel can have


def inspected(data: Sequence[Split], classes: Sequence[str]) -> tuple[str, ...]:
    """Sentences about copies, classes without images, images of one value, and values that use little of their range.

    For images that stay in their files only the labels are checked, and a sentence says so.

    Args:
        data: train, val and test.
        classes: the name of each class.
    """
    splits = [s for s in data if len(s)]
    if any(isinstance(s.images, ImageFiles) for s in splits):
        return (*(sentence for s in splits for sentence in _classes_missing(s, classes)), UNSEEN)
    keys = {s.name: pixel_keys(s) for s in splits}
    said = [sentence for s in splits for sentence in _alone(s, keys[s.name], classes)]
    for place, one in enumerate(splits):
        for other in splits[place + 1 :]:
            said += _shared(one, other, keys)
    if not len(data[0]):
        said.append("There are no training images: nothing here shows whether the model has learnt from these.")
    return (*said, *_range(next(s for s in data if len(s))))


def named(names: Sequence[str]) -> str:
    """``a, b, c and 7 more``."""
    few = ", ".join(names[:NAMED])
    return few if len(names) <= NAMED else f"{few} and {len(names) - NAMED} more"


def counted(number: int, one: str, many: str = "") -> str:
    """``1 image``, ``2 images``."""
    return f"{number:,} {one}" if number == 1 else f"{number:,} {many or one + 's'}"


def pixel_keys(split: Split) -> list[bytes]:
    """A hash of each image, by which copies are found."""
    return [hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest() for image in split.images]


def _alone(split: Split, keys: list[bytes], classes: Sequence[str]) -> list[str]:
    """What is to be said of one split."""
    said = _classes_missing(split, classes)
    labels: dict[bytes, set[int]] = {}
    for key, label in zip(keys, split.labels.tolist(), strict=True):
        labels.setdefault(key, set()).add(label)
    torn = sum(len(found) > 1 for found in labels.values())
    if torn:
        said.append(f"{_images(torn, split)} {_one(torn, 'stands', 'stand')} under more than one label.")
    pieces = torch.split(in_memory(split.images).flatten(1), 256)
    flat = sum(int((rows == rows[:, :1]).all(1).sum()) for rows in pieces)
    if flat:
        said.append(f"{_images(flat, split)} {_one(flat, 'has', 'have')} one value in every pixel.")
    return said


def _classes_missing(split: Split, classes: Sequence[str]) -> list[str]:
    """A sentence where classes have no image of a split."""
    said = []
    empty = sorted(set(range(len(classes))) - set(split.labels.tolist()))
    if len(empty) == len(classes) - 1:
        only = classes[int(split.labels[0])]
        said.append(f"All {split.name} images are of one class, {only}: an accuracy here is about no other.")
    elif empty:
        names = named([classes[k] for k in empty])
        said.append(f"The {split.name} split has no image of {counted(len(empty), 'class', 'classes')}: {names}.")
    return said


def _shared(one: Split, other: Split, keys: Mapping[SplitName, list[bytes]]) -> list[str]:
    """Images of one split that another split has too."""
    known = set(keys[one.name])
    copies = [row for row, key in enumerate(keys[other.name]) if key in known]
    if not copies:
        return []
    number, first = len(copies), int(other.ids[copies[0]])
    what = "learnt from" if one.name == "train" else "chosen on"
    return [
        f"{_images(number, other)} {_one(number, 'is', 'are')} in the {one.name} split too, pixel by pixel "
        f"(for example id {first}), of {len(other):,} in all: what is {what} is no fresh test."
    ]


def _range(some: Split) -> list[str]:
    """Values that use little of their range, as 12-bit data in 16 bits do."""
    largest = max(int(part.to(torch.int32).max()) for part in torch.split(in_memory(some.images), 256))
    full = full_scale(some.images)
    if 0 < largest <= DARK * full:
        return [
            f"No pixel of the {some.name} split is brighter than {largest} of {full}: if {largest} or so is white, "
            "scale the values up, since a budget is measured against the full range."
        ]
    return []


def _images(number: int, split: Split) -> str:
    return f"{counted(number, 'image')} of the {split.name} split"


def _one(number: int, one: str, many: str) -> str:
    return one if number == 1 else many
