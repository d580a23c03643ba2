"""Linear splines against interpolation by NumPy, their ReLU form, and slopes measured from outside."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hauberk.conformance import check_lipschitz_layer
from hauberk.errors import HauberkError
from hauberk.layers.splines import ClippedSlopes, LinearSpline, spline_variation
from hauberk.threats import norms
from hauberk.training.config import Training
from hauberk.training.optimizers import optimizer


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def spline(values: Tensor, reach: float = 1.0, log_scale: Tensor | None = None) -> LinearSpline:
    """With free coefficients of shape (C, S)."""
    layer = LinearSpline(len(values), values.shape[1], reach).double()
    with torch.no_grad():
        layer.parametrizations.coefficients.original.copy_(values.flatten())
        if log_scale is not None:
            layer.log_scale.copy_(log_scale)
    return layer


def rough(channels: int = 4, knots: int = 9, seed: int = 0) -> LinearSpline:
    """Random coefficients, a third of whose slopes are clipped, and random scales."""
    return spline(0.25 * normal(channels, knots, seed=seed), 1.0, 0.5 * normal(channels, seed=seed + 1))


# --- the function ----------------------------------------------------------------------------------------------


def test_by_hand() -> None:
    layer = spline(torch.tensor([[1.0, 0.0, 0.5]]))  # knots -1, 0, 1; slopes -1 and 1/2
    places = torch.tensor([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0], dtype=torch.float64)[:, None]
    assert layer(places)[:, 0].tolist() == pytest.approx([3.0, 1.0, 0.5, 0.0, 0.25, 0.5, 1.0])
    with torch.no_grad():
        layer.log_scale.fill_(math.log(2.0))  # sigma(x) = s(2x) / 2
    assert layer(places)[:, 0].tolist() == pytest.approx([3.0, 1.0, 0.5, 0.0, 0.25, 0.5, 1.0])
    layer = spline(torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0]]), log_scale=torch.tensor([math.log(2.0)]))
    # slopes are clipped to 0 1 0 0 on knots -1, -1/2, 0, 1/2, 1: a ramp of 1/2 around a mean of 3/5
    assert layer(places)[:, 0].tolist() == pytest.approx([0.15, 0.15, 0.15, 0.4, 0.4, 0.4, 0.4])


def test_projection_by_hand() -> None:
    # steps of 3 and 0 become 1 and 0; steps of -1/2 and -9/2 become -1/2 and -1; means 2 and -5/6 stay
    projected = ClippedSlopes(3, 1.0)(torch.tensor([0.0, 3.0, 3.0, 1.0, 0.5, -4.0]))
    assert projected.tolist() == pytest.approx([4 / 3, 7 / 3, 7 / 3, -1 / 6, -2 / 3, -5 / 3])


def test_projection_keeps_means_and_what_is_feasible() -> None:
    project = ClippedSlopes(11, 0.2)
    free = normal(7 * 11)
    once = project(free)
    assert torch.allclose(once.reshape(7, 11).mean(1), free.reshape(7, 11).mean(1), atol=1e-14)
    assert torch.allclose(project(once), once, atol=1e-14)
    assert float(once.reshape(7, 11).diff(dim=1).abs().max()) <= 0.2 + 1e-14


@pytest.mark.parametrize("seed", range(3))
def test_against_interpolation(seed: int) -> None:
    layer = rough(seed=seed).eval()
    features = 1.5 * normal(200, 4, seed=seed + 10)
    values = layer.coefficients.detach().reshape(4, 9).numpy()
    scales = layer.log_scale.detach().exp().numpy()
    knots = np.linspace(-1.0, 1.0, 9)
    out = layer(features).detach().numpy()
    for channel in range(4):
        x, c = features[:, channel].numpy() * scales[channel], values[channel]
        expected = np.interp(x, knots, c)
        expected += np.where(x < -1, (x + 1) * (c[1] - c[0]) / 0.25, 0.0)
        expected += np.where(x > 1, (x - 1) * (c[-1] - c[-2]) / 0.25, 0.0)
        assert out[:, channel] == pytest.approx(expected / scales[channel], abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_starts_hold_everywhere(dtype: torch.dtype) -> None:
    features = torch.linspace(-7.0, 7.0, 97, dtype=dtype).reshape(-1, 1, 1).repeat(1, 4, 2)
    for start, expected in (("identity", features), ("relu", features.relu()), ("abs", features.abs())):
        out = LinearSpline(4, 21, 0.7, start).to(dtype)(features)
        assert torch.allclose(out, expected, atol=2e-6 if dtype == torch.float32 else 1e-6)
    out = LinearSpline(4, 21, 0.7)(features.float())
    assert torch.allclose(out[:, ::2], features.float().abs()[:, ::2], atol=2e-6)
    assert torch.allclose(out[:, 1::2], features.float()[:, 1::2], atol=2e-6)


def test_agrees_with_its_relu_form() -> None:
    layer = rough(seed=4)
    features = 2.0 * normal(100, 4, 3, 2, seed=5)
    form = layer.as_relu()
    assert torch.allclose(form(features), layer(features), atol=1e-12)
    assert form.a.shape == form.tau.shape == (4, 7)
    # the lecture's sum, written out
    x, channel = float(features[0, 2, 0, 0]), 2
    total = float(form.b1[channel].detach()) + float(form.b2[channel].detach()) * x
    for a, tau in zip(form.a[channel].tolist(), form.tau[channel].tolist(), strict=True):
        total += a * max(x - tau, 0.0)
    assert total == pytest.approx(float(layer(features)[0, 2, 0, 0].detach()), abs=1e-12)


def test_total_variation_is_the_sum_of_bends() -> None:
    # the knots are float32 numbers up to 1, so each of 3 x 49 bends is off by up to four roundings over the spacing
    rounding = 3 * 49 * 4 * 2.0**-24 / 0.04
    assert float(LinearSpline(3, start="identity").double().tv2().detach()) == pytest.approx(0.0, abs=rounding)
    assert float(LinearSpline(3, start="abs").tv2().detach()) == pytest.approx(6.0, abs=1e-3)
    assert float(LinearSpline(3, start="relu").tv2().detach()) == pytest.approx(3.0, abs=1e-3)
    layer = rough()
    assert torch.allclose(layer.tv2(), layer.as_relu().a.abs().sum())
    before = layer.tv2()
    with torch.no_grad():
        layer.log_scale.add_(1.0)
    assert torch.equal(layer.tv2(), before)
    model = nn.Sequential(layer, nn.ReLU(), nn.Sequential(rough(seed=8)))
    assert torch.allclose(spline_variation(model), layer.tv2() + model[2][0].tv2())
    assert float(spline_variation(nn.ReLU())) == 0.0
    smoother = torch.optim.SGD(layer.parameters(), 1e-3)
    for _ in range(50):
        smoother.zero_grad()
        layer.tv2().backward()
        smoother.step()
    assert float(layer.tv2().detach()) < 0.9 * float(before.detach())


# --- what it promises ------------------------------------------------------------------------------------------


def test_the_contract() -> None:
    for layer in (rough(6), LinearSpline(6), LinearSpline(6, 5, 3.0, "relu")):
        check_lipschitz_layer(layer, (6,))
        check_lipschitz_layer(layer, (6, 2, 1))


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize("scale", [1e-3, 0.05, 10.0])
def test_the_bound_is_the_steepest_slope(norm: str, scale: float) -> None:
    layer = spline(scale * normal(3, 9), 1.0, normal(3, seed=1)).eval()
    places = torch.linspace(-30.0, 30.0, 20001, dtype=torch.float64)[:, None].repeat(1, 3)
    steepest = float((layer(places).detach().diff(dim=0) / places.diff(dim=0)).abs().max())
    bound = layer.lipschitz_bound((3,), norm)
    assert steepest * (1 - 1e-9) <= bound.value <= steepest * (1 + 1e-6)
    assert bound.value <= 1.0 + 2e-9
    assert bound.exact


def test_coefficients_trained_to_stretch_stay_below_one() -> None:
    layer = rough(4)
    first, second = normal(20, 4, seed=1).requires_grad_(), normal(20, 4, seed=2).requires_grad_()
    climber = torch.optim.Adam([first, second, *layer.parameters()], 0.05)
    for _ in range(60):
        ratio = norms(layer(first) - layer(second), "l2") / norms(first - second, "l2")
        climber.zero_grad()
        (-ratio.sum()).backward()
        climber.step()
    ratio = norms(layer(first) - layer(second), "l2") / norms(first - second, "l2")
    assert 0.97 < float(ratio.detach().max()) <= layer.lipschitz_bound((4,)).value <= 1.0 + 2e-9


def test_the_bound_is_that_of_the_coefficients_as_they_are() -> None:
    layer = rough(2, 5)
    parametrize.remove_parametrizations(layer, "coefficients", leave_parametrized=False)
    with torch.no_grad():
        layer.coefficients.copy_(torch.tensor([0.0, 0.0, 0.0, 0.0, -3.5, 1.0, 1.0, 1.0, 1.0, 1.0]))
    assert layer.lipschitz_bound((2,)).value == pytest.approx(7.0)
    check_lipschitz_layer(layer, (2, 3))


def test_gradients() -> None:
    layer = rough(2, 5)
    features = 2.0 * normal(6, 2, seed=3)
    places = (features * layer.log_scale.detach().exp() + 1.0) * 2.0
    assert float((places - places.round()).abs().min()) > 1e-3  # away from the corners, where there is a derivative
    original = layer.parametrizations.coefficients.original

    def run(x: Tensor, coefficients: Tensor, log_scale: Tensor) -> Tensor:
        new = {"parametrizations.coefficients.original": coefficients, "log_scale": log_scale}
        return torch.func.functional_call(layer, new, (x,))

    inputs = (features.requires_grad_(), original, layer.log_scale)
    assert torch.autograd.gradcheck(run, inputs)


def test_one_value_moves_two_coefficients_alone() -> None:
    layer = LinearSpline(2, 9, 1.0, "identity").double()
    parametrize.remove_parametrizations(layer, "coefficients", leave_parametrized=False)
    layer(torch.tensor([[0.3, -5.0]], dtype=torch.float64)).sum().backward()
    assert layer.coefficients.grad is not None
    # 0.3 lies between the knots 0.25 and 0.5; -5 is extrapolated from -1 and -0.75
    expected = torch.zeros(2, 9, dtype=torch.float64)
    expected[0, 5], expected[0, 6], expected[1, 0], expected[1, 1] = 0.8, 0.2, 17.0, -16.0
    assert torch.allclose(layer.coefficients.grad.reshape(2, 9), expected)


# --- as a module -----------------------------------------------------------------------------------------------


def test_training_copies_and_state_dicts() -> None:
    layer, fresh = LinearSpline(4, 9), LinearSpline(4, 9)
    before = copy.deepcopy(layer)
    training = optimizer(layer, Training(weight_decay=0.1, lr=0.1, momentum=0.0, nesterov=False))
    assert [group["weight_decay"] for group in training.param_groups] == [0.0]
    features = torch.cat([normal(30, 4).float(), torch.zeros(2, 4)])
    for _ in range(3):
        training.zero_grad()
        (layer(features) - features.relu()).square().mean().backward()
        assert all(bool(p.grad.isfinite().all()) for p in layer.parameters())
        training.step()
    assert not torch.equal(layer(features), before(features))
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh(features), layer(features))
    assert torch.allclose(copy.deepcopy(layer).double()(features.double()).float(), layer(features), atol=1e-5)
    images = features.reshape(4, 8, 4).permute(0, 2, 1)[..., None]
    assert torch.equal(layer(images.contiguous(memory_format=torch.channels_last)), layer(images.contiguous()))
    with parametrize.cached():
        assert layer.coefficients is layer.coefficients


def test_zero_coefficients_and_odd_inputs() -> None:
    layer = spline(torch.zeros(2, 5))
    features = torch.tensor([[0.5, torch.nan], [1e30, -1e30]], dtype=torch.float64)
    assert torch.equal(layer(features)[0, :1], torch.zeros(1, dtype=torch.float64))
    assert bool(layer(features)[0, 1].isnan())
    assert layer(features)[1].tolist() == [0.0, 0.0]
    assert layer.lipschitz_bound((2,)).value == 0.0
    far = torch.tensor([[1e30, -1e30]])
    assert torch.allclose(LinearSpline(2, start="abs")(far), far.abs())


def test_refusals() -> None:
    for arguments in ({"knots": 4}, {"knots": 1}, {"reach": 0.0}, {"reach": math.nan}, {"channels": 0}):
        with pytest.raises(HauberkError, match="odd number of knots"):
            LinearSpline(**({"channels": 2} | arguments))
    with pytest.raises(HauberkError, match="unknown start"):
        LinearSpline(2, start="tanh")
    layer = LinearSpline(2)
    with pytest.raises(HauberkError, match="expected 2 channels"):
        layer(torch.zeros(1, 3))
    with pytest.raises(HauberkError, match="expected 2 channels"):
        layer.lipschitz_bound((3,))
    with pytest.raises(HauberkError, match="'l3'"):
        layer.lipschitz_bound((2,), "l3")
    for name in ("log_scale", "parametrizations.coefficients.original"):
        for value in (math.nan, math.inf, 200.0):
            broken = LinearSpline(2)
            with torch.no_grad():
                broken.get_parameter(name)[0] = value
            if name != "log_scale" and value == 200.0:
                assert broken.lipschitz_bound((2,)).value <= 1.0001
                continue
            with pytest.raises(HauberkError, match="NaN or infinity"):
                broken.lipschitz_bound((2,))
