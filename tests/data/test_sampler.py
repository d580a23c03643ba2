import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk.data import epoch_batches
from hauberk.errors import HauberkError


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 200), st.integers(1, 8), st.integers(1, 4), st.booleans())
def test_ranks_together_are_one_process(n, share, world, drop_last):
    size = share * world
    if drop_last and n < size:
        return
    settings = {"seed": 3, "epoch": 5, "drop_last": drop_last}
    single = list(epoch_batches(n, size, **settings))
    ranks = [list(epoch_batches(n, size, rank=r, world=world, **settings)) for r in range(world)]
    assert len(single) == (n // size if drop_last else -(-n // size))
    for step, whole in enumerate(single):
        parts = [ranks[r][step].tolist() for r in range(world)]
        assert sorted(i for part in parts for i in part) == sorted(whole.tolist())
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        if len(whole) == size:
            assert {len(p) for p in parts} == {share}
    seen = torch.cat(single).tolist()
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(n))
    assert drop_last or len(seen) == n


def test_the_permutation_depends_on_seed_and_epoch_alone():
    def order(seed, epoch, size=10):
        return torch.cat(list(epoch_batches(100, size, seed, epoch)))

    torch.manual_seed(1)
    first = order(0, 0)
    torch.manual_seed(2)
    assert torch.equal(first, order(0, 0))
    assert torch.equal(first, order(0, 0, size=50))
    assert first.dtype == torch.int64
    assert not torch.equal(first, torch.arange(100))
    assert not torch.equal(first, order(0, 1))
    assert not torch.equal(first, order(1, 0))
    assert not torch.equal(order(0, 1), order(1, 0))


def test_every_place_in_the_order_is_equally_likely():
    firsts = torch.stack([next(epoch_batches(5, 5, seed=0, epoch=e))[0] for e in range(2000)])
    counts = torch.bincount(firsts, minlength=5)
    assert float(((counts - 400) ** 2 / 400).sum()) < 18.5  # chi-square, 4 degrees of freedom, 0.999 quantile


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batch_size": 10, "rank": 2, "world": 2}, r"rank in 0\.\.1, got 2"),
        ({"batch_size": 10, "rank": -1}, r"rank in 0\.\.0, got -1"),
        ({"batch_size": 10, "world": 3}, "3 processes can share evenly, got 10"),
        ({"batch_size": 0}, "got 0"),
        ({"batch_size": 101}, "100 samples do not fill one batch of 101"),
    ],
)
def test_impossible_requests_are_refused_at_once(arguments, words):
    with pytest.raises(HauberkError, match=words):
        epoch_batches(100, seed=0, epoch=0, **arguments)


def test_nothing_to_sample():
    with pytest.raises(HauberkError, match="0 samples"):
        epoch_batches(0, 4, seed=0, epoch=0, drop_last=False)
