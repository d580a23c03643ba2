"""A network that no machine holds is refused while it is made, and soon."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules import module as hooks

from hauberk import registry
from hauberk.errors import HauberkError
from hauberk.weights import NUMBERS, TENSORS, bounded

TASK = {"input_shape": [1, 8, 8], "num_classes": 10, "mean": [0.5], "std": [0.5]}


@pytest.mark.parametrize(
    "description",
    [
        {"name": "li_resnet", "depth": 2**40}, {"name": "li_resnet", "depth": 10**6},
        {"name": "lip_convnet", "depth": 10**5}, {"name": "lip_convnet_n", "layers": 10**9},
        {"name": "lip_mlp", "widths": [2**40]}, {"name": "lip_mlp", "widths": [60_000] * 4},
        {"name": "small_cnn", "widths": [65_000, 65_000], "strides": [1, 1]}, {"name": "resnet18", "width": 60_000},
        {"name": "small_cnn", "widths": [4] * 4000, "strides": [1] * 4000}, {"name": "cnn_6c2f", "scale": 1e6},
        {"name": "small_cnn", "num_classes": 10**9}, {"name": "lip_mlp", "input_shape": [1, 60_000, 60_000]},
        {"name": "nearest_neighbour", "count": 2**40},
    ],
    ids=lambda d: str(d)[:60],
)  # fmt: skip
def test_networks_that_are_too_large(description: dict[str, Any]) -> None:
    made: list[int] = []
    handle = hooks.register_module_parameter_registration_hook(
        lambda _module, _name, value: made.append(0 if value is None else value.numel())
    )
    try:
        with pytest.raises(HauberkError):
            registry.build(TASK | description)
    finally:
        handle.remove()
    assert len(made) <= TENSORS + 1  # what is refused costs no more than what fits
    assert sum(made[:-1]) <= NUMBERS


def test_what_fits_is_built_and_what_was_built_is_not_counted_again() -> None:
    base = registry.build(TASK | {"name": "small_cnn"})
    assert registry.build({"name": "smoothed", "sigma": 0.1}, base=base).base is base
    with bounded():
        nn.Linear(1000, 1000)
        with pytest.raises(HauberkError, match="numbers"):
            nn.Linear(20_000, 20_000, device="meta")
    nn.Linear(20_000, 20_000, device="meta")  # outside, the user's own affair


def test_only_the_size_is_spoken_of() -> None:
    with bounded(), pytest.raises(RuntimeError, match="another matter"):
        raise RuntimeError("another matter")
    with pytest.raises(HauberkError, match="does not fit into memory"), bounded():
        torch.empty(2**60)
