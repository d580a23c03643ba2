"""What all model builders share: argument checks, and the spec that rebuilds the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from hauberk.errors import HauberkError
from hauberk.identity import remember_as_built


def check_task(
    input_shape: Sequence[int], num_classes: int, mean: Sequence[float], std: Sequence[float], smallest: int = 1
) -> None:
    """Raise unless the shape is (C, H, W) of at least ``smallest`` pixels a side, K >= 2, and the statistics fit C."""
    if len(input_shape) != 3 or min(input_shape) < 1 or min(input_shape[1:]) < smallest:
        raise HauberkError(
            f"expected an input shape (C, H, W) with H, W >= {smallest}, got {tuple(input_shape)}", "resize the images"
        )
    if num_classes < 2:
        raise HauberkError(f"expected at least two classes, got {num_classes}", "give a binary classifier two logits")
    channels = input_shape[0]
    if len(mean) != channels or len(std) != channels or not all(s > 0 for s in std):
        raise HauberkError(
            f"expected a mean and a positive std for each of {channels} channels, got {list(mean)} and {list(std)}",
            "use the statistics of the training split: Dataset.mean and Dataset.std",
        )


def with_spec(model: nn.Module, name: str, **arguments: Any) -> nn.Module:
    """The model, with ``model.spec`` set to the call that builds it, in plain JSON values."""
    plain = {
        key: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        for key, value in arguments.items()
    }
    cast(Any, model).spec = {"name": name} | plain
    remember_as_built(model)
    return model
