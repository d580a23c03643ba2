"""The digits that come with scikit-learn: data for a first run, without a download."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from hauberk.data.arrays import Arrays
from hauberk.data.dataset import Dataset
from hauberk.data.splits import split, stratified

TEST_SIZE = 400
VAL_SIZE = 200


def digits() -> Dataset:
    r"""1,797 grey digits of 8x8 pixels, 10 classes: 1,197 train, 200 val, 400 test (Alpaydin & Kaynak 1998).

    The publisher's values :math:`v \in 0..16` become pixels :math:`\lfloor (255 v + 8) / 16 \rfloor`, that is
    :math:`255 v / 16` rounded to the nearest integer, halves up; 0 stays 0 and 16 becomes 255.  The split is stratified
    and fixed by :data:`hauberk.data.splits.SPLIT_SEED`.  An id is the place in scikit-learn's order, so no two
    splits share one.

    Example:
        >>> from hauberk.data import load
        >>> digits = load("digits")
        >>> digits.input_shape, digits.num_classes, len(digits.test)
        ((1, 8, 8), 10, 400)
    """
    source = load_digits()
    images = ((source.images.astype(np.int64) * 255 + 8) // 16).astype(np.uint8)[:, None]
    labels = source.target.astype(np.int64)
    places = np.arange(len(labels))
    for_test = stratified(labels, TEST_SIZE, "test")
    rest = places[~for_test]
    for_val = stratified(labels[rest], VAL_SIZE, "val")
    parts = rest[~for_val], rest[for_val], places[for_test]
    train, val, test = (Arrays(images[p], labels[p]) for p in parts)
    return Dataset(
        "digits",
        tuple(str(k) for k in range(10)),
        split("train", train, parts[0]),
        split("val", val, parts[1]),
        split("test", test, parts[2]),
    )
