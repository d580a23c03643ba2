"""Random numbers from explicit streams: one per sample for evaluation, one per run for training.

An evaluation draws from a stream keyed by (seed, sample id, purpose), so that batches, order and shards do not matter.
Philox is counter based and takes a 128-bit key, so that no two samples share a stream, as some would by 32 bits.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.random.bit_generator import ISeedSequence
from torch import Tensor

from hauberk.errors import HauberkError

BITS = 63  # of an integer draw


class Randomness(Protocol):
    """A source of one draw for each row of a batch of B rows."""

    def bits(self, *shape: int) -> Tensor:
        """Uniform integers of 63 bits, int64, shape ``(B, *shape)``."""
        ...

    def uniform(self, *shape: int) -> Tensor:
        """Uniform on [0, 1), float32, shape ``(B, *shape)``."""
        ...

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, float32, shape ``(B, *shape)``."""
        ...


def stream(seed: int, sample_id: int, purpose: str) -> np.random.Generator:
    """The generator of one sample: Philox with the 128-bit BLAKE2 hash of (seed, sample id, purpose) as its key."""
    words: Any = _Words(np.frombuffer(_key(seed, sample_id, purpose), dtype="<u8"))  # no seed sequence to numpy's types
    return np.random.Generator(np.random.Philox(words))


@dataclass
class _Words(ISeedSequence):
    """The key of Philox, handed over as what a seed comes to: with ``key=`` numpy asks the system for entropy first."""

    words: Any

    def generate_state(self, *_: object) -> Any:
        """The two words."""
        return self.words


class DeviceStream:
    """The stream of one sample that is drawn on an accelerator, in the shape and with the names of numpy's.

    Its torch generator takes a seed of 63 bits: the lower ones of the same hash.

    Args:
        seed: the evaluation's seed.
        sample_id: of the sample.
        purpose: what the numbers are for.
        device: where they are drawn.
    """

    def __init__(self, seed: int, sample_id: int, purpose: str, device: torch.device) -> None:
        self._device = device
        self._generator = torch.Generator(device)
        self._generator.manual_seed(int.from_bytes(_key(seed, sample_id, purpose), "little") % 2**63)

    def integers(self, low: int, high: int, shape: Sequence[int], dtype: object = np.int64) -> Tensor:  # noqa: ARG002
        """Uniform integers of 63 bits, whatever the ends."""
        return torch.empty(tuple(shape), dtype=torch.int64, device=self._device).random_(generator=self._generator)

    def random(self, shape: Sequence[int], dtype: object = np.float32) -> Tensor:  # noqa: ARG002
        """Uniform on [0, 1), float32."""
        return torch.rand(tuple(shape), generator=self._generator, device=self._device)

    def standard_normal(self, shape: Sequence[int], dtype: object = np.float32) -> Tensor:  # noqa: ARG002
        """Standard normal, float32."""
        return torch.randn(tuple(shape), generator=self._generator, device=self._device)


def stream_on(
    device: torch.device | str, seed: int, sample_id: int, purpose: str
) -> np.random.Generator | DeviceStream:
    """The stream of one sample for numbers that are needed on a device: ``stream`` on the CPU, else drawn there."""
    at, key = torch.device(device), (seed, sample_id, purpose)
    return stream(*key) if at.type == "cpu" else DeviceStream(*key, at)


def _key(seed: int, sample_id: int, purpose: str) -> bytes:
    return hashlib.blake2b(f"{seed}|{sample_id}|{purpose}".encode(), digest_size=16).digest()


