"""Householder activations against complex numbers, sorting, and each other; their borders, and what they promise."""

from __future__ import annotations

import cmath
import copy
import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from hauberk.conformance import check_lipschitz_layer
from hauberk.errors import HauberkError
from hauberk.layers.activations import GroupSort, MaxMin
from hauberk.layers.householder import Householder1, Householder2, HouseholderActivation
from hauberk.threats import norms
from hauberk.training.config import Training
from hauberk.training.optimizers import optimizer

TURN = 2.0 * math.pi


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_layers(channels: int = 12, seed: int = 0) -> list[nn.Module]:
    """One of each kind, with random weights, in float64."""
    layers: list[nn.Module] = [
        HouseholderActivation(channels, size) for size in (2, 3, channels) if channels % size == 0
    ]
    layers += [Householder1(channels), Householder2(channels)]
    for layer in layers:
        layer.double().eval()
        with torch.no_grad():
            for i, parameter in enumerate(layer.parameters()):
                if isinstance(layer, HouseholderActivation):
                    parameter.copy_(normal(len(parameter), seed=seed + i))
                else:
                    parameter.copy_(TURN * uniform(len(parameter), seed=seed + i))
    return layers


def kind(layer: nn.Module) -> str:
    return f"{type_before_parametrizations(layer).__name__}-{getattr(layer, 'size', 2)}"


def order_two(theta0: float, theta1: float, theta2: float) -> Householder2:
    layer = Householder2(2).double()
    with torch.no_grad():
        for parameter, value in zip((layer.theta0, layer.theta1, layer.theta2), (theta0, theta1, theta2), strict=True):
            parameter.fill_(value)
    return layer


def circle(count: int, offset: float = 0.0) -> Tensor:
    angle = torch.arange(count, dtype=torch.float64) * (TURN / count) + offset
    return torch.stack([angle.cos(), angle.sin()], dim=1)


# --- the functions ---------------------------------------------------------------------------------------------


def test_order_one_by_hand() -> None:
    layer = Householder1(4).double()
    assert torch.allclose(layer(torch.tensor([[3.0, 1.0, 1.0, 3.0]]).double()),
                          torch.tensor([[1.0, 1.0, 3.0, 3.0]]).double())  # fmt: skip
    with torch.no_grad():
        layer.angle.copy_(torch.tensor([0.0, math.pi]))  # keeps y >= 0; keeps x <= 0
    out = layer(torch.tensor([[2.0, 5.0, -3.0, -1.0], [-2.0, -5.0, 3.0, -1.0]]).double())
    expected = torch.tensor([[2.0, -5.0, 3.0, -1.0], [-2.0, -5.0, 3.0, -1.0]]).double()
    assert torch.allclose(out, expected)


@pytest.mark.parametrize("theta", [0.3, math.pi / 2, 2.0, 4.5, -1.0])
def test_order_one_against_the_printed_formula(theta: float) -> None:
    layer = Householder1(2).double()
    with torch.no_grad():
        layer.angle.fill_(theta)
    points = torch.cat([3.0 * circle(101), normal(50, 2)])
    for (x, y), out in zip(points.tolist(), layer(points).tolist(), strict=True):
        if x * math.sin(theta / 2) - y * math.cos(theta / 2) <= 0:
            expected = [x, y]
        else:
            c, s = math.cos(theta), math.sin(theta)
            expected = [x * c + y * s, x * s - y * c]
        assert out == pytest.approx(expected, abs=1e-12)


def test_every_group_sort_of_pairs_is_order_one_at_a_right_angle() -> None:
    features = normal(40, 8, 2, 3)
    order_one = Householder1(8).double()
    with torch.no_grad():
        order_one.angle.fill_(math.pi / 2)
    swapped = order_one(features)
    largest_first = torch.cat([swapped[:, 4:], swapped[:, :4]], dim=1)
    assert torch.allclose(largest_first, MaxMin()(features), atol=1e-14)
    assert torch.allclose(largest_first, GroupSort(2)(features), atol=1e-14)
    assert torch.allclose(HouseholderActivation(8).double()(features), MaxMin()(features), atol=1e-6)
    # any pairing of channels is the same up to a permutation: here adjacent channels, the larger one first
    order = [1, 3, 5, 7, 0, 2, 4, 6]
    adjacent = torch.empty_like(features)
    adjacent[:, order] = order_one(features[:, order])
    pairs = features.unflatten(1, (4, 2))
    assert torch.allclose(adjacent[:, ::2], pairs.amax(2), atol=1e-14)
    assert torch.allclose(adjacent[:, 1::2], pairs.amin(2), atol=1e-14)


