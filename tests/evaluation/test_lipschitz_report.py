"""The report on bounds: searches stay below bounds and reach them on affine maps, gradients are those of autograd."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from hauberk.classifier import Normalize
from hauberk.errors import HauberkError
from hauberk.evaluation.lipschitz_report import (
    LayerReport,
    input_gradients,
    lipschitz_report,
    margin_gradient,
    steepest_ratio,
    worst_offence,
)
from hauberk.layers import AOLConv2d, AOLLinear, ConvexResidual, MaxMin, NoiseInjection, UnitRowLinear, model_bound
from hauberk.models.hycas_net import hycas_net
from hauberk.noises import Gaussian


def net() -> nn.Sequential:
    torch.manual_seed(0)
    body = (Normalize((0.5,), (0.5,)), AOLConv2d(1, 4, 3, padding=1), MaxMin(), nn.Flatten())
    return nn.Sequential(*body, AOLLinear(64, 8), MaxMin(), UnitRowLinear(8, 3)).eval()


def images(rows: int = 4) -> torch.Tensor:
    return torch.rand(rows, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def test_searches_stay_below_the_bounds_and_come_near() -> None:
    report = lipschitz_report(net(), images())
    assert [r.name for r in report.layers] == [str(i) for i in range(7)]
    assert report.layers[0].bound == pytest.approx(2.0)
    for layer in report.layers:
        assert 0.5 * layer.bound < layer.reached <= layer.bound * (1 + 1e-9)
        assert layer.tightness == layer.reached / layer.bound
    assert report.reached <= report.bound
    assert worst_offence(report.layers) is None
    assert (report.refused, report.images) == ("", 4)


def test_gradients_kept_layer_by_layer_multiply_up() -> None:
    # with one image the medians are the ratios themselves
    report = lipschitz_report(net(), images(1))
    assert math.prod(r.preserved for r in report.layers) == pytest.approx(report.preserved, rel=1e-5)  # in float32
    assert report.layers[2].preserved == pytest.approx(1.0)  # sorting


def test_the_margin_gradient_by_hand() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[3.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, -9.0, 0]]))
    at_image, at_logits = margin_gradient(model, torch.ones(1, 1, 2, 2))
    assert at_image.flatten().tolist() == [3.0, -2.0, 0.0, 0.0]
    assert at_logits.tolist() == [[1.0, -1.0, 0.0]]
    shown = input_gradients(model, torch.ones(1, 1, 2, 2)).flatten()
    assert shown[0] == pytest.approx(1.0, abs=0.02)
    assert shown[1] == pytest.approx(0.5 - 0.5 * 2.0 / 2.97, abs=1e-3)
    assert shown[3] == 0.5


def test_the_search_is_power_iteration_on_a_matrix() -> None:
    layer = nn.Linear(12, 7, dtype=torch.float64).requires_grad_(False)
    truth = float(torch.linalg.svdvals(layer.weight)[0])
    found = steepest_ratio(layer, torch.rand(2, 12, dtype=torch.float64), 200)
    assert truth * (1 - 1e-4) < found <= truth * (1 + 1e-6)


def test_a_constant_layer_and_another_norm() -> None:
    model = net()
    with torch.no_grad():
        model[4].parametrizations.weight.original.zero_()
    report = lipschitz_report(model, images(), "linf")
    assert report.layers[4].bound == report.layers[4].reached == 0.0
    assert report.layers[4].tightness is None
    assert {r.norm for r in report.layers} == {"linf"}
    assert {r.tightness for r in report.layers} == {None}  # searches are in L2
    assert report.bound == 0.0


def test_a_model_without_a_bound_says_why() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.GELU()).eval()
    report = lipschitz_report(model, images())
    assert "GELU" in report.refused
    assert math.isnan(report.bound)
    assert report.layers == ()
    assert report.reached > 0.0
    with pytest.raises(HauberkError, match="train mode"):
        lipschitz_report(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16)), images())
    with pytest.raises(HauberkError, match="no images"):
        lipschitz_report(model, images(0))


def test_the_bound_is_in_the_norm_that_was_asked_for() -> None:
    for norm in ("l1", "l2", "linf"):
        assert lipschitz_report(net(), images(1), norm, 1).bound == model_bound(net().double(), (1, 4, 4), norm).value


def test_the_search_walks_uphill_and_keeps_the_best() -> None:
    # the slope of x^2 is 2 x; a step is 0.01
    start = torch.full((1, 1), 0.5, dtype=torch.float64)
    assert steepest_ratio(torch.square, start, 50) == pytest.approx(2.0 * 0.99, abs=1e-3)
    # beyond 0.515 it is flat, and the search has passed by
    assert steepest_ratio(lambda x: x.clamp(max=0.515).square(), start, 50) == pytest.approx(1.02, abs=1e-3)
    bent = steepest_ratio(lambda x: torch.minimum(x.square(), 0.3 * x + 0.515 * 0.215), start, 50)
    assert bent == pytest.approx(1.02, abs=1e-3)


def test_a_search_in_single_precision_is_measured_again() -> None:
    layer = nn.Linear(12, 7, dtype=torch.float64).requires_grad_(False)
    points = torch.rand(2, 12, dtype=torch.float64)
    quick = nn.Linear(12, 7).requires_grad_(False)
    quick.load_state_dict(layer.state_dict())
    found = steepest_ratio(layer, points, 200, quick=quick)
    assert found == pytest.approx(float(torch.linalg.svdvals(layer.weight)[0]), rel=1e-4)
    # what the quick function says does not count
    assert steepest_ratio(layer, points, 200, quick=lambda x: 5.0 * quick(x)) == pytest.approx(found, rel=1e-4)


@pytest.mark.parametrize("bias", [0.0, 1e3, 1e7])
def test_large_biases_hide_no_slope_and_add_none(bias: float) -> None:
    # what float32 cannot see is searched for in float64, and what float64 adds is taken off
    torch.manual_seed(0)
    layer = nn.Linear(16, 16, dtype=torch.float64).requires_grad_(False)
    layer.weight.copy_(torch.linalg.qr(layer.weight)[0] * torch.linspace(1.0, 0.1, 16).double())
    layer.bias.fill_(bias)
    quick = copy.deepcopy(layer).float()
    found = steepest_ratio(layer, torch.rand(2, 16, dtype=torch.float64), 100, quick=quick)
    assert 1.0 - 1e-3 < found <= 1.0 + 1e-7


def test_layers_that_work_in_place_and_dead_ones() -> None:
    body = (Normalize((0.0,), (1.0,)), nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(16, 4), nn.ReLU(inplace=True))
    model = nn.Sequential(*body, nn.Linear(4, 3)).eval()
    with torch.no_grad():
        model[3].bias.fill_(-100.0)
    given = images()
    kept = given.clone()
    report = lipschitz_report(model, given)
    assert torch.equal(given, kept)
    assert report.layers[2].reached == pytest.approx(1.0)
    assert report.layers[4].reached == report.reached == 0.0
    assert report.preserved == 0.0


def test_an_offence_is_a_search_beyond_an_l2_bound() -> None:
    def layer(bound: float, reached: float, norm: str) -> LayerReport:
        return LayerReport("0", "Linear", bound, norm, "by hand", reached, 1.0)

    fine, offence = layer(1.0, 1.0 + 1e-7, "l2"), layer(1.0, 1.001, "l2")
    assert worst_offence([fine, layer(1.0, 5.0, "linf"), offence]) == offence
    assert worst_offence([fine, layer(1.0, 5.0, "linf")]) is None


def test_a_first_layer_that_works_in_place() -> None:
    model = nn.Sequential(nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(4, 3)).eval()
    assert margin_gradient(model, torch.ones(2, 1, 2, 2))[0].shape == (2, 1, 2, 2)


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(ConvexResidual(AOLConv2d(1, 1, 3, padding=1)), nn.Flatten(), UnitRowLinear(16, 3)),
        nn.Sequential(NoiseInjection(Gaussian(0.5)), nn.Flatten(), UnitRowLinear(16, 3)),
        hycas_net((1, 4, 4), 3, [0.5], [0.2], widths=(4,), strides=(1,)),
    ],
    ids=["layers in layers", "noise", "hycas"],
)
def test_layers_made_of_others_and_random_ones(net: nn.Module) -> None:
    report = lipschitz_report(net.eval(), torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)))
    assert report.refused == ""
    assert 0.0 < report.reached <= report.bound
    assert worst_offence(report.layers) is None
    assert any(p.requires_grad for p in net.parameters())  # the model itself is as it was
