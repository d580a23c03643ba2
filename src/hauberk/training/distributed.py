"""Several processes that train one model, started by ``torchrun``.

Every process holds the whole model and its own rows of each batch; after the backward pass the gradients are averaged
by one all-reduce, weighted by rows, so that the step is that of the whole batch.  This is done here and not by wrapping
the model in ``DistributedDataParallel``: objectives may call the model any number of times in a step, and attacks and
objectives see the user's own module.  The advantage of the wrapper, communication during the backward pass, matters
little where ten attack steps precede every backward pass.
"""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor, nn

from hauberk.errors import HauberkError


@dataclass(frozen=True)
class World:
    """This process among all.

    Args:
        rank: its number, from 0; only number 0 writes files and reports.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    def rows(self, total: int) -> slice:
        """The rows of a batch that are this process's own."""
        return slice(total * self.rank // self.size, total * (self.rank + 1) // self.size)

    def weight(self, total: int) -> float:
        """The share of the batch's mean gradient that comes from this process; the shares sum to 1."""
        own = self.rows(total)
        return float(own.stop - own.start) / total

    def average(self, model: nn.Module, weight: float) -> None:
        """Replace gradients and batch norm's running statistics by their weighted averages over the processes.

        Statistics of a norm in eval mode, that of a frozen base, are left alone: averaging would round them.
        Batch norm normalises with the statistics of each process's own rows, so only networks without it train
        exactly as in a single process.
        """
        if self.size == 1:
            return
        tensors = [p.grad for p in model.parameters() if p.grad is not None]
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
        tensors += [b for m in norms for b in (m.running_mean, m.running_var) if b is not None]
        if not tensors:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors]).mul_(weight)
        torch.distributed.all_reduce(flat)
        for tensor, part in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.reshape(tensor.shape))

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes."""
        if self.size > 1:
            torch.distributed.all_reduce(values)
        return values

    def agree(self, content: bytes, device: torch.device) -> bool:
        """Whether every process has the same content, compared through tensors on the device."""
        own = int.from_bytes(hashlib.blake2b(content, digest_size=4).digest(), "little")
        total = self.sum(torch.tensor([own], device=device))
        return int(self.sum((total != own * self.size).long())) == 0

    def align(self, model: nn.Module) -> None:
        """Give every process the weights and buffers of process 0."""
        if self.size > 1:
            for tensor in model.state_dict().values():
                plain = tensor.contiguous()
                torch.distributed.broadcast(plain, src=0)
                tensor.copy_(plain)


def world(device: torch.device) -> World:
    """The processes that ``torchrun`` started, or only this one.

    A process group that the caller has made is used as it is.  Otherwise one is made, and kept until the program ends,
    because a second one could not be made under the same address; the program then ends with ``leave``.

    Args:
        device: where the model is; it decides how the processes talk (NCCL on a GPU, gloo elsewhere).

    Raises:
        HauberkError: if the processes cannot find each other.
    """
    if not torch.distributed.is_available() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return World()
    if not torch.distributed.is_initialized():
        try:
            torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        except (RuntimeError, ValueError) as error:
            raise HauberkError(
                f"the {os.environ['WORLD_SIZE']} processes cannot find each other: {error}",
                "start them with torchrun --nproc-per-node N, or unset WORLD_SIZE to train in one process",
            ) from error
    return World(torch.distributed.get_rank(), torch.distributed.get_world_size())


def is_main() -> bool:
    """Whether this process is number 0 or the only one; only this process writes files and reports."""
    return int(os.environ.get("RANK", "0")) == 0


def leave(code: int = 0) -> None:
    """End one of several processes when all of them have reached this point; do nothing in a single process.

    The threads behind gloo may still run while the interpreter is taken down, which aborts the process (about one in
    ten on a busy machine) after all its work is done, and ``torchrun`` then calls the whole training a failure.

    Args:
        code: the exit status.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
