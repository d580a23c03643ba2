"""Images with labels in three splits that never share a sample."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hauberk import registry
from hauberk.data.examined import examined
from hauberk.data.inspection import inspected, named
from hauberk.data.provenance import Provenance
from hauberk.data.split import Split, SplitName, full_scale
from hauberk.data.streamed import ImageFiles
from hauberk.errors import HauberkError

MEASURED = 2048  # images in files over which means and deviations are taken


@dataclass(frozen=True)
class Calibration:
    """The part of the test split that choices are made on, see :func:`hauberk.data.calibrated.calibrated`.

    Args:
        images: how many.
        border: the largest hash of an id of the part; no image of the test split has a smaller one.
    """

    images: int
    border: str


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set with its three splits.

    Args:
        name: what records and reports call it.
        classes: the name of each class, in the order of the labels.
        train: the images for training; empty where the images are only for evaluation.
        val: what choices are made on (early stopping, alpha); shares no sample with ``train``.
        test: what results are reported on; the publisher's own test images, where there are any.
        remarks: what its loader changed or passed over, in sentences.
        calibration: the test images that ``val`` was taken from, where it was.
        pictures: whether records and pages may hold some of the images; not where a licence forbids to pass them on.
        provenance: of the training images, where they are generated.

    Raises:
        HauberkError: if the splits differ in image shape or depth, share a sample, or hold a label without a class, or
            two classes have one name.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    remarks: tuple[str, ...] = ()
    calibration: Calibration | None = None
    pictures: bool = True
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise HauberkError(
                f"{self.name}: expected at least two classes, got {self.num_classes}",
                "check the labels",
            )
        twice = [name for name, count in Counter(self.classes).items() if count > 1]
        if twice:
            raise HauberkError(f"{self.name}: two classes are called {twice[0]!r}", "give each class a name of its own")
        check_splits(self.name, {s.name: (s.images, s.ids) for s in (self.train, self.val, self.test)})
        for split in (self.train, self.val, self.test):
            _check_labels(split, self.num_classes)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Remarks on these images that affect the meaning of results, in sentences; see ``inspected``."""
        kept = () if self.pictures else ("Their licence forbids to pass the images on: records and pages hold none.",)
        return (*self.remarks, *kept, *inspected((self.train, self.val, self.test), self.classes))

    def examined(self) -> tuple[str, ...]:
        """Remarks on the files of images that stay in files, in sentences; see ``hauberk.data.examined``."""
        parts = {s.name: s.images for s in (self.train, self.val, self.test)}
        return examined({name: images for name, images in parts.items() if isinstance(images, ImageFiles)})

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return len(self.classes)

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel over the train split, [0, 1] pixel scale; over some of it where images are in files."""
        return self._statistics[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel over the train split, [0, 1] scale; 1 for a constant channel."""
        return self._statistics[1]

    @cached_property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        images = self.train.images
        if isinstance(images, ImageFiles):  # evenly spread, so of every class where they are sorted by it
            images = images[torch.arange(min(MEASURED, len(images))) * len(images) // min(MEASURED, len(images))].read()
        return channel_statistics(images)


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, from exact counts of the pixel values.

    Args:
        images: uint8 or uint16 tensor, shape (N, C, H, W), N >= 1.

    Returns:
        means and standard deviations, [0, 1] pixel scale; a constant channel gets 1 so that dividing by it is safe.
    """
    white = full_scale(images)
    values = torch.arange(white + 1, dtype=torch.float64) / white
    means, deviations = [], []
    for channel in range(images.shape[1]):
        counts = torch.zeros(white + 1, dtype=torch.int64)
        for start in range(0, len(images), 4096):  # in pieces, because counting widens integers to 64 bits
            counts += torch.bincount(images[start : start + 4096, channel].flatten().long(), minlength=white + 1)
        weights = counts.double() / counts.sum()
        mean = (weights * values).sum()
        variance = (weights * (values - mean) ** 2).sum()
        means.append(float(mean))
        deviations.append(float(variance.sqrt()) if int((counts > 0).sum()) > 1 else 1.0)
    return tuple(means), tuple(deviations)


def load(description: dict[str, Any] | str, root: Path | None = None) -> Dataset:
    """Load a registered data set by its description.

    Args:
        description: ``{"name": "cifar10", "val_size": 5000}`` or a bare name; see ``hauberk list datasets``.
        root: the folder that holds the files, unless the description names one; without either the environment
            variable ``HAUBERK_DATA``, and without that ``./data``.

    Raises:
        HauberkError: on an unknown name or setting, a missing, damaged or foreign file.

    Example:
        >>> from hauberk.data import load
        >>> batch = load("digits").test.batch(slice(0, 4))
        >>> tuple(batch.images.shape), batch.labels.tolist()
        ((4, 1, 8, 8), [2, 1, 2, 3])
    """
    plain = {"name": description} if isinstance(description, str) else description
    found = registry.entry(str(plain.get("name", "")), "dataset")
    takes_root = "root" in inspect.signature(found.load()).parameters
    context = {"root": root} if root is not None and takes_root and "root" not in plain else {}
    dataset = registry.build(plain, kind="dataset", **context)
    if not isinstance(dataset, Dataset):
        raise HauberkError(
            f"expected {found.path} to return a hauberk.data.Dataset, got {type(dataset).__name__}",
            "a registered data set is a function that returns one",
        )
    return dataset


# --- checks at the boundary -----------------------------------------------------------------------------------


def check_splits(name: str, splits: Mapping[SplitName, tuple[Tensor | ImageFiles, Tensor]]) -> None:
    """Raise unless the splits, given as (images, ids), are three and alike, and train and val share no id."""
    if list(splits) != ["train", "val", "test"]:
        raise HauberkError(f"{name}: expected the splits train, val and test in that order, got {list(splits)}",
                           "name them so, in this order")  # fmt: skip
    shapes = {key: tuple(images.shape[1:]) for key, (images, _) in splits.items()}
    if len(set(shapes.values())) > 1:
        raise HauberkError(f"{name}: expected one image shape, got {shapes}", "resize the images first")
    depths = {key: images.dtype for key, (images, _) in splits.items()}
    if len(set(depths.values())) > 1:
        raise HauberkError(
            f"{name}: expected one depth, got {depths}", "to turn 8-bit values into 16-bit values, multiply them by 257"
        )
    if not len(splits["test"][0]):
        raise HauberkError(f"{name}: the test split is empty", "add images to it")
    shared = np.intersect1d(splits["train"][1].numpy(), splits["val"][1].numpy())
    if len(shared):
        raise HauberkError(
            f"{name}: train and val share {len(shared)} samples, for example id {shared[0]}",
            "remove them from one of the two: a training sample cannot be used for validation",
        )


def learnable(dataset: Dataset) -> Dataset:
    """A user's own data set; raises if a class has no training image."""
    missing = sorted(set(range(dataset.num_classes)) - set(dataset.train.labels.tolist()))
    if missing and len(dataset.train):
        raise HauberkError(
            f"{dataset.name}: no training image is of class {named([dataset.classes[k] for k in missing])}",
            "add images of that class, or leave the class out and number the others from 0",
        )
    return dataset


def _check_labels(split: Split, num_classes: int) -> None:
    if len(split) and (int(split.labels.min()) < 0 or int(split.labels.max()) >= num_classes):
        raise HauberkError(
            f"{split.name}: expected labels in 0..{num_classes - 1}, "
            f"got {int(split.labels.min())}..{int(split.labels.max())}",
            "count classes from 0 and give a name to each of them",
        )
