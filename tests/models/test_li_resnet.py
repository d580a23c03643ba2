"""LiResNet: its parts at every size of image, and a bound on networks that are not 1-Lipschitz."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from hauberk.errors import HauberkError
from hauberk.layers import MaxMin, layer_bounds, pairwise_bounds
from hauberk.layers.li_resnet import LiResConv2d
from hauberk.models.li_resnet import li_resnet


def make(shape: tuple[int, int, int], **more: Any) -> nn.Module:
    torch.manual_seed(0)
    statistics = (0.4, 0.5, 0.3)[: shape[0]], (0.2, 0.9, 0.1)[: shape[0]]
    return li_resnet(shape, 4, *statistics, **({"width": 4, "depth": 2, "hidden": 8} | more)).eval()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("side", "left"),  # the side after a stem of stride 2 and a neck of 4
    [(1, 1), (5, 1), (8, 1), (9, 1), (28, 3), (32, 4), (224, 28)],
)
def test_shapes(side: int, left: int, channels: int) -> None:
    model = make((channels, side, side))
    with torch.no_grad():
        assert model(torch.rand(2, channels, side, side)).shape == (2, 4)
    assert next(m for m in model if type(m) is nn.Linear).in_features == 8 * left**2


def test_a_side_shorter_than_the_neck() -> None:
    model = make((1, 3, 17))
    assert model(torch.rand(2, 1, 3, 17)).shape == (2, 4)
    neck = [m for m in model if type(m) is nn.Conv2d][1]
    assert neck.kernel_size == neck.stride == (2, 4)


def test_the_parts() -> None:
    model = make((3, 32, 32), depth=3, dense=2)
    kinds = [type(m).__name__ for m in model]
    assert kinds == [
        "Normalize", "Conv2d", "MaxMin", *["ParametrizedLiResConv2d", "MaxMin"] * 3, "Conv2d", "MaxMin", "Flatten",
        *["Linear", "MaxMin"] * 2, "ParametrizedUnitRowLinear",
    ]  # fmt: skip
    stem, neck = (m for m in model if type(m) is nn.Conv2d)
    assert (stem.out_channels, stem.kernel_size, stem.stride, stem.padding) == (4, (5, 5), (2, 2), (2, 2))
    assert (neck.in_channels, neck.out_channels, neck.kernel_size, neck.stride) == (4, 8, (4, 4), (4, 4))
    assert [(m.in_features, m.out_features) for m in model if isinstance(m, nn.Linear)] == [(128, 8), (8, 8), (8, 4)]
    assert model[0].std.flatten().tolist() == [1.0] * 3
    assert model[0].mean.flatten().tolist() == pytest.approx([0.4, 0.5, 0.3])


@pytest.mark.parametrize("depth", [1, 4])
def test_blocks_are_scaled_by_the_root_of_the_depth(depth: int) -> None:
    for block in (m for m in make((1, 8, 8), depth=depth) if isinstance(m, LiResConv2d)):
        free = block.parametrizations.weight.original
        middle = block.weight[:, :, 1, 1] - torch.eye(4)
        assert torch.allclose(middle, free[:, :, 1, 1] / math.sqrt(depth), atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 6)])
def test_the_bound_holds_and_is_what_training_sees(shape: tuple[int, int, int]) -> None:
    model = make(shape).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    items = layer_bounds(model, shape)
    assert items[0].bound.value == 1.0
    assert math.prod(i.bound.value for i in items[:-1]) > 1.0
    pairwise = pairwise_bounds(model, shape)
    points = torch.rand(8, *shape, dtype=torch.float64)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: model(x[None])[0]))(points).flatten(2)
    steepest = torch.linalg.vector_norm(jacobian[:, :, None] - jacobian[:, None], dim=-1).amax(0)
    assert bool((steepest <= pairwise).all())
    # rows of unit length at the end, so two logits part at most twice as fast as the features move
    assert float(pairwise.max()) <= 2.0 * math.prod(i.bound.value for i in items[:-1]) * (1 + 1e-6)


@pytest.mark.parametrize("change", [{"width": 3}, {"width": 0}, {"hidden": 7}, {"depth": 0}, {"dense": 0}])
def test_refusals(change: dict[str, Any]) -> None:
    with pytest.raises(HauberkError, match="expected even widths"):
        make((1, 8, 8), **change)


def test_pairs_channels_after_every_layer_but_the_last() -> None:
    assert sum(isinstance(m, MaxMin) for m in make((1, 8, 8), depth=3, dense=2)) == 1 + 3 + 1 + 2
