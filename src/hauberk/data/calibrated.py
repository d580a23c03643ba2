"""A part of the test split to choose on, for models that know the validation images: chosen by hash, never reported."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field

from hauberk.data.dataset import Calibration, Dataset
from hauberk.data.split import Split
from hauberk.data.splits import occurs_once
from hauberk.data.streamed import ImageFiles
from hauberk.errors import HauberkError

SALT = "calibration"


def calibration_hash(sample: int) -> str:
    """SHA-256 of the salt and an id, ``calibration|17``, as 64 hexadecimal digits."""
    return hashlib.sha256(f"{SALT}|{sample}".encode()).hexdigest()


def calibrated(of: Dataset, images: Annotated[int, Field(ge=1, le=10**9)]) -> Dataset:
    r"""A data set whose validation split is a part of its test split, and whose test split is the rest.

    With the hashes :math:`h(i)` of the ids and the border b, the part is :math:`\{i : h(i) \le b\}`, where b is the
    hash of the last image that was asked for.  So the id alone shows whether an image belongs to the part.
    An image that the test split holds twice is not chosen on, and below the border it is not reported either.  The
    former validation images go to the training split: a model from elsewhere may have learnt them.

    Args:
        of: the data set.
        images: how many test images to choose on.

    Returns:
        the data set with other splits; ids of test images are as before, those of the part follow after all others.

    Raises:
        HauberkError: if no test image of the rest would be left.
    """
    test = of.test
    if isinstance(test.images, ImageFiles):
        raise HauberkError(
            f"{of.name} is read from its files as needed, but duplicate images can be found only in memory",
            "put the calibration images into a validation split of their own",
        )
    hashes = [calibration_hash(i) for i in test.ids.tolist()]
    once = occurs_once(test.images.numpy())
    known = sorted(h for h, alone in zip(hashes, once.tolist(), strict=True) if alone)
    if images >= len(known):
        raise HauberkError(
            f"expected fewer calibration images than the {len(known)} single test images of {of.name}, got {images}",
            "choose on some of them and report on the rest",
        )
    border = known[images - 1]
    below = torch.tensor([h <= border for h in hashes])
    seen = [of.train, of.val] if len(of.val) else [of.train]
    offset = 1 + max((int(split.ids.max()) for split in seen if len(split)), default=-1)
    part = test.select(below & torch.from_numpy(once))
    remark = (
        f"{images} test images, chosen by hash, serve calibration and are in no result; "
        f"{len(test) - int(below.sum())} test images are left."
    )
    return replace(
        of,
        train=_joined(seen),
        val=Split("val", part.images, part.labels, part.ids + offset),
        test=test.select(~below),
        remarks=(*of.remarks, remark),
        calibration=Calibration(images, border),
    )


def _joined(splits: list[Split]) -> Split:
    if len(splits) == 1:
        return splits[0]
    images, labels, ids = (torch.cat([getattr(s, name) for s in splits]) for name in ("images", "labels", "ids"))
    return Split("train", images, labels, ids)
