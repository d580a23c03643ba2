"""The samples of a training step: a function of seed, epoch and step only."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from hauberk.errors import HauberkError
from hauberk.randomness import stream


def epoch_batches(
    n: int, batch_size: int, seed: int, epoch: int, rank: int = 0, world: int = 1, drop_last: bool = True
) -> Iterator[Tensor]:
    """The batches of one epoch, as places in the train split.

    The permutation depends only on ``(seed, epoch)``, so a resumed run sees the same batches.  Step s is the same
    set of samples for any number of ranks: rank r takes every ``world``-th place of it, beginning with the r-th.

    Args:
        n: number of samples.
        batch_size: samples a step, over all ranks together.
        seed: the run's seed.
        epoch: the epoch, from 0.
        rank: which process this is, 0..world-1.
        world: the number of processes.
        drop_last: leave out the last step if it is not full.  If it is kept, ranks may differ by one sample in it.

    Returns:
        an iterator over int64 tensors of indices, ``batch_size / world`` each.

    Raises:
        HauberkError: if a full step cannot be made or not be shared evenly.
    """
    if not 0 <= rank < world:
        raise HauberkError(f"expected a rank in 0..{world - 1}, got {rank}", "ranks are counted from 0")
    if batch_size < 1 or batch_size % world:
        raise HauberkError(
            f"expected a batch size that {world} processes can share evenly, got {batch_size}",
            f"choose a multiple of {world}; the batch size counts samples over all processes",
        )
    steps = n // batch_size if drop_last else -(-n // batch_size)
    if steps < 1:
        raise HauberkError(f"{n} samples do not fill one batch of {batch_size}", "choose a smaller batch_size")
    order = torch.from_numpy(stream(seed, epoch, "epoch order").permutation(n))
    return (order[s * batch_size : (s + 1) * batch_size][rank::world] for s in range(steps))
