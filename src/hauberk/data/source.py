"""Where training batches come from: the training split, and other splits that have a share of every batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from hauberk.batch import Batch
from hauberk.data.dataset import Dataset
from hauberk.data.inspection import counted, pixel_keys
from hauberk.data.provenance import Provenance
from hauberk.data.sampler import epoch_batches
from hauberk.data.split import Split
from hauberk.data.streamed import Ahead, ImageFiles
from hauberk.errors import HauberkError
from hauberk.randomness import stream


@dataclass(frozen=True, eq=False)
class Part:
    """A split beside the training split.

    Args:
        name: of its data set.
        split: its images.
        share: of every batch, in (0, 1).
        provenance: where the images come from, if they are generated.
    """

    name: str
    split: Split
    share: float
    provenance: Provenance | None = None

    def __str__(self) -> str:
        """What a checkpoint compares, for example ``0.7 of cifar_edm, 1000000 images, labels 3f2a``."""
        content = "" if self.provenance is None else f", content {self.provenance.content}"
        return f"{self.share:g} of {self.name}, {described(self.split)}{content}"


class Source:
    """Batches of the training split, mixed with rows of other splits; a function of the seed and the epoch only.

    An epoch is one pass over the training split, in an order of its own, whatever the shares of the others are.  Rows
    of the others are drawn uniformly, with replacement.  The rows of a batch are shuffled, so that every process gets
    the mixture.  Sample ids stay unique: the j-th image of the others, counted through all of them, has the id -1 - j,
    or one as far below the smallest of the training split.

    Args:
        dataset: its training split is learnt.
        parts: the others.
        batch_size: rows of a batch.
        seed: the run's seed.
        steps: batches of an epoch; 0 is all of them.
        device: where the integer images are kept, so that each step gathers its rows there.

    Raises:
        HauberkError: if a split gets no row of a batch, its images have another shape, or an epoch has fewer batches.
    """

    def __init__(
        self, dataset: Dataset, parts: Sequence[Part], batch_size: int, seed: int, steps: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        train = dataset.train
        for part in parts:
            if part.split.image_shape != train.image_shape:
                raise HauberkError(
                    f"the images of {part.name} have the shape {part.split.image_shape}, expected {train.image_shape}",
                    "resize them first",
                )
        self.counts = [round(part.share * batch_size) for part in parts]
        self.own = batch_size - sum(self.counts)
        if self.own < 1 or 0 in self.counts:
            raise HauberkError(
                f"a batch of {batch_size} has {self.own} rows of the training split and {self.counts} of the others",
                "choose shares whose sum is below 1, or a larger batch_size",
            )
        most = len(train) // self.own
        if steps > most > 0:
            raise HauberkError(
                f"an epoch of {len(train)} training images has {most} batches, but {steps} were requested",
                "set steps_per_epoch to 0 to use every batch, and epochs to the number of passes over the images",
            )
        self.seed, self.steps = seed, steps
        self.firsts = list(accumulate((len(part.split) for part in parts), initial=len(train)))  # place of each part
        lowest = min([0, *train.ids.tolist()]) + len(train)
        ids = [lowest - 1 - torch.arange(first, end) for first, end in pairwise(self.firsts)]
        others = [Split("train", p.split.images, p.split.labels, own) for p, own in zip(parts, ids, strict=True)]
        self.splits = [split.to(device) for split in (train, *others)]
        streams = any(isinstance(split.images, ImageFiles) for split in self.splits)
        self._ahead = Ahead(self._batch) if streams else None
        self.name = "; ".join([f"{dataset.name}, {described(train)}", *map(str, parts)])

    def __str__(self) -> str:
        """What a checkpoint compares: names, numbers of images, shares, and hashes of the labels."""
        return self.name

    def batches(self, epoch: int) -> list[Tensor]:
        """The batches of an epoch, as places in the splits laid end to end, int64.

        Where images are in files, ``batch`` reads the next one of the last list while the present one is used.
        """
        found = self._batches(epoch)
        if self._ahead is not None:
            self._ahead.follow(found)
        return found

    def _batches(self, epoch: int) -> list[Tensor]:
        found = list(epoch_batches(len(self.splits[0]), self.own, self.seed, epoch))[: self.steps or None]
        if not self.counts:
            return found
        columns = [torch.stack(found).numpy()]
        for number, (limits, count) in enumerate(zip(pairwise(self.firsts), self.counts, strict=True)):
            columns.append(stream(self.seed, epoch, f"rows of part {number}").integers(*limits, (len(found), count)))
        mixed = stream(self.seed, epoch, "order in batches").permuted(np.concatenate(columns, 1), axis=1)
        return list(torch.from_numpy(mixed))

    def batch(self, index: Tensor) -> Batch:
        """The rows at some places, as floats, on the source's device."""
        return self._batch(index) if self._ahead is None else self._ahead.get(index)

    def _batch(self, index: Tensor) -> Batch:
        index = index.to(self.splits[0].images.device)
        if not self.counts:
            return self.splits[0].batch(index)
        rows, parts = [], []
        for split, (first, end) in zip(self.splits, pairwise([0, *self.firsts]), strict=True):
            rows.append(((index >= first) & (index < end)).nonzero().flatten())
            parts.append(split.batch(index[rows[-1]] - first))
        order = torch.cat(rows).argsort()
        joined = (torch.cat([getattr(part, name) for part in parts]) for name in ("images", "labels", "ids"))
        return Batch(*joined).select(order)


def parts_of(dataset: Dataset, others: Sequence[tuple[Dataset, float]]) -> tuple[Part, ...]:
    """The training splits of other data sets as parts of a source.

    Args:
        dataset: the one that is learnt.
        others: data sets of the same classes, each with its share of a batch.

    Raises:
        HauberkError: if the classes differ, or an image is one of the data set's validation or test images.
    """
    held = {key for split in (dataset.val, dataset.test) for key in pixel_keys(split)} if others else set()
    for other, _ in others:
        numbers = tuple(str(k) for k in range(dataset.num_classes))
        if other.classes not in {dataset.classes, numbers}:
            raise HauberkError(
                f"{other.name} has other classes than {dataset.name}", "give both the same classes in the same order"
            )
        copies = sum(key in held for key in pixel_keys(other.train))
        if copies:
            raise HauberkError(
                f"{counted(copies, 'training image')} of {other.name} are validation or test images of {dataset.name}",
                "remove them: validation and test images must not be trained on",
            )
    return tuple(Part(other.name, other.train, share, other.provenance) for other, share in others)


def described(split: Split) -> str:
    """How many images and which labels: what a checkpoint compares."""
    labels = hashlib.sha256(split.labels.cpu().numpy().tobytes()).hexdigest()[:12]
    return f"{len(split)} training images, labels {labels}"
