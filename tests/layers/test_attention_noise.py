"""Random attention: masks within their range for every draw, the printed form reaching 2^k, the one without bound."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from hauberk.conformance import check_lipschitz_layer
from hauberk.draws import drawn
from hauberk.errors import HauberkError
from hauberk.layers import AttentionNoise, model_bound, walk
from hauberk.randomness import Key


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


KEY = Key(3, 0, (5, 6, 7), "test")
RANGES = {"mask": (0.0, 1.0), "halved": (0.7, 1.0), "full": (1.0, 2.0)}


def layer(mode: Any = "halved", **more: Any) -> AttentionNoise:
    return AttentionNoise(2, mode, **{"tau": 0.5, "strength": 0.3} | more).eval()


@pytest.mark.parametrize("mode", RANGES)
@pytest.mark.parametrize("granularity", ["element", "channel", "position"])
def test_factors_fill_their_range_and_do_not_leave_it(mode: str, granularity: Any) -> None:
    ones = torch.ones(3, 2, 20, 20)
    made = drawn(layer(mode, tau=3.0, granularity=granularity), KEY)(ones)
    low, high = RANGES[mode]
    assert low - 1e-7 <= float(made.min())
    assert float(made.max()) <= high
    if granularity != "channel":
        assert float(made.min()) == pytest.approx(low)
        assert float(made.max()) == pytest.approx(high)


def test_the_mean_factor_is_that_of_a_clipped_gaussian() -> None:
    # E clip(1/2 + t n, 0, 1) = 1/2 by symmetry, so that halving keeps 1 - g / 2
    made = drawn(layer("halved", granularity="element"), KEY)(torch.ones(3, 2, 200, 200))
    assert float(made.mean()) == pytest.approx(0.85, abs=0.002)
    variance = torch.linspace(-8, 8, 200_001, dtype=torch.float64)
    density = torch.exp(-variance.square() / 2) / (2 * torch.pi) ** 0.5
    clipped = (0.5 + 0.5 * variance).clamp(0, 1)
    expected = 0.3 * float(torch.trapezoid((clipped - 0.5).square() * density, variance)) ** 0.5
    assert float(made.std()) == pytest.approx(expected, abs=0.002)


@pytest.mark.parametrize(("granularity", "axes"), [("element", ()), ("channel", (2, 3)), ("position", (1,))])
def test_what_shares_a_factor(granularity: Any, axes: tuple[int, ...]) -> None:
    made = drawn(layer(granularity=granularity, start=0.0), KEY)(torch.ones(3, 2, 4, 4))
    for axis in (1, 2, 3):
        alike = bool((made == made.select(axis, 0).unsqueeze(axis)).all())
        assert alike == (axis in axes)
    assert not torch.equal(made[0], made[1])  # each row has a mask of its own


@pytest.mark.parametrize("mode", RANGES)
def test_the_contract(mode: Any) -> None:
    with torch.enable_grad():
        check_lipschitz_layer(layer(mode), (2, 3, 3))
    assert layer(mode).lipschitz_bound((2, 3, 3)).value == (2.0 if mode == "full" else 1.0)


def test_rows_do_not_depend_on_their_company_and_repeat() -> None:
    images = torch.rand(3, 2, 4, 4)
    all_rows = drawn(layer(), KEY)(images)
    assert torch.equal(drawn(layer(), Key(3, 0, (6,), "test"))(images[1:2]), all_rows[1:2])
    assert not torch.equal(drawn(layer(), Key(3, 1, (6,), "test"))(images[1:2]), all_rows[1:2])


def test_masks_are_the_same_numbers_in_both_precisions() -> None:
    net = layer(granularity="element")
    with torch.no_grad():
        net.logits.normal_()
    images = torch.rand(3, 2, 4, 4)
    single = drawn(net, KEY).factor(images)  # type: ignore[operator]
    double = drawn(net.double(), KEY).factor(images.double())  # type: ignore[operator]
    assert torch.equal(single, double)


def test_printed_attention_on_identities_reaches_two_to_the_k() -> None:
    stack = nn.Sequential(*(AttentionNoise(1, "full", tau=0.0, start=40.0) for _ in range(5))).eval()
    image = torch.rand(1, 1, 3, 3)
    assert torch.allclose(drawn(stack, Key(0, 0, (0,), "test"))(image), 32.0 * image)
    assert model_bound(stack, (1, 3, 3)).value == pytest.approx(32.0)


def test_attention_that_sees_the_features_has_no_bound_and_is_steep() -> None:
    net = layer("mask", source="attention", tau=0.0)
    with pytest.raises(HauberkError, match="depends on the features"):
        walk(net, (2, 3, 3))
    attention = net.attention
    assert attention is not None
    with torch.no_grad():
        attention.positions.weight.fill_(50.0)
        attention.positions.bias.fill_(-100.0)
    image = torch.full((1, 2, 1, 1), 1.0)
    made = drawn(net, Key(0, 0, (0,), "test"))
    apart = made(image + 0.01) - made(image - 0.01)
    assert float(torch.linalg.vector_norm(apart)) > 2.0 * 0.02 * 2**0.5  # a mask in [0, 1], and yet steeper than 2


@pytest.mark.parametrize(
    "settings", [{"mode": "half"}, {"granularity": "pixel"}, {"source": "x"}, {"tau": -1.0}, {"strength": 1.5}],
    ids=str,
)  # fmt: skip
def test_unknown_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(HauberkError):
        layer(**settings)


def test_the_bound_is_that_of_the_strength_as_it_is() -> None:
    net = layer("halved", tau=3.0, granularity="element")
    net.strength = 4.0
    made = drawn(net, KEY)(torch.ones(3, 2, 20, 20))
    assert float(made.abs().max()) == pytest.approx(3.0)
    assert net.lipschitz_bound((2, 20, 20)).value == 3.0


def test_other_channels_are_refused() -> None:
    with pytest.raises(HauberkError, match="channels"):
        layer()(torch.rand(1, 3, 2, 2))
    with pytest.raises(HauberkError, match="channels"):
        layer().lipschitz_bound((3, 2, 2))