def test_order_one_is_a_reflection_along_its_normal() -> None:
    angles = TURN * uniform(5, seed=1)
    first, general = Householder1(10).double(), HouseholderActivation(10).double()
    with torch.no_grad():
        first.angle.copy_(angles)
        general.parametrizations.direction.original.copy_(7.0 * torch.cat([(angles / 2).sin(), -(angles / 2).cos()]))
    features = normal(30, 10, 2, 2)
    assert torch.allclose(first(features), general(features), atol=1e-13)


@pytest.mark.parametrize("size", [2, 3, 6])
def test_general_reflection_against_its_matrix(size: int) -> None:
    layer = HouseholderActivation(6, size).double()
    with torch.no_grad():
        layer.parametrizations.direction.original.copy_(normal(6))
    free = layer.parametrizations.direction.original.detach()
    features = normal(20, 6)
    out = layer(features)
    for row, j in itertools.product(range(20), range(6 // size)):
        u, z = free[j :: 6 // size], features[row, j :: 6 // size]
        reflection = torch.eye(size, dtype=torch.float64) - 2.0 * torch.outer(u, u) / (u @ u)
        expected = reflection @ z if float(u @ z) > 0 else z
        assert torch.allclose(out[row, j :: 6 // size], expected, atol=1e-13)


@pytest.mark.parametrize("seed", range(4))
def test_order_two_against_complex_numbers(seed: int) -> None:
    t0, t1, t2 = (TURN * uniform(3, seed=seed)).tolist()
    layer = order_two(t0, t1, t2)
    points = torch.cat([circle(997, 0.001), 5.0 * normal(50, 2, seed=seed)])
    for (x, y), out in zip(points.tolist(), layer(points).tolist(), strict=True):
        z = complex(x, y)
        phi = (cmath.phase(z) - t0 / 2) % TURN
        if phi < t1 / 2:
            expected = z
        elif phi < (t1 + t2) / 2:
            expected = cmath.exp(1j * (t0 + t1)) * z.conjugate()
        elif phi < (TURN + t2) / 2:
            expected = cmath.exp(-1j * t2) * z
        else:
            expected = cmath.exp(1j * t0) * z.conjugate()
        assert out == pytest.approx([expected.real, expected.imag], abs=1e-12)


def test_order_two_contains_order_one() -> None:
    angles = TURN * uniform(6, seed=2)
    first, second = Householder1(12).double(), Householder2(12).double()
    with torch.no_grad():
        first.angle.copy_(angles)
        second.theta0.copy_(angles)
        second.theta1.fill_(TURN)
        second.theta2.zero_()
    features = normal(200, 12, 2)
    assert torch.allclose(first(features), second(features), atol=1e-12)


def test_angles_beyond_a_turn_are_clamped() -> None:
    points = circle(50, 0.01)
    assert torch.equal(order_two(-3.0, 100.0, 1.0)(points), order_two(0.0, TURN, 1.0)(points))
    assert torch.equal(order_two(9.0, -2.0, 9.0)(points), order_two(TURN, 0.0, TURN)(points))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_just_below_the_first_border_do_not_fall_through(dtype: torch.dtype) -> None:
    for t0 in (0.0, 1.0, 3.0, TURN):
        layer = order_two(t0, 1.0, 1.0).to(dtype)
        angle = torch.tensor(t0 / 2, dtype=torch.float64) + torch.tensor([-1e-20, -1e-12, -1e-8, -1e-7, 0.0, 1e-7])
        points = torch.stack([angle.cos(), angle.sin()], dim=1).to(dtype)
        points[0] = torch.tensor([1.0, -1e-20]) if t0 == 0.0 else points[0]
        # the two pieces that meet there both keep the border
        assert torch.allclose(layer(points), points, atol=1e-6)


# --- what all of them promise ----------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", random_layers(), ids=kind)
def test_the_contract(layer: nn.Module) -> None:
    check_lipschitz_layer(layer, (12,))
    check_lipschitz_layer(layer, (12, 2, 1))


@pytest.mark.parametrize("layer", random_layers(seed=3), ids=kind)
def test_lengths_and_gradients_keep_their_norm(layer: nn.Module) -> None:
    features = torch.cat([normal(50, 12, 2, 2), torch.zeros(1, 12, 2, 2)])
    assert torch.allclose(norms(layer(features), "l2"), norms(features, "l2"), atol=1e-12)
    for row in normal(6, 12, seed=1):
        jacobian = torch.autograd.functional.jacobian(lambda x: layer(x[None])[0], row)
        assert torch.allclose(jacobian @ jacobian.T, torch.eye(12, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(3))
def test_continuous_all_the_way_round(seed: int, dtype: torch.dtype) -> None:
    for layer in random_layers(2, seed):
        # steps of 1e-3 all round, and tiny steps across each border
        places = torch.linspace(0.0, TURN, 6284, dtype=torch.float64)
        if isinstance(layer, Householder2):
            t0, t1, t2 = (float(p.detach()) for p in layer.parameters())
            borders = torch.tensor([0.0, t1 / 2, (t1 + t2) / 2, math.pi + t2 / 2]) + t0 / 2
            places = torch.cat([places, (borders[:, None] + torch.tensor([-1e-6, 0.0, 1e-6])).flatten()])
        places = places.sort().values
        points = torch.stack([places.cos(), places.sin()], dim=1).to(dtype)
        out = layer.to(dtype)(points)
        apart = norms(points.diff(dim=0), "l2")
        assert bool((norms(out.diff(dim=0), "l2") <= apart + (1e-6 if dtype == torch.float32 else 1e-12)).all())


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize("layer", random_layers(seed=7), ids=kind)
def test_bounds_hold_in_every_norm_and_are_attained(layer: nn.Module, norm: str) -> None:
    bound = layer.lipschitz_bound((12, 2), norm)
    steepest = 0.0
    for row in normal(40, 12, seed=1):
        jacobian = torch.autograd.functional.jacobian(lambda x: layer(x[None])[0], row)
        if norm == "l2":
            steepest = max(steepest, float(torch.linalg.matrix_norm(jacobian, 2)))
        else:
            steepest = max(steepest, float(jacobian.abs().sum(0 if norm == "l1" else 1).max()))
    assert steepest <= bound.value
    if bound.exact:
        assert bound.value <= steepest * (1 + 1e-8)
    if not isinstance(layer, HouseholderActivation):
        assert bound.value <= math.sqrt(2.0) + 1e-8


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_weights_trained_to_stretch_stay_below_the_bound(norm: str) -> None:
    for layer in random_layers(6, seed=11):
        first, second = normal(30, 6, seed=1).requires_grad_(), normal(30, 6, seed=2).requires_grad_()
        climber = torch.optim.Adam([first, second, *layer.parameters()], 0.05)
        for _ in range(40):
            ratio = norms(layer(first) - layer(second), norm) / norms(first - second, norm)
            climber.zero_grad()
            (-ratio.sum()).backward()
            climber.step()
        assert float(ratio.detach().max()) > (1.05 if norm != "l2" else 0.99)  # the climb gets somewhere
        ratio = norms(layer(first) - layer(second), norm) / norms(first - second, norm)
        assert float(ratio.detach().max()) <= layer.lipschitz_bound((6,), norm).value


def test_the_bound_is_that_of_the_weights_as_they_are() -> None:
    # a direction that is longer than one, however it came about, stretches by 2 |v|^2 - 1
    layer = HouseholderActivation(4).double()
    nn.utils.parametrize.remove_parametrizations(layer, "direction", leave_parametrized=False)
    with torch.no_grad():
        layer.direction.copy_(torch.tensor([1.0, 0.6, 1.0, 0.8]))  # the pairs are (1, 1) and (0.6, 0.8)
    assert layer.lipschitz_bound((4,)).value == pytest.approx(3.0)
    assert layer.lipschitz_bound((4,), "linf").value == pytest.approx(3.0)
    check_lipschitz_layer(layer, (4,))


def test_the_right_angle_in_other_norms() -> None:
    layer = Householder1(2).double()
    assert layer.lipschitz_bound((2,), "linf").value == pytest.approx(1.0)
    with torch.no_grad():
        layer.angle.fill_(math.pi / 4)
    for norm in ("l1", "linf"):
        assert layer.lipschitz_bound((2,), norm).value == pytest.approx(math.sqrt(2.0))


# --- as modules ------------------------------------------------------------------------------------------------


def test_starts() -> None:
    assert torch.allclose(Householder1(4).angle, torch.full((2,), math.pi / 2))
    layer = Householder2(200)
    for angle in (p.detach() for p in layer.parameters()):
        assert 0.0 <= float(angle.min()) < 0.3
        assert 2.8 < float(angle.max()) <= math.pi
    for theta in (layer.theta1, layer.theta2):
        assert not torch.equal(theta, layer.theta0)


@pytest.mark.parametrize("cls", [HouseholderActivation, Householder1, Householder2])
def test_training_copies_and_state_dicts(cls: type[nn.Module]) -> None:
    torch.manual_seed(0)
    layer, fresh = cls(8), cls(8)
    before = copy.deepcopy(layer)
    training = optimizer(layer, Training(weight_decay=0.1, lr=0.1, momentum=0.0, nesterov=False))
    assert [group["weight_decay"] for group in training.param_groups] == [0.0]
    features = torch.cat([normal(16, 8).float(), torch.zeros(2, 8)])
    for _ in range(3):
        training.zero_grad()
        layer(features).clamp_min(0.0).square().sum().backward()
        assert all(bool(p.grad.isfinite().all()) for p in layer.parameters())
        training.step()
    assert not torch.equal(layer(features), before(features))
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh(features), layer(features))
    double = copy.deepcopy(layer).double()
    assert torch.allclose(double(features.double()).float(), layer(features), atol=1e-6)
    assert torch.equal(layer(features[:, :, None, None].to(memory_format=torch.channels_last)).flatten(1),
                       layer(features))  # fmt: skip


def test_a_direction_without_length_leaves_its_group_alone() -> None:
    layer = HouseholderActivation(4)
    with torch.no_grad():
        layer.parametrizations.direction.original[[0, 2]] = 0.0
    features = normal(5, 4).float()
    out = layer(features)
    assert torch.equal(out[:, ::2], features[:, ::2])
    out.square().sum().backward()
    assert bool(layer.parametrizations.direction.original.grad.isfinite().all())
    assert layer.lipschitz_bound((4,)).value == pytest.approx(1.0, abs=1e-6)
    with torch.no_grad():
        layer.parametrizations.direction.original.zero_()
    assert torch.equal(layer(features), features)
    for norm in ("l1", "l2", "linf"):  # the identity
        assert layer.lipschitz_bound((4,), norm).value == pytest.approx(1.0)
    with nn.utils.parametrize.cached():
        assert layer.direction is layer.direction


@pytest.mark.parametrize("cls", [HouseholderActivation, Householder1, Householder2])
def test_refusals(cls: type[nn.Module]) -> None:
    for channels in (3, 1):
        with pytest.raises(HauberkError, match=r"do not divide|even number"):
            cls(channels)
    layer = cls(4)
    with pytest.raises(HauberkError, match="expected 4 channels"):
        layer(torch.zeros(2, 6))
    with pytest.raises(HauberkError, match="expected 4 channels"):
        layer.lipschitz_bound((6, 2, 2))
    with pytest.raises(HauberkError, match="'l3'"):
        layer.lipschitz_bound((4,), "l3")
    with torch.no_grad():
        next(layer.parameters())[0] = torch.nan
    with pytest.raises(HauberkError, match="NaN or infinity"):
        layer.lipschitz_bound((4,))
