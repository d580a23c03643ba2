"""Images that stay in their files: a batch's are decoded when it is asked for, so memory does not grow with the set."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from hauberk.data.image_file import Form, decoded
from hauberk.errors import HauberkError

T = TypeVar("T")
AT_ONCE = 64  # images that are decoded before any of them is handed on, where a whole split is gone through
THREADS = 8  # that decode one batch, at most


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Images of one form in files, with the interface of a uint8 array (N, C, H, W).

    Args:
        folder: of the files.
        names: their paths below it, UTF-8 bytes, shape (N,).
        form: what every image is brought to.
    """

    folder: Path
    names: np.ndarray
    form: Form

    dtype = torch.uint8
    device = torch.device("cpu")  # where they are read

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Number, channels, height and width."""
        return len(self.names), self.form.channels, self.form.size, self.form.size

    def dim(self) -> int:
        """Four axes."""
        return 4

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Tensor | slice) -> ImageFiles:
        """Rows by slice, integer index or boolean mask of shape (N,); nothing is read."""
        rows = index if isinstance(index, slice) else index.cpu().numpy()
        return ImageFiles(self.folder, self.names[rows], self.form)

    def __iter__(self) -> Iterator[Tensor]:
        """Each image, uint8, shape (C, H, W); a few are in memory at a time."""
        for start in range(0, len(self), AT_ONCE):
            yield from self[slice(start, start + AT_ONCE)].read()

    def path(self, row: int) -> Path:
        """The file of one image."""
        return self.folder / bytes(self.names[row]).decode()

    def read(self) -> Tensor:
        """All images, uint8, shape (N, C, H, W), decoded by as many threads as there are processors, 8 at most.

        The result does not depend on the threads.

        Raises:
            HauberkError: naming a file that is missing or damaged, or has 16 bits a channel.
        """
        found = torch.empty(self.shape, dtype=torch.uint8)  # on the CPU: files are decoded there

        def one(row: int) -> None:
            pixels = decoded(self.path(row), self.form).pixels
            if pixels.dtype != np.uint8:
                raise HauberkError(f"{self.path(row)} has 16 bits a channel", "convert it: streamed images must have 8")
            found[row] = torch.from_numpy(np.array(pixels))

        in_threads(one, range(len(self)))
        return found


class Ahead(Generic[T]):
    """Batches of a series, each read by a thread while the one before it is used; what they hold does not change.

    Args:
        read: gives the batch at some places.
    """

    def __init__(self, read: Callable[[Tensor], T]) -> None:
        self._read, self._pool = read, ThreadPoolExecutor(1, "hauberk-ahead")
        self._series: Sequence[Tensor] = ()
        self._following: dict[int, Tensor] = {}
        self._begun: tuple[Tensor, Future[T]] | None = None

    def follow(self, series: Sequence[Tensor]) -> None:
        """Set the order of the batches."""
        self._series = series  # kept, so that no other tensor gets the identity of one of these
        self._following = {id(one): other for one, other in pairwise(series)}

    def get(self, index: Tensor) -> T:
        """The batch at some places; the one that follows is begun.  An error is raised when its batch is asked for."""
        begun, self._begun = self._begun, None
        found = begun[1].result() if begun is not None and begun[0] is index else self._read(index)
        following = self._following.get(id(index))
        if following is not None:
            self._begun = following, self._pool.submit(self._read, following)
        return found


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(work: Callable[[int], T], rows: Sequence[int]) -> list[T]:
    """What a function gives for each row, in their order; the first error of a row is raised."""
    threads = min(THREADS, cores(), len(rows))
    if threads < 2:
        return [work(row) for row in rows]
    with ThreadPoolExecutor(threads, "hauberk-decode") as pool:
        return list(pool.map(work, rows))


def in_memory(images: Tensor | ImageFiles) -> Tensor:
    """The images themselves, read now if they are in files."""
    return images.read() if isinstance(images, ImageFiles) else images


def names_array(names: Sequence[str]) -> np.ndarray:
    """Paths as one array of bytes, which takes the length of the longest for each."""
    return np.array([name.encode() for name in names], dtype=np.bytes_)
