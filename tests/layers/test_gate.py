"""The gate: a mean of streams, whose weights for channels may stretch what no stream stretches."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hauberk.conformance import check_lipschitz_layer
from hauberk.errors import HauberkError
from hauberk.layers import AOLConv2d, ConvexGate, model_bound


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def to_channel(place: int, channels: int = 2) -> nn.Conv2d:
    """Write the one channel that enters to one of those that leave."""
    layer = nn.Conv2d(1, channels, 1, bias=False)
    with torch.no_grad():
        layer.weight.zero_()[place] = 1.0
    return layer


def gate_of(streams: int, weights: Any, rescaled: bool = False, own: bool = True) -> ConvexGate:
    """Streams that write to a channel each, and a gate that takes each channel from its own stream."""
    gate = ConvexGate([to_channel(i, streams) for i in range(streams)], streams, weights, rescaled).eval()
    if own:
        with torch.no_grad():
            gate.logits.copy_(50.0 * torch.eye(streams))
    return gate


def stretch(layer: nn.Module, shape: tuple[int, ...]) -> float:
    size = math.prod(shape)
    columns: Tensor = layer(torch.eye(size).reshape(size, *shape))
    return float(torch.linalg.matrix_norm(columns.flatten(1).double(), 2))


@pytest.mark.parametrize("streams", [2, 3])
def test_weights_for_channels_stretch_by_the_root_of_the_streams(streams: int) -> None:
    gate = gate_of(streams, "channel")
    assert all(stretch(stream, (1, 2, 2)) == 1.0 for stream in gate.streams)
    assert stretch(gate, (1, 2, 2)) == pytest.approx(math.sqrt(streams), rel=1e-4)
    assert gate.lipschitz_bound((1, 2, 2)).value == pytest.approx(math.sqrt(streams), rel=1e-4)
    assert gate.lipschitz_bound((1, 2, 2)).value >= stretch(gate, (1, 2, 2))


def test_rescaled_weights_for_channels_stretch_nothing_and_lose_nothing_here() -> None:
    gate = gate_of(2, "channel", rescaled=True)
    assert stretch(gate, (1, 2, 2)) == pytest.approx(1.0, abs=1e-4)
    assert gate.lipschitz_bound((1, 2, 2)).value <= 1.0


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("weights", ["scalar", "channel"])
def test_bounds_hold_for_random_gates(weights: Any, rescaled: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        streams = []
        for _ in range(3):
            rotation = torch.linalg.qr(torch.randn(4, 4, generator=generator))[0]
            layer = nn.Conv2d(4, 4, 1, bias=False)
            layer.weight.data = rotation[:, :, None, None] * float(torch.rand((), generator=generator) * 2)
            streams.append(layer)
        gate = ConvexGate(streams, 4, weights, rescaled).eval()
        with torch.no_grad():
            gate.logits.copy_(4.0 * torch.randn(gate.logits.shape, generator=generator))
        with torch.no_grad():
            assert stretch(gate, (4, 1, 1)) <= gate.lipschitz_bound((4, 1, 1)).value * (1 + 1e-6)


def test_scalar_weights_take_the_mean_and_not_the_largest() -> None:
    steep, flat = nn.Conv2d(1, 1, 1, bias=False), nn.Conv2d(1, 1, 1, bias=False)
    steep.weight.data.fill_(4.0)
    flat.weight.data.zero_()
    gate = ConvexGate([steep, flat], 1).eval()
    assert gate.lipschitz_bound((1, 2, 2)).value == pytest.approx(2.0, rel=1e-4)
    assert stretch(gate, (1, 2, 2)) == pytest.approx(2.0, rel=1e-4)


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("weights", ["scalar", "channel"])
def test_the_contract(weights: Any, rescaled: bool) -> None:
    gate = ConvexGate([AOLConv2d(2, 4, 3, padding=1), nn.Conv2d(2, 4, 1)], 4, weights, rescaled)
    with torch.enable_grad():
        check_lipschitz_layer(gate, (2, 3, 3))


def test_shares_add_up_to_one_less_the_allowance_for_rounding() -> None:
    shares = gate_of(3, "channel", own=False).numbers(())["shares"]
    assert shares.shape == (3, 3)
    assert float(shares.sum(0).max()) < 1.0
    assert torch.allclose(shares.sum(0), torch.ones(3), atol=2e-5)


def test_a_gate_of_unit_streams_stretches_nothing_in_its_own_precision() -> None:
    gate = ConvexGate([nn.Identity(), nn.Identity(), nn.Identity()], 2).eval()
    with torch.no_grad():
        gate.logits.copy_(torch.tensor([[0.1], [0.7], [-1.3]]))
    assert model_bound(gate, (2, 3, 3)).value <= 1.0


def test_bad_gates_are_refused() -> None:
    with pytest.raises(HauberkError, match="needs at least one stream"):
        ConvexGate([], 2)
    with pytest.raises(HauberkError, match="weights"):
        ConvexGate([nn.Identity()], 2, "both")  # type: ignore[arg-type]
    with pytest.raises(HauberkError, match="different shapes"):
        ConvexGate([nn.Identity(), nn.AvgPool2d(2)], 2)(torch.rand(1, 2, 4, 4))
    with pytest.raises(HauberkError, match="in place"):
        ConvexGate([nn.ReLU(inplace=True)], 2).eval().lipschitz_bound((2, 4, 4))
