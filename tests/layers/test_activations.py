"""Sorting, absolute values and N-activations against sorting and case distinctions by hand."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from hauberk.conformance import check_lipschitz_layer
from hauberk.errors import HauberkError
from hauberk.layers import MaxMin
from hauberk.layers.activations import BetaAbs, FullSort, GroupSort, NActivation
from hauberk.threats import norms
from hauberk.training.config import Training
from hauberk.training.optimizers import optimizer


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def every_layer() -> list[nn.Module]:
    crooked = NActivation(12).double()
    with torch.no_grad():
        crooked.first.copy_(normal(12, seed=5))
        crooked.second.copy_(normal(12, seed=6))
    layers = [MaxMin(), GroupSort(2), GroupSort(3), GroupSort(12), FullSort(), BetaAbs(), BetaAbs(0.9), crooked]
    return [layer.double().eval() for layer in layers]


# --- what all of them promise ----------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", every_layer(), ids=repr)
def test_the_contract(layer: nn.Module) -> None:
    check_lipschitz_layer(layer, (12,))
    check_lipschitz_layer(layer, (12, 2, 1))


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize("layer", every_layer(), ids=repr)
def test_no_norm_is_stretched(layer: nn.Module, norm: str) -> None:
    bound = layer.lipschitz_bound((12, 3, 2), norm)
    assert bound.value == 1.0
    assert bound.exact
    first = normal(60, 12, 3, 2, seed=1)
    second = first + normal(60, 12, 3, 2, seed=2) * torch.logspace(-6, 3, 60, dtype=torch.float64).reshape(-1, 1, 1, 1)
    before, after = norms(first - second, norm), norms(layer(first) - layer(second), norm)
    assert bool((after <= before * (1 + 1e-9)).all())


@pytest.mark.parametrize("layer", every_layer(), ids=repr)
def test_preserves_the_norm_of_gradients(layer: nn.Module) -> None:
    for row in normal(5, 12, seed=1):
        jacobian = torch.autograd.functional.jacobian(lambda x: layer(x[None])[0], row)
        assert torch.equal(jacobian @ jacobian.T, torch.eye(12, dtype=torch.float64))


@pytest.mark.parametrize("layer", every_layer(), ids=repr)
def test_channels_last_and_float32_give_the_same(layer: nn.Module) -> None:
    features = normal(2, 12, 5, 5, seed=2)
    expected = layer(features)
    assert torch.equal(layer(features.to(memory_format=torch.channels_last)), expected)
    assert torch.allclose(copy.deepcopy(layer).float()(features.float()).double(), expected, atol=1e-6)


@pytest.mark.parametrize("layer", every_layer(), ids=repr)
def test_an_unknown_norm_is_refused(layer: nn.Module) -> None:
    with pytest.raises(HauberkError, match="'l3'"):
        layer.lipschitz_bound((12,), "l3")


# --- sorting ---------------------------------------------------------------------------------------------------


def test_sorts_first_half_against_second_half() -> None:
    features = torch.tensor([[1.0, -2.0, 3.0, -5.0]])
    assert MaxMin()(features).tolist() == [[3.0, -2.0, 1.0, -5.0]]


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3, 5)])
def test_permutes_the_values_and_never_stretches(shape: tuple[int, ...]) -> None:
    first, second = normal(*shape), normal(*shape, seed=1)
    layer = MaxMin()
    assert torch.equal(layer(first).flatten(1).sort(1).values, first.flatten(1).sort(1).values)
    before = torch.linalg.vector_norm((first - second).flatten(1), dim=1)
    after = torch.linalg.vector_norm((layer(first) - layer(second)).flatten(1), dim=1)
    assert bool((after <= before * (1 + 1e-15)).all())
    assert bool((after < 0.999 * before).any())  # it does fold somewhere: it is not linear


def test_maxmin_is_exact_for_values_far_apart_and_passes_nan_on() -> None:
    features = torch.tensor([[1e30, 1.0, -1e-30, 1.0 + 2**-23, torch.nan, 2.0]]).reshape(3, 2)
    largest = torch.maximum(features[:, :1], features[:, 1:])
    smallest = torch.minimum(features[:, :1], features[:, 1:])
    assert torch.equal(MaxMin()(features)[:2], torch.cat([largest, smallest], dim=1)[:2])
    assert bool(MaxMin()(features)[2].isnan().all())


def test_odd_width_is_refused() -> None:
    with pytest.raises(HauberkError, match="even number, got 3"):
        MaxMin()(torch.zeros(2, 3, 4, 4))
    for layer, shape in ((MaxMin(), (3, 4, 4)), (GroupSort(4), (6,)), (GroupSort(2), ())):
        with pytest.raises(HauberkError, match="do not divide"):
            layer.lipschitz_bound(shape)
    with pytest.raises(HauberkError, match="do not divide"):
        GroupSort(4)(torch.zeros(2, 6))
    with pytest.raises(HauberkError, match="two channels or more"):
        GroupSort(1)


def test_groups_take_one_channel_of_each_part() -> None:
    # groups (1, 2, 3) and (5, 4, 6), in turn
    features = torch.tensor([[1.0, 5.0, 2.0, 4.0, 3.0, 6.0]])
    assert GroupSort(3)(features).tolist() == [[3.0, 6.0, 2.0, 5.0, 1.0, 4.0]]
    assert FullSort()(features).tolist() == [[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]]


def test_groups_of_two_are_maxmin_and_one_group_is_a_full_sort() -> None:
    features = normal(3, 12, 2, 2)
    assert torch.equal(GroupSort(2)(features), MaxMin()(features))
    assert torch.equal(GroupSort(12)(features), FullSort()(features))
    by_hand = [sorted(features[0, :, i, j].tolist(), reverse=True) for i, j in itertools.product(range(2), repeat=2)]
    assert FullSort()(features)[0].flatten(1).T.tolist() == by_hand


# --- one channel at a time -------------------------------------------------------------------------------------


def test_beta_is_the_share_of_absolute_values() -> None:
    features = -torch.ones(1, 5)
    for beta, folded in ((0.0, 0), (0.4, 2), (0.5, 2), (0.6, 3), (1.0, 5)):
        assert BetaAbs(beta)(features).tolist() == [[1.0] * folded + [-1.0] * (5 - folded)]
    for beta in (-0.1, 1.1, float("nan")):
        with pytest.raises(HauberkError, match=r"in \[0, 1\]"):
            BetaAbs(beta)


def test_n_activation_by_hand() -> None:
    layer = NActivation(2).double()
    with torch.no_grad():
        layer.first.copy_(torch.tensor([-1.0, 3.0]))
        layer.second.copy_(torch.tensor([2.0, 1.0]))  # the corners of the second channel are 1 and 3
    values = torch.tensor([-4.0, -1.0, 0.0, 1.0, 2.0, 3.0, 5.0], dtype=torch.float64)
    out = layer(torch.stack([values, values], dim=1))
    assert out[:, 0].tolist() == [-2.0, 1.0, 0.0, -1.0, -2.0, -1.0, 1.0]
    assert out[:, 1].tolist() == [-6.0, -3.0, -2.0, -1.0, -2.0, -3.0, -1.0]


def test_n_activation_against_its_three_cases() -> None:
    layer = NActivation(4).double()
    with torch.no_grad():
        layer.first.copy_(normal(4, seed=1))
        layer.second.copy_(normal(4, seed=2))
    features = normal(50, 4, seed=3)
    for row, out in zip(features.tolist(), layer(features).tolist(), strict=True):
        for x, y, pair in zip(row, out, zip(layer.first.tolist(), layer.second.tolist(), strict=True), strict=True):
            low, high = min(pair), max(pair)
            expected = x - 2 * low if x <= low else (-x if x <= high else x - 2 * high)
            assert y == pytest.approx(expected, abs=1e-14)


def test_n_activation_starts_as_absolute_value_and_identity() -> None:
    features = torch.linspace(-1.0, 4.0, 21)[:, None].repeat(1, 4)
    out = NActivation(4)(features)
    assert torch.equal(out[:, ::2], features[:, ::2].abs())
    assert torch.equal(out[:, 1::2], features[:, 1::2])


def test_equal_corners_part_in_training() -> None:
    layer = NActivation(2)  # the second channel starts with both corners at zero
    features = torch.tensor([[0.0, -1.0], [0.0, 2.0]])
    (layer(features)[:, 1] * torch.tensor([1.0, 3.0])).sum().backward()
    assert layer.first.grad is not None
    assert layer.second.grad is not None
    assert (layer.first.grad[1].item(), layer.second.grad[1].item()) == (-2.0, -6.0)


def test_n_activation_refusals_and_weight_decay() -> None:
    layer = NActivation(4)
    for shape in ((3,), (), (8, 4)):
        with pytest.raises(HauberkError, match="expected 4 channels"):
            layer.lipschitz_bound(shape)
    with pytest.raises(HauberkError, match="expected 4 channels"):
        layer(torch.zeros(2, 3))
    decays = [group["weight_decay"] for group in optimizer(layer, Training(weight_decay=0.1)).param_groups]
    assert decays == [0.0]
    with torch.no_grad():
        layer.second[2] = torch.inf
    with pytest.raises(HauberkError, match="NaN or infinity"):
        layer.lipschitz_bound((4,))
