"""How many numbers a network may have, counted while it is made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from torch import Tensor, nn
from torch.nn.modules import module as hooks

from hauberk.errors import HauberkError

NUMBERS = 1 << 28  # parameters and buffers in all: 1 GiB in float32
TENSORS = 20_000


@contextmanager
def bounded() -> Iterator[None]:
    """Inside, a network that grows beyond any that fits is refused as soon as it does.

    Torch sets memory aside without touching it and fills it in afterwards, so that what is refused costs nothing.

    Raises:
        HauberkError: saying how large it is.
    """
    numbers = tensors = 0

    def count(_module: nn.Module, _name: str, value: Tensor | None) -> None:
        nonlocal numbers, tensors
        if value is None or nn.parameter.is_lazy(value):
            return
        numbers, tensors = numbers + value.numel(), tensors + 1
        if numbers > NUMBERS or tensors > TENSORS:
            raise HauberkError(
                f"a network of more than {numbers:,} numbers in {tensors:,} tensors",
                f"at most {NUMBERS:,} in {TENSORS:,}: choose a smaller width, depth or image",
            )

    handles = [
        hooks.register_module_parameter_registration_hook(count), hooks.register_module_buffer_registration_hook(count)
    ]  # fmt: skip
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if any(word in str(error) for word in ("allocate", "overflow", "too large", "bytes")) or not str(error):
            raise HauberkError("a network that does not fit into memory", "choose a smaller width or image") from error
        raise
    finally:
        for handle in handles:
            with suppress(KeyError):
                handle.remove()