class PerSample:
    """Randomness whose row b depends on ``(seed, ids[b], purpose)`` alone.

    Args:
        seed: the evaluation's seed.
        ids: sample ids, length B.
        purpose: what the numbers are for; different purposes are independent.
        device: where the draws are; on another one than the CPU they are other numbers, see ``DeviceStream``.
    """

    def __init__(
        self, seed: int, ids: Tensor | Sequence[int], purpose: str, device: torch.device | str = "cpu"
    ) -> None:
        self._streams = [stream_on(device, seed, int(i), purpose) for i in ids]

    def bits(self, *shape: int) -> Tensor:
        """Uniform integers of 63 bits, int64, shape ``(B, *shape)``."""
        return self._stack([s.integers(0, 2**BITS, shape, dtype=np.int64) for s in self._streams])

    def uniform(self, *shape: int) -> Tensor:
        """Uniform on [0, 1), float32, shape ``(B, *shape)``."""
        return self._stack([s.random(shape, dtype=np.float32) for s in self._streams])

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, float32, shape ``(B, *shape)``."""
        return self._stack([s.standard_normal(shape, dtype=np.float32) for s in self._streams])

    def _stack(self, rows: list[Any]) -> Tensor:
        return torch.stack(rows) if isinstance(rows[0], Tensor) else torch.from_numpy(np.stack(rows))  # on the CPU


class Consecutive:
    """Randomness whose rows are consecutive pieces of one stream, where it is drawn, such as those of a sample's votes.

    Args:
        generator: of the stream, from ``stream_on``; on the CPU two calls with 3 and 4 rows give what one with 7 does.
        rows: the number of rows B.
    """

    def __init__(self, generator: np.random.Generator | DeviceStream, rows: int) -> None:
        self._generator, self._rows = generator, rows

    def bits(self, *shape: int) -> Tensor:
        """Uniform integers of 63 bits, int64, shape ``(B, *shape)``."""
        draws = self._generator.integers(0, 2**BITS, (self._rows, *shape), dtype=np.int64)
        return torch.as_tensor(draws)  # where it was drawn

    def uniform(self, *shape: int) -> Tensor:
        """Uniform on [0, 1), float32, shape ``(B, *shape)``."""
        draws = self._generator.random((self._rows, *shape), dtype=np.float32)
        return torch.as_tensor(draws)  # where it was drawn

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, float32, shape ``(B, *shape)``."""
        draws = self._generator.standard_normal((self._rows, *shape), dtype=np.float32)
        return torch.as_tensor(draws)  # where it was drawn


class Shared:
    """Randomness for training: one torch generator for all rows.

    Where several processes share a batch, each draws the numbers of the whole batch and keeps those of its own rows, so
    that a row's numbers do not depend on how many processes there are.

    Args:
        generator: where the numbers come from; its device is where they are placed.
        rows: the number of rows B of this process.
        offset: rows of the whole batch that stand before them.
        total: rows of the whole batch; None where it is ``rows``.
    """

    def __init__(self, generator: torch.Generator, rows: int, offset: int = 0, total: int | None = None) -> None:
        self.generator = generator
        self._total = rows if total is None else total
        if offset + rows > self._total:
            raise ValueError(f"rows {offset} to {offset + rows} do not lie in a batch of {self._total}")
        self._own: slice | Tensor = slice(offset, offset + rows)

    def select(self, rows: Tensor) -> Shared:
        """The draws of some of the rows alone; those of the others are made and left out."""
        chosen = copy(self)
        chosen._own = torch.arange(self._total, device=rows.device)[self._own][rows]
        return chosen

    def bits(self, *shape: int) -> Tensor:
        """Uniform integers of 63 bits, int64, shape ``(B, *shape)``."""
        draws = torch.empty(self._total, *shape, dtype=torch.int64, device=self.generator.device)
        return draws.random_(generator=self.generator)[self._own]

    def uniform(self, *shape: int) -> Tensor:
        """Uniform on [0, 1), float32, shape ``(B, *shape)``."""
        return torch.rand(self._total, *shape, generator=self.generator, device=self.generator.device)[self._own]

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, float32, shape ``(B, *shape)``."""
        return torch.randn(self._total, *shape, generator=self.generator, device=self.generator.device)[self._own]


def bookmark(generator: torch.Generator) -> Callable[[], None]:
    """A function that puts a generator, and torch's global one of its device, back to where they are now."""
    both = [(g, g.get_state()) for g in (generator, _global_generator(generator.device))]

    def back() -> None:
        for one, state in both:
            one.set_state(state)

    return back


# --- draws of a random model -------------------------------------------------------------------------------------


class Draw(Protocol):
    """The noise of one draw of a random model, as a key from which it can be made again."""

    def child(self, name: str) -> Draw:
        """The noise of one part of the model, independent of that of the others."""
        ...

    def rows(self, like: Tensor) -> Randomness:
        """Noise of each row of a tensor (B, ...), on its device."""
        ...

    def shared(self, like: Tensor) -> Randomness:
        """Noise that all rows share, of one row, on the tensor's device."""
        ...


