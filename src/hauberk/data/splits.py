"""Which images are held out: chosen by hashes, so that the choice never changes with a library or a machine."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import torch

from hauberk.data.arrays import Arrays
from hauberk.data.dataset import Dataset, learnable
from hauberk.data.split import Split, SplitName
from hauberk.data.streamed import ImageFiles
from hauberk.errors import HauberkError

SPLIT_SEED = 0
VAL_SIZE = 1000


def hash_keys(count: int, purpose: str, seed: int = SPLIT_SEED) -> np.ndarray:
    """A 64-bit BLAKE2 hash of (seed, purpose, place) for each place in 0..count-1, shape (count,), uint64."""
    head = f"{seed}|{purpose}|"
    digests = [hashlib.blake2b(f"{head}{i}".encode(), digest_size=8).digest() for i in range(count)]
    return np.frombuffer(b"".join(digests), dtype="<u8")


def occurs_once(images: np.ndarray) -> np.ndarray:
    """Which images have no exact copy among the others, shape (N,), boolean."""
    digests = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]
    counts = Counter(digests)
    return np.array([counts[digest] == 1 for digest in digests], dtype=bool)


def stratified(
    labels: np.ndarray, size: int, purpose: str, seed: int = SPLIT_SEED, eligible: np.ndarray | None = None
) -> np.ndarray:
    """Choose ``size`` places so that every class has its share: its members with the smallest hashes.

    Shares are rounded by the largest remainder (first class first at a tie), and a class gives up its last member
    only where nothing else is left.

    Args:
        labels: integer array, shape (N,).
        size: how many to choose, 0..N-1.
        purpose: what they are chosen for; different purposes are independent.
        seed: the seed of the split.
        eligible: boolean mask, shape (N,), of the places that may be chosen; by default all.

    Returns:
        boolean mask, shape (N,), with exactly ``size`` entries true.

    Raises:
        HauberkError: if that would leave nothing.
    """
    places = np.arange(len(labels)) if eligible is None else np.flatnonzero(eligible)
    total = max(1, len(places))
    if not 0 <= size < total:
        raise HauberkError(
            f"expected to hold out between 0 and {total - 1} of {len(places)} images"
            f"{'' if eligible is None else ' that are not in the test split too'}, got {size}",
            "choose a smaller val_size",
        )
    classes, counts = np.unique(labels[places], return_counts=True)
    take, remainder = np.divmod(size * counts, total)
    last_goes = counts - take <= 1
    take[np.lexsort((-remainder, last_goes))[: size - take.sum()]] += 1
    keys = hash_keys(len(labels), purpose, seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for k, wanted in zip(classes, take, strict=True):
        members = places[labels[places] == k]
        chosen[members[np.argsort(keys[members], kind="stable")[:wanted]]] = True
    return chosen


def tenth(count: int) -> int:
    """How many of that many train images are held out where nobody says: a tenth, ``VAL_SIZE`` at most."""
    return min(VAL_SIZE, count // 10)


def split(name: SplitName, arrays: Arrays, ids: np.ndarray) -> Split:
    """The split of those arrays."""
    # torch refuses to promise anything about read-only arrays, which is what files are read into
    images = np.require(arrays.images, requirements=["C", "W"])
    labels = np.require(arrays.labels, dtype=np.int64, requirements=["C", "W"])
    return Split(name, torch.from_numpy(images), torch.from_numpy(labels), torch.from_numpy(ids.astype(np.int64)))


def in_files(
    name: str, classes: tuple[str, ...], images: ImageFiles, labels: np.ndarray, part: np.ndarray, ids: np.ndarray,
    remarks: tuple[str, ...] = (), pictures: bool = True,
) -> Dataset:
    """A data set whose images stay in their files.

    Args:
        name: the data set's name.
        classes: the name of each class.
        images: all of them.
        labels: integer array, shape (N,).
        part: 0 for train, 1 for val, 2 for test, shape (N,).
        ids: integer array, shape (N,).
        remarks: what the loader changed or passed over.
        pictures: whether records and pages may hold some of them.
    """
    numbers, own = (torch.from_numpy(values.astype(np.int64)) for values in (labels, ids))
    rows = [torch.from_numpy(np.flatnonzero(part == number)) for number in range(3)]
    names: tuple[SplitName, ...] = ("train", "val", "test")
    train, val, test = (Split(n, images[r], numbers[r], own[r]) for n, r in zip(names, rows, strict=True))
    return learnable(Dataset(name, classes, train, val, test, remarks, pictures=pictures))


def assemble(
    name: str,
    classes: tuple[str, ...],
    train: Arrays,
    test: Arrays,
    val: Arrays | None = None,
    val_size: int = 0,
    remarks: tuple[str, ...] = (),
) -> Dataset:
    """A data set from the publisher's arrays.

    Ids are places in the publisher's order: of train followed by val where there is a val, of train alone where val
    is held out of it, and of test for test.

    Args:
        name: the data set's name.
        classes: the name of each class.
        train: what the publisher trains on.
        test: what the publisher tests on; passed on untouched.
        val: the publisher's validation images, if there are any.
        val_size: how many of ``train`` to hold out, stratified, where there are none; an image that the publisher
            has twice is not held out, since its copy would be learnt from.
        remarks: what the loader changed or passed over.
    """
    ids = np.arange(len(train.labels))
    if val is not None:
        val_ids = len(ids) + np.arange(len(val.labels))
        parts = split("train", train, ids), split("val", val, val_ids)
    else:
        held = stratified(train.labels, val_size, "val", eligible=occurs_once(train.images))
        parts = (
            split("train", Arrays(train.images[~held], train.labels[~held]), ids[~held]),
            split("val", Arrays(train.images[held], train.labels[held]), ids[held]),
        )
    return Dataset(name, classes, *parts, split("test", test, np.arange(len(test.labels))), remarks)
