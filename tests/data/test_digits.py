from fractions import Fraction
from math import floor

import numpy as np
import torch
from sklearn.datasets import load_digits

from hauberk.data import load


def test_scaling_is_the_documented_one():
    dataset = load("digits")
    source = load_digits().images
    exact = {v: floor(Fraction(255 * v, 16) + Fraction(1, 2)) for v in range(17)}
    assert exact[16] == 255
    for part in (dataset.train, dataset.val, dataset.test):
        expected = np.vectorize(exact.get)(source[part.ids.numpy()].astype(int))
        assert np.array_equal(part.images[:, 0].numpy(), expected)


def test_split_is_fixed_stratified_and_complete(fingerprints):
    dataset = load("digits")
    assert dataset.input_shape == (1, 8, 8)
    parts = (dataset.train, dataset.val, dataset.test)
    assert [len(p) for p in parts] == [1197, 200, 400]
    assert torch.equal(torch.cat([p.ids for p in parts]).sort().values, torch.arange(1797))
    counts = np.bincount(load_digits().target)
    for part in parts:
        share = counts * len(part) / 1797
        assert (np.abs(np.bincount(part.labels.numpy()) - share) < 1.5).all()
    train, val, test = (fingerprints(p) for p in parts)
    assert not train & val
    assert not (train | val) & test


def test_labels_belong_to_their_images():
    target = load_digits().target
    for part in (load("digits").train, load("digits").test):
        assert np.array_equal(part.labels.numpy(), target[part.ids.numpy()])


def test_loading_twice_gives_the_same():
    assert torch.equal(load("digits").test.ids, load("digits").test.ids)
