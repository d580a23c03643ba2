"""LipConvnet-N: the published structure, and a bound that no kind of convolution exceeds."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from hauberk.classifier import Normalize
from hauberk.errors import HauberkError
from hauberk.layers import layer_bounds, pairwise_bounds
from hauberk.layers.aol import AOLConv2d
from hauberk.layers.shape import PadToMultiple
from hauberk.layers.soc import SOCConv2d
from hauberk.models.lip_convnet_n import CONVOLUTIONS, lip_convnet_n


def make(shape: tuple[int, int, int], classes: int = 4, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    statistics = (0.4, 0.5, 0.3)[: shape[0]], (0.2, 0.9, 0.1)[: shape[0]]
    return lip_convnet_n(shape, classes, *statistics, **({"width": 2} | more)).eval()


def convolutions(model: nn.Module, kind: type[nn.Module] = SOCConv2d) -> list[Any]:
    return [m for m in model if isinstance(m, kind)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("side", "left"),  # the side of what the last layer sees: halved five times, rounded up
    [(8, 1), (9, 1), (28, 1), (32, 1), (33, 2), (64, 2), (224, 7)],
)
def test_shapes(side: int, left: int, channels: int) -> None:
    model = make((channels, side, side))
    with torch.no_grad():
        assert model(torch.rand(2, channels, side, side)).shape == (2, 4)
    assert model[-1].in_features == 64 * left**2


def test_sides_of_unequal_length() -> None:
    model = make((1, 5, 48))
    assert model(torch.rand(2, 1, 5, 48)).shape == (2, 4)
    assert model[-1].in_features == 64 * 1 * 2  # 5, 3, 2, 1, 1, 1 and 48, 24, 12, 6, 3, 2
    assert [c.stride for c in convolutions(model)] == [2] * 5


def test_the_published_network_of_twenty() -> None:
    """Singla & Feizi 2021, the table of the architecture, for images of 32 x 32: four convolutions a stage."""
    model = make((3, 32, 32), 10, layers=20, width=2, convolution="aol")
    seen = [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0]) for c in convolutions(model, AOLConv2d)]
    assert seen == [
        (3, 2, 3, 1), (2, 2, 3, 1), (2, 2, 3, 1), (2, 4, 3, 2),
        (4, 4, 3, 1), (4, 4, 3, 1), (4, 4, 3, 1), (4, 8, 3, 2),
        (8, 8, 3, 1), (8, 8, 3, 1), (8, 8, 3, 1), (8, 16, 3, 2),
        (16, 16, 3, 1), (16, 16, 3, 1), (16, 16, 3, 1), (16, 32, 3, 2),
        (32, 32, 3, 1), (32, 32, 3, 1), (32, 32, 3, 1), (32, 64, 1, 2),
    ]  # fmt: skip
    assert [i.kind for i in layer_bounds(model, (3, 32, 32))] == [
        "Normalize", *["AOLConv2d", "MaxMin"] * 20, "Flatten", "UnitRowLinear",
    ]  # fmt: skip
    assert model[-1].in_features == 64


@pytest.mark.parametrize("layers", [5, 10, 40])
def test_so_many_convolutions_and_five_doublings(layers: int) -> None:
    found = convolutions(make((1, 8, 8), layers=layers))
    assert len(found) == layers
    assert sorted({c.out_channels for c in found}) == [2, 4, 8, 16, 32, 64][layers == 5 :]
    assert all(a.out_channels == b.in_channels for a, b in itertools.pairwise(found))
    assert [c.kernel_size for c in found] == [(3, 3)] * (layers - 1) + [(1, 1)]


def test_where_both_sides_are_one_the_stride_is_one() -> None:
    model = make((1, 8, 8))
    assert [c.stride for c in convolutions(model)] == [2, 2, 2, 1, 1]
    assert [type(m) for m in make((1, 9, 9))[:2]] == [Normalize, PadToMultiple]
    assert not convolutions(model, PadToMultiple)


def test_images_are_centred_and_not_divided() -> None:
    # a division by the deviations would raise the constant to 1 / 0.1
    first = make((3, 8, 8))[0]
    assert first.mean.flatten().tolist() == pytest.approx([0.4, 0.5, 0.3])
    assert first.std.flatten().tolist() == [1.0] * 3


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 6)])
@pytest.mark.parametrize("convolution", CONVOLUTIONS)
def test_logits_never_part_faster_than_two(convolution: str, shape: tuple[int, int, int]) -> None:
    model = make(shape, convolution=convolution).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    bound = float(pairwise_bounds(model, shape).max())
    assert 0.01 < bound <= 2.0 + 1e-6
    points = torch.rand(64, *shape, dtype=torch.float64)
    with torch.no_grad():
        values = model(points)
    change = (values[:32] - values[32:]).amax(1) - (values[:32] - values[32:]).amin(1)
    distance = (points[:32] - points[32:]).flatten(1).norm(dim=1)
    assert bool((change <= bound * distance).all())


@pytest.mark.parametrize("change", [{"activation": "householder1"}, {"activation": "householder2"}, {"layers": 10}])
@pytest.mark.parametrize("last", ["lln", "orthogonal"])
def test_every_layer_but_the_last_is_at_most_one(change: dict[str, Any], last: str) -> None:
    items = layer_bounds(make((3, 8, 8), last=last, **change).double(), (3, 8, 8))
    assert all(i.bound.value <= 1.0 + 1e-6 for i in items[:-1])
    assert items[-1].kind == {"lln": "UnitRowLinear", "orthogonal": "CayleyLinear"}[last]
    # of orthonormal rows, two are the square root of two apart
    if last == "orthogonal":
        assert items[-1].bound.value <= 1.0 + 1e-6


@pytest.mark.parametrize(
    ("convolution", "terms", "training"), [("soc", 4, 4), ("soc8", 8, 8), ("soc_published", 12, 5)]
)
def test_terms_of_the_series(convolution: str, terms: int, training: int) -> None:
    found = convolutions(make((1, 8, 8), convolution=convolution))
    assert {(c.terms, c.terms_train) for c in found} == {(terms, training)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "multiple of 5"),
        ({"layers": 12}, "multiple of 5"),
        ({"width": 3}, "even width"),
        ({"width": 0}, "even width"),
        ({"convolution": "plain"}, "no convolution 'plain'"),
        ({"activation": "relu"}, "no activation 'relu'"),
        ({"last": "plain"}, "no last 'plain'"),
    ],
)
def test_refusals(change: dict[str, Any], message: str) -> None:
    with pytest.raises(HauberkError, match=message):
        make((1, 8, 8), **change)