@dataclass(frozen=True)
class Key:
    """The draw of a number for some samples: shared noise depends on (seed, number, purpose), a row's on its id too.

    Args:
        seed: the evaluation's seed.
        number: which draw it is.
        ids: of the rows, length B.
        purpose: what it is for; different purposes are independent.
    """

    seed: int
    number: int
    ids: tuple[int, ...]
    purpose: str

    def child(self, name: str) -> Key:
        """The noise of one part of the model."""
        return replace(self, purpose=f"{self.purpose}/{name}")

    def rows(self, like: Tensor) -> Randomness:
        """Noise of each row: it does not depend on which other rows there are."""
        if len(like) != len(self.ids):
            raise HauberkError(
                f"a draw for {len(self.ids)} images cannot give noise of {len(like)} rows",
                "give the random layer one row for each image, or use shared noise: key.shared(x)",
            )
        return PerSample(self.seed, self.ids, f"{self.purpose}#{self.number}", like.device)

    def shared(self, like: Tensor) -> Randomness:
        """Noise that all rows share."""
        return PerSample(self.seed, (SHARED,), f"{self.purpose}#{self.number}", like.device)


@dataclass(frozen=True)
class PublicDraw:
    """A draw that is the same for all images: its noise depends on (seed, number) alone, on every device.

    Args:
        seed: of all draws.
        number: which draw it is.
        purpose: of a part, its name.
    """

    seed: int
    number: int
    purpose: str = "public"

    def child(self, name: str) -> PublicDraw:
        """The noise of one part of the model."""
        return replace(self, purpose="/".join((self.purpose, name)))

    def rows(self, like: Tensor) -> Randomness:
        """The one row, for each of the rows."""
        return Repeated(self._one, len(like), like.device)

    def shared(self, like: Tensor) -> Randomness:
        """The one row."""
        return Repeated(self._one, 1, like.device)

    @property
    def _one(self) -> Randomness:
        return PerSample(self.seed, (SHARED,), f"{self.purpose}#{self.number}")  # on the CPU, whatever the device


class Repeated:
    """Randomness whose rows are all copies of one row.

    Args:
        single: the one row.
        rows: how many.
        device: where they are, which need not be where the one is drawn.
    """

    def __init__(self, single: Randomness, rows: int, device: torch.device) -> None:
        self._single, self._rows, self._device = single, rows, device

    def bits(self, *shape: int) -> Tensor:
        """Uniform integers of 63 bits, int64, shape ``(B, *shape)``."""
        return self._copied(self._single.bits(*shape))

    def uniform(self, *shape: int) -> Tensor:
        """Uniform on [0, 1), float32, shape ``(B, *shape)``."""
        return self._copied(self._single.uniform(*shape))

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, float32, shape ``(B, *shape)``."""
        return self._copied(self._single.normal(*shape))

    def _copied(self, row: Tensor) -> Tensor:
        return row.to(self._device).expand(self._rows, *row.shape[1:]).clone()  # a noise may work in place


class Ambient:
    """A draw from torch's global generator, which training seeds at each step; called again it differs."""

    def child(self, name: str) -> Ambient:  # noqa: ARG002 - all parts draw from one generator, one after another
        """The same."""
        return self

    def rows(self, like: Tensor) -> Randomness:
        """Noise of each row."""
        return Shared(_global_generator(like.device), len(like))

    def shared(self, like: Tensor) -> Randomness:
        """Noise that all rows share."""
        return Shared(_global_generator(like.device), 1)


AMBIENT, SHARED = Ambient(), -1  # the latter stands for all samples, whose ids are 0 or more


def _global_generator(device: torch.device) -> torch.Generator:
    if device.type != "cuda":
        return torch.default_generator
    return torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]


@contextmanager
def fenced(seed: int = 0, devices: Iterable[int] = ()) -> Iterator[None]:
    """Inside, the global generators of torch, numpy and Python start from a seed; afterwards they are as before.

    Args:
        seed: of all of them, any integer; numpy's takes its lower 32 bits.
        devices: the GPUs whose generators are set too.
    """
    known, chosen = random.getstate(), list(devices)
    legacy = np.random.get_state()  # noqa: NPY002 - what a model of the user's own may draw from
    with torch.random.fork_rng(chosen):
        torch.default_generator.manual_seed(seed % 2**63)  # torch.manual_seed would set every GPU, forked or not
        for device in chosen:
            torch.cuda.default_generators[device].manual_seed(seed % 2**63)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(known)
            np.random.set_state(legacy)  # noqa: NPY002
