"""Which images an evaluation takes: nested, in proportion to the classes, from ids and labels alone."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.data.choice import chosen, id_hash, proportional_order


def counts_of(labels: torch.Tensor, order: torch.Tensor, first: int) -> Counter:
    return Counter(labels[order[:first]].tolist())


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(0, 10**6))
def test_every_class_has_its_share_of_every_sample(sizes: list[int], seed: int) -> None:
    """For each N and class the count is the exact share, rounded down or up."""
    labels = torch.cat([torch.full((size,), k) for k, size in enumerate(sizes)])
    n = len(labels)
    ids = torch.randperm(n, generator=torch.Generator().manual_seed(seed)) + seed
    order = proportional_order(ids, labels)
    assert sorted(order.tolist()) == list(range(n))
    counts = [0] * len(sizes)
    for first, place in enumerate(order.tolist(), 1):
        counts[int(labels[place])] += 1
        for count, size in zip(counts, sizes, strict=True):
            assert first * size // n <= count <= -(-first * size // n)


@pytest.mark.parametrize(
    "sizes", [[900] + [1] * 99, [1] * 50, [1000, 1], [500, 300, 150, 49, 1], [7, 7, 7, 7, 7, 7, 7], [97, 89, 83, 2]]
)
def test_shares_of_very_unequal_classes(sizes: list[int]) -> None:
    """With 900 images of one class and 99 classes of one image a rounded share of each would be 45 images off."""
    labels = torch.cat([torch.full((size,), k) for k, size in enumerate(sizes)])
    order = proportional_order(torch.arange(len(labels)), labels)
    for first in range(1, len(labels) + 1):
        found = counts_of(labels, order, first)
        for k, size in enumerate(sizes):
            assert abs(found[k] - first * size / len(labels)) < 1


def test_within_a_class_the_smallest_hashes_come_first() -> None:
    ids = torch.arange(100, 160)
    labels = (ids % 3 > 0).long()
    order = proportional_order(ids, labels)
    for k in (0, 1):
        hashes = [hashlib.sha256(str(i).encode()).hexdigest() for i in ids[order][labels[order] == k].tolist()]
        assert hashes == sorted(hashes)
    assert id_hash(7).hex() == "7902699be42c8a8e46fbbb4501726517e86b22c56a189f7625a6da49081b2451"  # sha256 of "7"


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_file_and_the_names_of_the_classes_do_not_matter(seed: int) -> None:
    """The same samples in the same order, however the split is sorted and its classes are numbered."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (80,), generator=generator)
    ids = torch.arange(80) * 3 + 5
    expected = ids[proportional_order(ids, labels)]
    mixed = torch.randperm(80, generator=generator)
    assert torch.equal(ids[mixed][proportional_order(ids[mixed], labels[mixed])], expected)
    renamed = torch.tensor([2, 0, 3, 1])[labels]
    assert torch.equal(ids[proportional_order(ids, renamed)], expected)


def test_the_first_images_are_the_first_images() -> None:
    ids, labels = torch.tensor([9, 4, 7]), torch.tensor([0, 0, 1])
    assert chosen(ids, labels, None, "first").tolist() == [1, 2, 0]
    assert chosen(ids, labels, 2, "first").tolist() == [1, 0]
    assert chosen(ids, labels).tolist() == proportional_order(ids, labels).tolist()


def test_a_file_sorted_by_class_gives_every_class() -> None:
    labels = torch.arange(3).repeat_interleave(20)
    order = chosen(torch.arange(60), labels)
    assert counts_of(labels, order, 21) == {0: 7, 1: 7, 2: 7}
    assert counts_of(labels, order, 2).most_common(1)[0][1] == 1
    assert torch.equal(chosen(torch.arange(60), labels, 21), order[:21])
    assert counts_of(labels, chosen(torch.arange(60), labels, None, "first"), 20) == {0: 20}


def test_an_empty_split_has_an_empty_order() -> None:
    assert len(proportional_order(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))) == 0


def test_a_known_order() -> None:
    """The order is a promise across versions and machines: it names the samples of records."""
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 2, 2])
    assert proportional_order(torch.arange(10), labels).tolist() == [4, 3, 9, 0, 7, 1, 2, 8, 6, 5]
