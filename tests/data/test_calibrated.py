"""A part of the test split to choose on: a partition that anybody can check by an id alone."""

import hashlib
from dataclasses import replace

import pytest
import torch

from hauberk.data import Dataset, Split, load
from hauberk.data.calibrated import calibrated
from hauberk.errors import HauberkError


def salted(sample: int) -> str:
    return hashlib.sha256(b"calibration|" + str(sample).encode()).hexdigest()


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


@pytest.fixture(scope="module")
def held(digits: Dataset) -> Dataset:
    return calibrated(digits, 60)


def test_the_part_and_the_rest_are_the_test_split(digits: Dataset, held: Dataset) -> None:
    offset = 1 + int(torch.cat([digits.train.ids, digits.val.ids]).max())
    part, rest = (held.val.ids - offset).tolist(), held.test.ids.tolist()
    assert len(part) == 60
    assert sorted(part + rest) == sorted(digits.test.ids.tolist())
    assert set(part) == set(sorted(digits.test.ids.tolist(), key=salted)[:60])
    place = digits.test.ids.tolist().index(part[0])
    assert torch.equal(held.val.images[0], digits.test.images[place])
    assert int(held.val.labels[0]) == int(digits.test.labels[place])


def test_the_border_tells_from_an_id_alone(held: Dataset) -> None:
    assert held.calibration is not None
    assert held.calibration.images == 60
    assert all(salted(i) > held.calibration.border for i in held.test.ids.tolist())


def test_the_former_validation_images_may_have_been_learnt(digits: Dataset, held: Dataset) -> None:
    assert set(held.train.ids.tolist()) == set(digits.train.ids.tolist()) | set(digits.val.ids.tolist())
    assert any("60 test images" in note for note in held.notes)


def test_an_image_that_is_there_twice_is_neither_chosen_on_nor_reported_from_below_the_border(digits: Dataset) -> None:
    first = min(digits.test.ids.tolist(), key=salted)
    rows = digits.test.ids.tolist()
    images = digits.test.images.clone()
    other = max(rows, key=salted)
    images[rows.index(other)] = images[rows.index(first)]
    twice = replace(digits, test=Split("test", images, digits.test.labels, digits.test.ids))
    held = calibrated(twice, 60)
    offset = 1 + int(torch.cat([digits.train.ids, digits.val.ids]).max())
    assert first not in (held.val.ids - offset).tolist()
    assert first not in held.test.ids.tolist()
    assert other in held.test.ids.tolist()
    assert len(held.val) == 60


def test_it_is_described_by_its_set_and_number() -> None:
    found = load({"name": "calibrated", "of": {"name": "digits"}, "images": 60})
    assert (found.name, len(found.val)) == ("digits", 60)


def test_something_is_left_to_report(digits: Dataset) -> None:
    with pytest.raises(HauberkError, match="fewer calibration images than"):
        calibrated(digits, len(digits.test))
