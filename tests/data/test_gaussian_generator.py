"""A Gaussian a class: moments against numpy's, the same images from the same seed, nothing but training images."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hauberk.data import Dataset, Split, load
from hauberk.data.gaussian_generator import fitted, gaussian_generator
from hauberk.errors import HauberkError


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


def test_the_root_is_one_of_the_covariance():
    points = np.random.default_rng(0).normal(size=(30, 5)) @ np.diag([3.0, 2.0, 1.0, 0.5, 0.1])
    mean, root = fitted(points, None)
    assert np.allclose(mean, points.mean(0))
    assert np.allclose(root.T @ root, np.cov(points.T))


@pytest.mark.parametrize("components", [1, 2, 4])
def test_components_are_the_principal_axes(components):
    points = np.random.default_rng(1).normal(size=(30, 5)) @ np.diag([3.0, 2.0, 1.0, 0.5, 0.1])
    root = fitted(points, components)[1]
    _, s, v = np.linalg.svd(points - points.mean(0))
    expected = sum(s[k] ** 2 / 29 * np.outer(v[k], v[k]) for k in range(components))
    assert root.shape == (components, 5)
    assert np.allclose(root.T @ root, expected)


def test_drawn_images_have_the_moments_of_the_training_images():
    """On data in the middle of the box, which no draw leaves, mean and covariance are those of the training split."""
    dice = np.random.default_rng(2)
    values = dice.normal(128, 12, (2, 400, 4)) + np.array([-20.0, 20.0])[:, None, None] * np.array([1, 0, 1, 0])
    values[:, :, 1] += values[:, :, 0] - values[:, :, 0].mean(1, keepdims=True)
    images = torch.from_numpy(values.reshape(800, 1, 2, 2).round()).to(torch.uint8)
    train = Split("train", images, torch.arange(2).repeat_interleave(400), torch.arange(800))
    few = Split("val", images[:2] ^ 255, torch.tensor([0, 1]), torch.arange(800, 802))
    test = Split("test", images[-2:] ^ 255, torch.tensor([0, 1]), torch.arange(2))
    found = gaussian_generator(Dataset("toy", ("a", "b"), train, few, test), 40_000).train
    for k in range(2):
        own = images[train.labels == k].flatten(1).double()
        drawn = found.images[found.labels == k].flatten(1).double()
        assert len(drawn) == 20_000
        assert torch.allclose(drawn.mean(0), own.mean(0), atol=5 * 18 / 20_000**0.5)
        # rounding to bytes adds 1/12 to each variance; of 20,000 draws a covariance of v, w is off by sqrt(2vw/20000)
        assert torch.allclose(drawn.T.cov(), own.T.cov() + torch.eye(4) / 12, atol=5 * 310 * (2 / 20_000) ** 0.5)


def test_seed_and_class_decide_and_a_larger_number_begins_with_the_smaller(digits):
    few, many, other = (gaussian_generator(digits, n, seed=s).train for n, s in ((25, 0), (60, 0), (25, 1)))
    assert few.labels.tolist() == [k % 10 for k in range(25)]
    assert torch.equal(many.images[:25], few.images)
    assert not torch.equal(other.images, few.images)


def test_held_out_images_do_not_matter(digits):
    moved = replace(digits, val=replace(digits.val, images=digits.val.images ^ 1), test=digits.test.select(slice(9)))
    assert torch.equal(gaussian_generator(digits, 20).train.images, gaussian_generator(moved, 20).train.images)


def test_provenance_and_spec(digits):
    found = load({"name": "gaussian_generator", "of": {"name": "digits"}, "images": 30, "components": 8, "seed": 3})
    told = found.provenance
    assert (told.generator, told.trained_on, told.conditional, told.labels) == ("gaussian", "train", True, "condition")
    assert told.settings == {"components": 8, "seed": 3, "images": 30}
    assert told.classes == (3,) * 10
    assert told.content != gaussian_generator(digits, 30).provenance.content
    assert torch.equal(found.test.images, digits.test.images)


def test_a_class_of_one_image_is_refused(digits):
    lonely = (digits.train.labels != 3) | (digits.train.labels == 3).cumsum(0).eq(1)
    with pytest.raises(HauberkError, match="class 3 of digits has 1"):
        gaussian_generator(replace(digits, train=digits.train.select(lonely)), 20)
