"""Generated images in the place of training images: labels, judges, filters, copies, neighbours, counted by hand."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hauberk.classifier import predictor_name
from hauberk.data import Dataset, Split
from hauberk.data.generation import Check, nearest_distances, replaced, surest, traces
from hauberk.data.provenance import Provenance
from hauberk.data.source import Source, parts_of
from hauberk.errors import HauberkError


class Brightness(nn.Module):
    """Class 1 where the first pixel is bright, the surer the brighter."""

    def forward(self, images: Tensor) -> Tensor:
        first = 8.0 * (images[:, 0, 0, 0] - 0.5)
        return torch.stack([-first, first], 1)


def pixels(count: int, seed: int) -> Tensor:
    return torch.randint(0, 256, (count, 1, 3, 3), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def split(name: str, count: int, seed: int, first: int = 0) -> Split:
    images = pixels(count, seed)
    return Split(name, images, (images[:, 0, 0, 0] > 127).long(), torch.arange(first, first + count))


@pytest.fixture
def real() -> Dataset:
    return Dataset("real", ("dark", "bright"), split("train", 40, 0), split("val", 10, 1, 40), split("test", 20, 2))


KNOWN = Provenance("toy", "train", conditional=True)


def made(real: Dataset, images: Tensor, labels: Tensor | None = None, seen=None, **check) -> Dataset:
    given = (images[:, 0, 0, 0] > 127).long() if labels is None and "labeller" not in check else labels
    return replaced(real, images, given, KNOWN, Check(**check), seen)


def test_validation_and_test_stay_and_ids_are_negative(real):
    found = made(real, pixels(6, 5))
    assert (found.val, found.test) == (real.val, real.test)
    assert torch.equal(found.train.images, pixels(6, 5))
    assert found.train.ids.tolist() == [-1, -2, -3, -4, -5, -6]
    assert found.provenance.images == 6 and sum(found.provenance.classes) == 6
    assert found.name == "toy_of_real" and any("toy" in note for note in found.notes)


def test_pseudo_labels_are_those_of_the_labeller(real):
    images = pixels(30, 6)
    found = made(real, images, labeller=Brightness())
    assert found.train.labels.tolist() == [int(v > 127) for v in images[:, 0, 0, 0].tolist()]
    told = found.provenance
    assert (told.labels, told.labeller) == ("labeller", predictor_name(Brightness()))
    assert (told.labeller_accuracy, told.agreement) == (1.0, None)


@pytest.mark.parametrize(("wrong", "allowed"), [(2, True), (3, False)])
def test_a_judge_must_agree_with_four_fifths_of_the_labels(real, wrong, allowed):
    images = pixels(10, 7)
    labels = (images[:, 0, 0, 0] > 127).long()
    labels[:wrong] = 1 - labels[:wrong]
    if not allowed:
        with pytest.raises(HauberkError, match=r"70\.0%"):
            made(real, images, labels, judge=Brightness())
        return
    told = made(real, images, labels, judge=Brightness()).provenance
    assert (told.agreement, told.judge_accuracy) == (0.8, 1.0)


def test_the_surest_of_each_class_are_kept(real):
    images = pixels(40, 8)
    first = images[:, 0, 0, 0].long()
    labels = (first > 127).long()
    found = made(real, images, judge=Brightness(), keep=0.25)
    expected = []
    for k, sure in ((0, 255 - first), (1, first)):
        members = (labels == k).nonzero()[:, 0]
        kept = members[sure[members].argsort(descending=True, stable=True)][: round(0.25 * len(members))]
        expected += kept.tolist()
    assert [-1 - i for i in found.train.ids.tolist()] == sorted(expected)
    assert "25%" in found.provenance.filter
    assert surest(Brightness(), found.train, 1.0).tolist() == list(range(len(expected)))
    alone = made(real, images, labeller=Brightness(), keep=0.25)
    assert torch.equal(alone.train.ids, found.train.ids)
    assert "the labeller is surest" in alone.provenance.filter


@pytest.mark.parametrize("held", ["val", "test"])
def test_a_copy_of_a_held_out_image_is_refused_and_one_of_a_training_image_is_counted(real, held):
    images = pixels(6, 9)
    images[2] = real.train.images[3]
    assert made(real, images).provenance.train_copies == 1
    images[4] = getattr(real, held).images[1]
    with pytest.raises(HauberkError, match="1 validation or test image of real"):
        made(real, images)


@pytest.mark.parametrize("held", ["val", "test"])
def test_a_generator_that_has_learnt_from_held_out_images_is_refused(real, held):
    assert made(real, pixels(6, 10), seen=traces(real.train))
    with pytest.raises(HauberkError, match=f"learnt from 1 {held} image of real"):
        made(real, pixels(6, 10), seen=traces(getattr(real, held).select(slice(1))))
    with pytest.raises(HauberkError, match=f"trained on '{held}'"):
        Provenance("toy", held)


def test_distances_to_neighbours_are_those_of_every_pair(real):
    images = pixels(30, 11)
    found = made(real, images).provenance.nearest
    pairs = {"train": real.train.images, "held_out": torch.cat([real.val.images, real.test.images])}
    for name, others in pairs.items():
        every = torch.cdist(images.flatten(1).double() / 255, others.flatten(1).double() / 255).min(1).values
        assert torch.allclose(nearest_distances(images, others).double(), every, atol=1e-6)
        assert found[f"{name}_least"] == pytest.approx(float(every.min()), abs=1e-6)
        assert found[f"{name}_median"] == pytest.approx(float(every.median()), abs=1e-6)
    assert (found["looked_at"], found["near_copies"]) == (30, 0)


def test_a_near_copy_of_a_test_image_is_counted(real):
    images = pixels(6, 12)
    images[0] = real.test.images[0] ^ 1  # each pixel by one level
    assert made(real, images).provenance.nearest["near_copies"] == 1


@pytest.mark.parametrize(
    ("images", "labels", "problem"),
    [
        (pixels(4, 13)[:, :, :2], torch.zeros(4, dtype=torch.int64), r"of shape \(1, 2, 3\), those"),
        (pixels(4, 13).float(), torch.zeros(4, dtype=torch.int64), "are torch.float32"),
        (pixels(4, 13), torch.full((4,), 2), r"in 2\.\.2"),
        (pixels(4, 13)[:0], torch.zeros(0, dtype=torch.int64), "no generated images"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(real, images, labels, problem):
    with pytest.raises(HauberkError, match=problem):
        made(real, images, labels)


def test_images_without_labels_need_a_labeller_and_a_filter_needs_somebody(real):
    with pytest.raises(HauberkError, match="no labels"):
        replaced(real, pixels(4, 14), None, KNOWN, Check())
    with pytest.raises(HauberkError, match="keep needs a judge"):
        Check(keep=0.5)


def test_several_generators_have_exact_shares_and_their_own_ids(real):
    parts = parts_of(real, [(made(real, pixels(7, 15)), 0.3), (made(real, pixels(9, 16)), 0.2)])
    found = Source(real, parts, 10, 0)
    for places in found.batches(1):
        batch = found.batch(places)
        assert [int((batch.ids >= 0).sum()), int(((batch.ids < 0) & (batch.ids >= -7)).sum())] == [5, 3]
        assert int((batch.ids < -7).sum()) == 2
    assert len(set(found.batch(torch.arange(56)).ids.tolist())) == 56
    assert parts[0].provenance.images == 7
    assert str(parts[0]) != str(replace(parts[0], provenance=replace(parts[0].provenance, content="other")))
