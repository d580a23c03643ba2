"""Generated images in the place of training images: labelled, filtered, judged, and compared with the data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from hauberk.boundary import answer, check_classes, check_logits
from hauberk.classifier import evaluating, predictor_name
from hauberk.data.dataset import Dataset
from hauberk.data.inspection import counted, pixel_keys
from hauberk.data.provenance import Provenance
from hauberk.data.split import Split
from hauberk.data.streamed import ImageFiles, in_memory
from hauberk.errors import HauberkError

ROWS = 512  # images that a model or a comparison sees at once
LOOKED_AT = 1000  # generated images whose neighbours are looked for
NEAR = 4 / 255  # root of the mean squared difference of two pixels, below which an image is a near copy
TRACE = 8  # bytes of a training image's hash that a file of samples keeps


@dataclass(frozen=True)
class Check:
    """How generated images are labelled, filtered and judged.

    Args:
        labeller: a classifier whose classes become the labels.
        judge: a classifier that was trained on real images and is compared with the labels.
        least: the share of labels that it has to agree with.
        keep: the share of each class that is kept, the images of which the judge (without one the labeller) is surest.
    """

    labeller: nn.Module | None = None
    judge: nn.Module | None = None
    least: float = 0.8
    keep: float = 1.0

    @property
    def chooser(self) -> nn.Module | None:
        """The classifier that chooses the images to keep."""
        return self.labeller if self.judge is None else self.judge

    def __post_init__(self) -> None:
        if self.keep < 1.0 and self.chooser is None:
            raise HauberkError(
                "keep needs a judge or a labeller that chooses the images", "give a judge, or leave keep out"
            )


def replaced(
    of: Dataset, images: Tensor, labels: Tensor | None, provenance: Provenance, check: Check,
    seen: np.ndarray | None = None,
) -> Dataset:  # fmt: skip
    """The data set with generated images in the place of its training images; validation and test stay as they are.

    Args:
        of: the data set.
        images: uint8, shape (N, C, H, W).
        labels: int64, shape (N,); None where the labeller gives them.
        provenance: what is known before the images are looked at.
        check: how they are labelled, filtered and judged.
        seen: hashes of the images that the generator has learnt from (``traces``).

    Raises:
        HauberkError: if the images do not fit the data, one of them is a validation or test image, the generator has
            learnt from such images, or the judge does not agree with enough of the labels.
    """
    if isinstance(of.train.images, ImageFiles):
        raise HauberkError(
            f"{of.name} is read from its files as needed",
            "use data that fits into memory: generated images are compared with it",
        )
    _check_form(of, images)
    _check_unseen(of, seen)
    given = _labelled(images, labels, check)
    if len(given) and not 0 <= int(given.min()) <= int(given.max()) < of.num_classes:
        raise HauberkError(
            f"the labels of generated images are in {int(given.min())}..{int(given.max())}, expected "
            f"0..{of.num_classes - 1}", f"{of.name} has {of.num_classes} classes",
        )  # fmt: skip
    split = Split("train", images, given, -1 - torch.arange(len(images)))
    known = provenance if check.labeller is None else replace(
        provenance, labels="labeller", labeller=predictor_name(check.labeller),
        labeller_accuracy=_accuracy(check.labeller, of.val),
    )  # fmt: skip
    if check.judge is not None:
        agreement = _accuracy(check.judge, split)
        known = replace(known, judge=predictor_name(check.judge), agreement=agreement,
                        judge_accuracy=_accuracy(check.judge, of.val))  # fmt: skip
        if agreement is None or agreement < check.least:
            raise HauberkError(
                f"the judge agrees with {agreement or 0:.1%} of the labels of generated images, expected "
                f"{check.least:.0%} at least", "train the generator longer, or train it with conditional: true",
            )  # fmt: skip
    if check.chooser is not None and check.keep < 1.0:
        split = split.select(surest(check.chooser, split, check.keep))
        who = "labeller" if check.judge is None else "judge"
        known = replace(known, filter=f"the {check.keep:.0%} of each class that the {who} is surest of")
    looked = _looked_at(of, split, known)
    name = f"{known.generator}_of_{of.name}"
    return replace(of, name=name, train=split, remarks=(*of.remarks, *looked.sentences(name)), provenance=looked)


def traces(split: Split) -> np.ndarray:
    """The first bytes of the hash of each image, sorted, uint64, shape (N,): the record of training images."""
    keys = b"".join(key[:TRACE] for key in pixel_keys(split))
    return np.sort(np.frombuffer(keys, dtype="<u8"))


@torch.no_grad()
def probabilities(model: nn.Module, split: Split) -> Iterator[Tensor]:
    """The classifier's probabilities on the images of a split, in pieces of shape (B, K)."""
    with evaluating(model):
        for start in range(0, len(split), ROWS):
            images = split.batch(slice(start, start + ROWS)).images.contiguous()
            logits = answer(model, images)
            check_logits(logits, len(images))
            yield logits.softmax(1)


