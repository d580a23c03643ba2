"""Streams: independent of company, separate by seed, sample and purpose."""

import hashlib

import numpy as np
import pytest
import torch
from scipy import stats

from hauberk import randomness
from hauberk.randomness import DeviceStream, PerSample, Shared, stream, stream_on


def test_streams_differ_by_seed_sample_and_purpose() -> None:
    keys = [(s, i, p) for s in (0, 1, 11) for i in (0, 1, 11, 111, 2**40) for p in ("attack", "smoothing-counts")]
    first = {stream(*key).integers(0, 2**63) for key in keys}
    assert len(first) == len(keys)


def test_a_stream_is_philox_with_the_hash_as_its_key() -> None:
    digest = hashlib.blake2b(b"3|14|here", digest_size=16).digest()
    plain = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
    found = stream(3, 14, "here")
    assert np.array_equal(found.standard_normal(100), plain.standard_normal(100))
    assert np.array_equal(found.integers(0, 2**63, 100), plain.integers(0, 2**63, 100))


def test_a_stream_repeats() -> None:
    np.testing.assert_array_equal(stream(3, 5, "a").random(8), stream(3, 5, "a").random(8))


@pytest.mark.parametrize("name", ["uniform", "normal"])
def test_a_row_depends_on_its_own_id_alone(name: str) -> None:
    ids = torch.tensor([7, 3, 3, 12])
    whole = getattr(PerSample(1, ids, "attack"), name)(2, 3)
    assert whole.shape == (4, 2, 3)
    assert whole.dtype == torch.float32
    assert torch.equal(whole[1], whole[2])
    for row, sample in zip(whole, ids, strict=True):
        assert torch.equal(getattr(PerSample(1, [int(sample)], "attack"), name)(2, 3)[0], row)
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(whole, getattr(PerSample(2, ids, "attack"), name)(2, 3))
    assert not torch.equal(whole, getattr(PerSample(1, ids, "other"), name)(2, 3))


def test_draws_go_on_and_have_their_distribution() -> None:
    source = PerSample(0, range(20), "test")
    first, second = source.uniform(500), source.uniform(500)
    assert not torch.equal(first, second)
    assert 0.0 <= float(first.min()) < float(first.max()) < 1.0
    assert stats.kstest(first.numpy().ravel(), "uniform").pvalue > 1e-3
    assert stats.kstest(source.normal(500).numpy().ravel(), "norm").pvalue > 1e-3
    assert source.uniform().shape == (20,)


def test_shared_rows_do_not_depend_on_the_number_of_processes() -> None:
    def shared(rows: int, offset: int, total: int) -> Shared:
        return Shared(torch.Generator().manual_seed(5), rows, offset, total)

    for name in ("uniform", "normal"):
        whole = getattr(shared(6, 0, 6), name)(3)
        halves = [getattr(shared(3, start, 6), name)(3) for start in (0, 3)]
        assert torch.equal(whole, torch.cat(halves))
    with pytest.raises(ValueError, match="do not lie"):
        shared(4, 3, 6)


def test_the_streams_of_an_accelerator_keep_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn here on the CPU: each row depends on its own key alone, in any company, and keys are independent."""
    here = torch.device("cpu")
    monkeypatch.setattr(randomness, "stream_on", lambda _, *key: DeviceStream(*key, here))
    whole = PerSample(3, [5, 7, 9], "attack", "cuda")
    first, second = whole.uniform(4, 2), whole.normal(50, 40)
    assert (first.dtype, second.dtype) == (torch.float32, torch.float32)
    for row, name in enumerate([5, 7, 9]):
        alone = PerSample(3, [name], "attack", "cuda")
        assert torch.equal(alone.uniform(4, 2)[0], first[row])
        assert torch.equal(alone.normal(50, 40)[0], second[row])
    keys = ((4, 5, "attack"), (3, 5, "votes"), (3, 6, "attack"))
    others = [PerSample(seed, [name], purpose, "cuda") for seed, name, purpose in keys]
    draws = [first[0], *(other.uniform(4, 2)[0] for other in others)]
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == 4
    assert stats.kstest(second.flatten().numpy(), "norm").pvalue > 1e-3


def test_on_the_cpu_a_stream_is_numpys_and_elsewhere_the_devices_own(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = stream_on("cpu", 1, 2, "votes"), stream(1, 2, "votes")
    assert np.array_equal(one.random(5), other.random(5))
    monkeypatch.setattr(randomness, "DeviceStream", lambda *key: key)
    assert stream_on("cuda:1", 1, 2, "votes") == (1, 2, "votes", torch.device("cuda:1"))
