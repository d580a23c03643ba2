"""The source of batches: shares, an order that depends on seed and epoch alone, unique ids, and no held-out image."""

import pytest
import torch

from hauberk.data.dataset import Dataset
from hauberk.data.sampler import epoch_batches
from hauberk.data.source import Part, Source, parts_of
from hauberk.data.split import Split
from hauberk.errors import HauberkError


def split(name: str, count: int, first: int, value: int = 0, size: int = 4) -> Split:
    images = torch.randint(0, 200, (count, 1, size, size), generator=torch.Generator().manual_seed(first + value))
    return Split(name, (images + value).to(torch.uint8), torch.arange(count) % 2, torch.arange(first, first + count))


def data(name: str = "own", value: int = 0, classes: tuple[str, ...] = ("a", "b"), count: int = 40) -> Dataset:
    parts = [split("train", count, 0, value), split("val", 6, count, value), split("test", 5, 0, value + 1)]
    return Dataset(name, classes, *parts)


def source(shares: tuple[float, ...], seed: int = 0, batch_size: int = 10, steps: int = 0) -> Source:
    own, parts = data(), [Part(f"other{k}", split("train", 7 + k, 0, 10 + k), share) for k, share in enumerate(shares)]
    return Source(own, parts, batch_size, seed, steps)


def test_the_training_split_alone_is_the_epoch_order():
    found, own = source(()), data()
    for mine, plain in zip(found.batches(3), epoch_batches(40, 10, 0, 3), strict=True):
        assert torch.equal(mine, plain)
        assert torch.equal(found.batch(mine).images, own.train.batch(plain).images)


def test_every_batch_has_the_shares_and_an_epoch_is_one_pass():
    found = source((0.3, 0.2))
    batches = found.batches(0)
    assert len(batches) == 8  # 40 images, 5 in each batch
    own = torch.cat([b[b < 40] for b in batches])
    assert sorted(own.tolist()) == list(range(40))
    for places in batches:
        assert [int(((places >= a) & (places < b)).sum()) for a, b in ((0, 40), (40, 47), (47, 55))] == [5, 3, 2]
    assert any(int(b[0]) >= 40 for b in batches) and any(int(b[0]) < 40 for b in batches)  # the rows are shuffled


def test_rows_are_those_of_their_split_with_ids_of_their_own():
    found = source((0.3, 0.2))
    everything = torch.arange(55).flip(0)
    batch = found.batch(everything)
    splits = [data().train, split("train", 7, 0, 10), split("train", 8, 0, 11)]
    expected = torch.cat([s.batch().images for s in splits]).flip(0)
    assert torch.equal(batch.images, expected)
    assert torch.equal(batch.labels, torch.cat([s.labels for s in splits]).flip(0))
    assert batch.ids.tolist() == [*range(-15, 0), *range(39, -1, -1)]


def test_negative_ids_of_the_training_split_are_no_others():
    own = data()
    moved = Split("train", own.train.images, own.train.labels, own.train.ids - 3)
    own = Dataset("own", ("a", "b"), moved, own.val, own.test)
    found = Source(own, [Part("other", split("train", 7, 0, 10), 0.3)], 10, 0)
    assert len(set(found.batch(torch.arange(47)).ids.tolist())) == 47


def test_batches_depend_on_seed_and_epoch_alone():
    def drawn(seed: int, epoch: int) -> list[int]:
        return torch.cat(source((0.4,), seed).batches(epoch)).tolist()

    assert drawn(1, 2) == drawn(1, 2)
    assert drawn(1, 2) != drawn(1, 3) != drawn(2, 3)
    assert len(source((0.4,), steps=2).batches(0)) == 2


def test_other_rows_are_drawn_uniformly():
    places = torch.cat([b for e in range(60) for b in source((0.5,)).batches(e)])
    counts = torch.bincount(places[places >= 40] - 40, minlength=7).double()
    expected = counts.sum() / 7
    assert float(((counts - expected) ** 2 / expected).sum()) < 22.5  # chi-square, 6 degrees of freedom, 0.1 %


@pytest.mark.parametrize(("shares", "problem"), [((0.6, 0.5), "-1 rows"), ((0.5, 0.5), "0 rows"), ((0.01,), r"\[0\]")])
def test_shares_that_leave_no_row_are_refused(shares, problem):
    with pytest.raises(HauberkError, match=problem):
        source(shares)


def test_its_name_says_what_is_learnt():
    names = [str(source(s)) for s in ((), (0.3,), (0.4,))]
    assert names[0].startswith("own, 40 training images, labels ")
    assert "; 0.3 of other0, 7 training images, labels " in names[1]
    assert len(set(names)) == 3


def test_another_shape_is_refused():
    with pytest.raises(HauberkError, match="resize"):
        Source(data(), [Part("large", split("train", 7, 0, size=5), 0.3)], 10, 0)


@pytest.mark.parametrize("held", ["val", "test"])
def test_a_held_out_image_among_the_others_is_refused(held):
    own, other = data(), data("other", 20)
    images = other.train.images.clone()
    images[4] = getattr(own, held).images[2]
    train = Split("train", images, other.train.labels, other.train.ids)
    leaking = Dataset("other", ("a", "b"), train, other.val, other.test)
    with pytest.raises(HauberkError, match="1 training image of other"):
        parts_of(own, [(leaking, 0.5)])
    assert [p.share for p in parts_of(own, [(other, 0.5)])] == [0.5]


def test_other_classes_are_refused_and_numbers_will_do():
    assert parts_of(data(), [(data("other", 20, ("0", "1")), 0.5)])
    with pytest.raises(HauberkError, match="other classes"):
        parts_of(data(), [(data("other", 20, ("b", "a")), 0.5)])


def test_an_epoch_with_fewer_batches_than_are_asked_for_is_an_error():
    assert len(source((), steps=4).batches(0)) == 4
    assert len(source((0.5,), steps=8).batches(0)) == 8
    with pytest.raises(HauberkError, match="has 4 batches, but 5 were requested"):
        source((), steps=5)
    with pytest.raises(HauberkError, match="has 8 batches, but 9 were requested"):
        source((0.5,), steps=9)