def surest(model: nn.Module, split: Split, keep: float) -> Tensor:
    """The places of the share of each class whose label has the highest probabilities, in the order of the split."""
    found = torch.cat([*probabilities(model, split)]).gather(1, split.labels[:, None])[:, 0]
    kept = torch.zeros(len(split), dtype=torch.bool)
    for k in sorted(set(split.labels.tolist())):
        members = (split.labels == k).nonzero()[:, 0]
        order = found[members].argsort(descending=True, stable=True)
        kept[members[order[: max(1, round(keep * len(members)))]]] = True
    return kept.nonzero()[:, 0]


@torch.no_grad()
def nearest_distances(images: Tensor, to: Tensor) -> Tensor:
    """The L2 distance, in pixels of [0, 1], from each image to the nearest of others; (N, C, H, W) to (N,)."""
    others = to.flatten(1).float() / 255.0
    lengths = others.square().sum(1)
    found = []
    for rows in torch.split(images.flatten(1), ROWS):
        own = rows.float() / 255.0
        nearest = (lengths - 2.0 * own @ others.T).argmin(1)
        found.append((own - others[nearest]).square().sum(1).sqrt())  # again, since the difference above cancels
    return torch.cat(found)


# --- parts ------------------------------------------------------------------------------------------------------


def _check_form(of: Dataset, images: Tensor) -> None:
    if not len(images):
        raise HauberkError("there are no generated images", "ask for at least one")
    if tuple(images.shape[1:]) != of.input_shape or images.dtype != of.test.images.dtype:
        raise HauberkError(
            f"generated images are {images.dtype} of shape {tuple(images.shape[1:])}, those of {of.name} "
            f"{of.test.images.dtype} of shape {of.input_shape}", "give images of that type and shape",
        )  # fmt: skip


def _check_unseen(of: Dataset, seen: np.ndarray | None) -> None:
    """Raise if a generator has learnt from validation or test images."""
    for split in (of.val, of.test):
        known = 0 if seen is None or not len(split) else int(np.isin(traces(split), seen).sum())
        if known:
            raise HauberkError(
                f"the generator has learnt from {counted(known, f'{split.name} image')} of {of.name}",
                "train it on the training split of the same description of the data",
            )


def _labelled(images: Tensor, labels: Tensor | None, check: Check) -> Tensor:
    if check.labeller is None:
        if labels is None:
            raise HauberkError("the generated images have no labels", "give a labeller: {name: run, path: runs/NAME}")
        return labels
    none = Split("train", images, torch.zeros(len(images), dtype=torch.int64), torch.arange(len(images)))
    return torch.cat([p.argmax(1) for p in probabilities(check.labeller, none)])


def _accuracy(model: nn.Module, split: Split) -> float | None:
    """The share of labels that a classifier gives too; None of no images."""
    if not len(split):
        return None
    found = torch.cat([*probabilities(model, split)])
    check_classes(found.shape[1], int(split.labels.max()) + 1)
    return float((found.argmax(1) == split.labels).double().mean())


def _looked_at(of: Dataset, split: Split, known: Provenance) -> Provenance:
    """The provenance with what the images themselves say.

    Raises:
        HauberkError: if one of them is a validation or test image.
    """
    keys = pixel_keys(split)
    held = {key for part in (of.val, of.test) for key in pixel_keys(part)}
    copies = sum(key in held for key in keys)
    if copies:
        raise HauberkError(
            f"copies among generated images: {counted(copies, 'validation or test image')} of {of.name}",
            "use another generator: validation and test images must not be trained on",
        )
    own = set(pixel_keys(of.train))
    digest = hashlib.blake2b(b"".join(keys) + split.labels.numpy().tobytes(), digest_size=16).hexdigest()
    return replace(
        known,
        images=len(split),
        classes=tuple(torch.bincount(split.labels, minlength=of.num_classes).tolist()),
        train_copies=sum(key in own for key in keys),
        nearest=_neighbours(of, split),
        content=digest,
    )


def _neighbours(of: Dataset, split: Split) -> dict[str, float]:
    """Distances of some of the images, evenly spread, to the nearest training and held-out images."""
    count = min(LOOKED_AT, len(split))
    some = in_memory(split.images[torch.arange(count) * len(split) // count])
    if some.dtype != torch.uint8 or not len(of.train):
        return {}
    held = torch.cat([in_memory(of.val.images), in_memory(of.test.images)])
    found = {"train": nearest_distances(some, in_memory(of.train.images)), "held_out": nearest_distances(some, held)}
    limit = NEAR * some[0].numel() ** 0.5
    said = {f"{name}_{what}": float(value) for name, d in found.items()
            for what, value in (("least", d.min()), ("median", d.median()))}  # fmt: skip
    return {"looked_at": float(count), **said, "near_copies": float((found["held_out"] <= limit).sum())}
