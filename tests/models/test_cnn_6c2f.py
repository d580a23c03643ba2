"""6C2F: six convolutions and two dense layers at every size of image, and a bound that holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from hauberk.layers import MaxMin, layer_bounds, pairwise_bounds
from hauberk.models.cnn_6c2f import cnn_6c2f


def make(shape: tuple[int, int, int], **more: Any) -> nn.Module:
    torch.manual_seed(0)
    statistics = (0.4, 0.5, 0.3)[: shape[0]], (0.2, 0.9, 0.1)[: shape[0]]
    return cnn_6c2f(shape, 4, *statistics, **({"scale": 0.1} | more)).eval()


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [m for m in model if type(m) is nn.Conv2d]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("side", "left", "count"),  # halved three times and rounded down, as long as there is something to halve
    [(1, 1, 3), (2, 1, 4), (5, 1, 5), (8, 1, 6), (9, 1, 6), (28, 3, 6), (32, 4, 6), (224, 28, 6)],
)
def test_shapes(side: int, left: int, count: int, channels: int) -> None:
    model = make((channels, side, side))
    with torch.no_grad():
        assert model(torch.rand(2, channels, side, side)).shape == (2, 4)
    found = convolutions(model)
    assert len(found) == count
    dense = [m for m in model if type(m) is nn.Linear]
    assert [d.in_features for d in dense] == [found[-1].out_channels * left**2, dense[0].out_features]


def test_a_side_of_one_leaves_the_other_as_it_is() -> None:
    model = make((1, 2, 12))
    assert model(torch.rand(2, 1, 2, 12)).shape == (2, 4)
    assert [c.stride for c in convolutions(model)] == [(1, 1), (2, 2), (1, 1), (1, 1)]


def test_the_full_size() -> None:
    model = make((3, 32, 32), scale=1.0)
    assert [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0], c.padding[0]) for c in convolutions(model)] \
        == [(3, 32, 3, 1, 1), (32, 32, 4, 2, 1), (32, 32, 3, 1, 1), (32, 32, 4, 2, 1), (32, 64, 3, 1, 1),
            (64, 64, 4, 2, 1)]  # fmt: skip
    first, last = (m for m in model if type(m) is nn.Linear)
    assert (first.in_features, last.in_features, last.out_features) == (64 * 4 * 4, first.out_features, 4)
    assert sum(isinstance(m, MaxMin) for m in model) == 7
    assert model[0].std.flatten().tolist() == [1.0] * 3
    assert model[0].mean.flatten().tolist() == pytest.approx([0.4, 0.5, 0.3])


@pytest.mark.parametrize("scale", [0.01, 0.1, 0.37, 1.0])
def test_widths_are_even(scale: float) -> None:
    model = make((1, 8, 8), scale=scale)
    widths = [c.out_channels for c in convolutions(model)]
    assert all(w % 2 == 0 and w >= 2 for w in widths)
    assert all(abs(w - scale * full) <= 2 for w, full in zip(widths, [32, 32, 32, 32, 64, 64], strict=True))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 6)])
def test_the_bound_holds(shape: tuple[int, int, int]) -> None:
    model = make(shape).double()
    pairwise = pairwise_bounds(model, shape)
    points = torch.rand(8, *shape, dtype=torch.float64)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: model(x[None])[0]))(points).flatten(2)
    steepest = torch.linalg.vector_norm(jacobian[:, :, None] - jacobian[:, None], dim=-1).amax(0)
    assert bool((steepest <= pairwise).all())
    assert [i.kind for i in layer_bounds(model, shape)][-1] == "Linear"
