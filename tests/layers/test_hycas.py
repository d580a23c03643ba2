"""The hybrid convolution: its contract in every setting, and streams that are left out."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from hauberk.conformance import check_lipschitz_layer
from hauberk.errors import HauberkError
from hauberk.layers import AttentionNoise, ConvexGate, HyCASConv2d, HyCASSettings


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


SETTINGS: list[dict[str, Any]] = [
    {},
    {"noise": None},
    {"noise": "mask", "granularity": "element"},
    {"weights": "channel", "granularity": "position"},
    {"noise": "full", "weights": "channel"},
    {"filters": "draw"},
    {"filters": "sample", "keep": 0.3},
    {"streams": ("sncan",)},
]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_contract(settings: dict[str, Any], stride: int) -> None:
    torch.manual_seed(0)
    with torch.enable_grad():
        check_lipschitz_layer(HyCASConv2d(2, 4, 3, stride, HyCASSettings(**settings)), (2, 5, 4))


@pytest.mark.parametrize("settings", [s for s in SETTINGS if s.get("noise") != "full"], ids=str)
def test_it_stretches_nothing_unless_as_printed(settings: dict[str, Any]) -> None:
    layer = HyCASConv2d(2, 4, 3, 1, HyCASSettings(**settings)).eval()
    assert layer.lipschitz_bound((2, 6, 6)).value <= 1.0
    with torch.no_grad():  # whatever the weights are
        for weight in layer.parameters():
            weight.normal_(std=3.0)
    assert layer.lipschitz_bound((2, 6, 6)).value <= 1.0


def test_the_printed_form_has_an_honest_bound() -> None:
    printed = HyCASConv2d(2, 4, 3, 1, HyCASSettings(noise="full")).eval()
    with torch.no_grad():
        gate = printed.layers[0]
        assert isinstance(gate, ConvexGate)
        gate.logits.copy_(torch.tensor([[50.0], [0.0], [0.0]]))  # fdpan alone: two attentions, and one after the gate
    assert 6.5 < printed.lipschitz_bound((2, 6, 6)).value <= 8.0


def test_one_full_attention_at_the_end_doubles_once() -> None:
    layer = HyCASConv2d(2, 4, 3, 1, HyCASSettings(), last="full").eval()
    assert 1.0 < layer.lipschitz_bound((2, 6, 6)).value <= 2.0


def test_a_stream_that_is_left_out_takes_no_share() -> None:
    layer = HyCASConv2d(2, 4, 3, 1, HyCASSettings(streams=("sncan",), noise=None)).eval()
    gate = layer.layers[0]
    assert isinstance(gate, ConvexGate)
    images = torch.rand(2, 2, 5, 5)
    assert torch.allclose(layer(images), gate.streams[0](images), rtol=1e-4)


def test_without_noise_there_is_no_attention() -> None:
    layer = HyCASConv2d(2, 4, 3, 1, HyCASSettings(noise=None))
    assert not [m for m in layer.modules() if isinstance(m, AttentionNoise)]


@pytest.mark.parametrize("streams", [(), ("fdpan", "fdpan"), ("other",)])
def test_unknown_streams_are_refused(streams: tuple[str, ...]) -> None:
    with pytest.raises(HauberkError, match="streams"):
        HyCASSettings(streams=streams)


def test_unknown_filters_are_refused() -> None:
    with pytest.raises(HauberkError, match="filters"):
        HyCASSettings(filters="often")  # type: ignore[arg-type]
