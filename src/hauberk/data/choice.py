"""Which images of a split an evaluation takes: a sample in proportion to the classes, or the first ones.

A file that is sorted by class begins with one class, so its first images do not represent the others.  The sample is
chosen by hashes of the ids, reads nothing but ids and labels, and each larger sample holds every smaller one.
"""

from __future__ import annotations

import hashlib
import heapq
from typing import Literal

import torch
from torch import Tensor

Choice = Literal["hashed", "first"]


def id_hash(sample: int) -> bytes:
    """SHA-256 of an id, written as a decimal number in ASCII."""
    return hashlib.sha256(str(sample).encode()).digest()


def proportional_order(ids: Tensor, labels: Tensor) -> Tensor:
    r"""An order of a split whose first N images hold every class in proportion, for each N.

    The images of a class take turns in the order of their hashes.  Of :math:`n` images, :math:`n_k` of class k, the
    r-th of that class (from 0) stands at a place p (from 0) with

    .. math:: \lfloor r n / n_k \rfloor \le p < \lceil (r + 1) n / n_k \rceil ,

    and where several may stand the one that must stand soonest does, by hash at a tie.  With such windows this rule
    always finds a place for all (the earliest deadline first: Baruah et al., Algorithmica 15, 1996), so the first N
    hold :math:`\lfloor N n_k / n \rfloor` or :math:`\lceil N n_k / n \rceil` images of class k.

    Args:
        ids: int64 tensor, shape (n,), unique.
        labels: int64 tensor, shape (n,).

    Returns:
        places in the split, int64 tensor, shape (n,): a permutation.
    """
    hashes = [id_hash(i) for i in ids.tolist()]
    classes: dict[int, list[int]] = {}
    for place, label in enumerate(labels.tolist()):
        classes.setdefault(label, []).append(place)
    n = len(hashes)
    windows = []  # first place, end, hash, position in the split
    for members in classes.values():
        members.sort(key=hashes.__getitem__)
        for r, place in enumerate(members):
            windows.append((r * n // len(members), -(-(r + 1) * n // len(members)), hashes[place], place))
    windows.sort()
    waiting: list[tuple[int, bytes, int]] = []
    order, opened = [], 0
    for turn in range(n):
        while opened < n and windows[opened][0] <= turn:
            heapq.heappush(waiting, windows[opened][1:])
            opened += 1
        order.append(heapq.heappop(waiting)[2])
    return torch.tensor(order, dtype=torch.int64)


def chosen(ids: Tensor, labels: Tensor, images: int | None = None, choice: Choice = "hashed") -> Tensor:
    """The images that an evaluation takes, in the order in which it takes them.

    Args:
        ids: int64 tensor, shape (n,), unique.
        labels: int64 tensor, shape (n,).
        images: how many; None for all.
        choice: ``hashed``, in proportion to the classes (:func:`proportional_order`), or ``first``, the first of the
            split, in the order of their ids.

    Returns:
        places in the split, int64 tensor, shape (images,).
    """
    if choice == "first":
        return ids[:images].argsort()
    return proportional_order(ids, labels)[:images]
