"""Where a model and its images are, and how their products are rounded there.

A model's own device decides: images, noise and randomness go where it is.  Records name it unless it is the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from hauberk.errors import HauberkError

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["float32", "tf32"]


def resolved(name: Device) -> torch.device:
    """The device of that name; ``auto`` is the GPU if there is one that can do all that is asked of it, else the CPU.

    Raises:
        HauberkError: if it is not there, or has no float64, in which distances and margins are measured.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise HauberkError("there is no GPU that this torch can use", "use --device cpu, or install a torch for it")
    if name == "mps":
        raise HauberkError(
            "MPS has no float64, in which distances and margins are measured", "use --device cpu on this machine"
        )
    return torch.device(name)


def place(model: nn.Module, device: Device = "auto") -> None:
    """Move a model to a device, in place; one that is there, or holds nothing yet (``meta``), stays as it is."""
    where = resolved(device).type
    held = {t.device.type for tensors in (model.parameters(), model.buffers()) for t in tensors}
    if "meta" not in held and held != {where}:
        model.to(where)


def said(device: Device = "auto", precision: Precision = "float32") -> str:
    """Device and precision, for people.

    Raises:
        HauberkError: if the device is not there, or does not have this precision.
    """
    where = resolved(device)
    if precision == "tf32" and where.type != "cuda":
        raise HauberkError(f"tf32 is a precision of GPUs only, but the device is {where.type}", "leave --precision out")
    name = f" ({torch.cuda.get_device_name(where)})" if where.type == "cuda" else ""
    return f"device: {where.type}{name}, {precision}"


def device_of(model: nn.Module) -> torch.device:
    """Where a model's images belong: where its parameters are, or its buffers; on the CPU if they are nowhere."""
    held = next((t for tensors in (model.parameters(), model.buffers()) for t in tensors), None)
    return torch.device("cpu") if held is None or held.is_meta else held.device


@contextmanager
def arithmetic(precision: Precision = "float32") -> Iterator[None]:
    """Inside, a GPU multiplies float32 numbers as they are, or with ``tf32`` rounds them to 10 bits before.

    Torch's own default rounds them in convolutions.
    """
    if not torch.cuda.is_available():
        yield
        return
    switches, value = _switches(precision)
    before = [getattr(holder, name) for holder, name in switches]
    for holder, name in switches:
        setattr(holder, name, value)
    try:
        yield
    finally:
        for (holder, name), kept in zip(switches, before, strict=True):
            setattr(holder, name, kept)


def _switches(precision: Precision) -> tuple[list[tuple[Any, str]], Any]:
    """Torch's settings for products and convolutions, and their value."""
    cuda: Any = torch.backends.cuda
    cudnn: Any = torch.backends.cudnn
    if hasattr(cudnn, "conv"):
        kept = [(cuda.matmul, "fp32_precision"), (cudnn.conv, "fp32_precision")]
        return kept, "tf32" if precision == "tf32" else "ieee"
    return [(cuda.matmul, "allow_tf32"), (cudnn, "allow_tf32")], precision == "tf32"
