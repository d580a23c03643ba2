"""The frozen copy computes with the numbers of the deployed model, and leaves the model as it was."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from hauberk.errors import HauberkError
from hauberk.layers import (
    AOLConv2d,
    AOLLinear,
    BatchCentring,
    BCOPConv2d,
    BjorckLinear,
    BROConv2d,
    BROLinear,
    CayleyConv2d,
    CayleyLinear,
    Concatenation,
    ConvexResidual,
    CPLConv2d,
    CPLLinear,
    Householder1,
    HouseholderActivation,
    LinearSpline,
    LiResConv2d,
    LOTConv2d,
    SandwichConv2d,
    SandwichLinear,
    SLLConv2d,
    SLLLinear,
    SOCConv2d,
    UnitRowLinear,
    walk,
)
from hauberk.layers.derived import Derived, without_parametrisation
from hauberk.layers.freezing import materialised
from hauberk.layers.sandwich import product
from hauberk.layers.shape import ChannelAffine

IMAGE, VECTOR = (4, 6, 6), (8,)
PARAMETRISED = {
    "aol": (AOLConv2d(4, 4, 3, padding=1), IMAGE),
    "aol linear": (AOLLinear(8, 6), VECTOR),
    "bcop": (BCOPConv2d(4, 4, 3, padding=1), IMAGE),
    "björck": (BjorckLinear(8, 6), VECTOR),
    "bro linear": (BROLinear(8, 8, rank=8), VECTOR),
    "cayley": (CayleyLinear(8, 6), VECTOR),
    "cayley convolution": (CayleyConv2d(4, 6, 3, 6), IMAGE),
    "lot": (LOTConv2d(4, 4, 3, 6), IMAGE),
    "cpl": (CPLConv2d(4), IMAGE),
    "cpl linear": (CPLLinear(8), VECTOR),
    "sll": (SLLConv2d(4, 6), IMAGE),
    "sll linear": (SLLLinear(8, 9), VECTOR),
    "soc": (SOCConv2d(4, 4), IMAGE),
    "lires": (LiResConv2d(4), IMAGE),
    "unit rows": (UnitRowLinear(8, 3), VECTOR),
    "directions": (HouseholderActivation(8), VECTOR),
    "weight norm": (parametrizations.weight_norm(nn.Linear(8, 6)), VECTOR),
    "spectral norm": (parametrizations.spectral_norm(nn.Conv2d(4, 4, 3)), IMAGE),
}
DERIVED = {
    "bro": (BROConv2d(4, 4, 3), IMAGE),
    "bro with a stride": (BROConv2d(4, 8, 3, stride=2), IMAGE),
    "sandwich": (SandwichLinear(8, 6), VECTOR),
    "sandwich convolution": (SandwichConv2d(4, 6, 3), IMAGE),
    "householder": (Householder1(8), VECTOR),
    "spline": (LinearSpline(8), VECTOR),
    "centring": (BatchCentring(8), VECTOR),
    "convex residual": (ConvexResidual(nn.Linear(8, 8)), VECTOR),
}


def randomised(layer: nn.Module, size: float = 1.0) -> nn.Module:
    """A copy with random parameters of that size."""
    torch.manual_seed(0)
    layer = copy.deepcopy(layer).eval()
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(torch.randn_like(p)).mul_(size)
    return layer


@pytest.mark.parametrize("size", [1.0, 1e-12, 1e-23])
@pytest.mark.parametrize("name", PARAMETRISED)
def test_parametrised_tensors_are_those_of_the_model(name: str, size: float) -> None:
    layer, shape = PARAMETRISED[name]
    layer = randomised(layer, size)
    frozen = materialised(layer, shape)
    assert not any(hasattr(m, "parametrizations") for m in frozen.modules())
    for tensor in layer.parametrizations:
        held, now = getattr(frozen, tensor), getattr(layer, tensor)
        assert held.dtype == (torch.complex128 if now.is_complex() else torch.float64)
        torch.testing.assert_close(held.data, now.detach().to(held.dtype), rtol=0, atol=0, equal_nan=True)
    assert all(t.dtype in (torch.float64, torch.complex128) for t in frozen.state_dict().values())


@pytest.mark.parametrize("size", [1.0, 1e-12, 1e-23])
@pytest.mark.parametrize("name", DERIVED)
def test_derived_numbers_are_those_of_the_model(name: str, size: float) -> None:
    layer, shape = DERIVED[name]
    layer = randomised(layer, size)
    frozen = materialised(layer, shape)
    assert isinstance(layer, Derived)
    assert isinstance(frozen, Derived)
    with torch.no_grad():
        now, held = layer.derive(shape), frozen.numbers(shape)
        again = copy.deepcopy(layer).double().derive(shape)
    assert all(torch.equal(held[key], value.to(held[key].dtype)) for key, value in now.items())
    assert size < 1.0 or not all(torch.equal(held[key], value) for key, value in again.items()) or name == "centring"
    assert "derived" not in layer._modules


@pytest.mark.parametrize("name", [*PARAMETRISED, *DERIVED])
def test_the_frozen_layer_is_the_function_and_its_bound_holds(name: str) -> None:
    layer, shape = (PARAMETRISED | DERIVED)[name]
    layer = randomised(layer)
    before, kind = copy.deepcopy(layer.state_dict()), type(layer)
    frozen = materialised(layer, shape)
    x = torch.randn(64, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        exact, made = frozen(x.double()), layer(x)
    assert exact.dtype == torch.float64
    assert torch.allclose(exact, made.double(), rtol=1e-3, atol=1e-4 * float(exact.abs().max()))
    assert type(layer) is kind
    assert all(torch.equal(now, before[key]) for key, now in layer.state_dict().items())
    value = walk(frozen, shape).total().value
    apart, images = (t[1:].flatten(1) - t[:-1].flatten(1) for t in (exact, x.double()))
    assert float((apart.norm(dim=1) / images.norm(dim=1)).max()) <= value * (1.0 + 1e-12)


def test_batch_norm_becomes_the_affine_map_that_torch_computes() -> None:
    """Means of 1e5: the same formula in float64 is off by the rounding of the shift, 4e-3."""
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(4).eval()
    layer.running_mean.normal_(1e5, 3.0)
    layer.running_var.uniform_(0.01, 3.0)
    images = layer.running_mean[:, None, None] + torch.randn(8, *IMAGE)
    with torch.no_grad():
        made, frozen = layer(images), materialised(layer, IMAGE)
        assert isinstance(frozen, ChannelAffine)
        apart = float((frozen(images.double()) - made).abs().max())
        naive = float((copy.deepcopy(layer).double()(images.double()) - made).abs().max())
    # a processor without fused products rounds the shift and the product once more
    size = float(frozen.removed.abs().max())
    assert apart <= 4.0 * size * 2.0**-24
    assert naive <= 8.0 * size * 2.0**-24
    assert walk(frozen, IMAGE).total("linf").value == float(frozen.scale.abs().max())


def test_a_layer_used_twice_stays_one_and_one_used_for_two_shapes_is_refused() -> None:
    shared = BROConv2d(4, 4, 3).eval()
    net = materialised(nn.Sequential(shared, nn.ReLU(), shared).eval(), IMAGE)
    assert net[0] is net[2]
    shared_weight = AOLConv2d(4, 4, 3, padding=1).eval()
    net_of_one = materialised(nn.Sequential(shared_weight, nn.ReLU(), shared_weight).eval(), IMAGE)
    assert net_of_one[0] is net_of_one[2]
    twice = nn.Sequential(shared, nn.MaxPool2d(2), shared).eval()
    with pytest.raises(HauberkError, match="frozen for inputs of shape"):
        materialised(twice, (4, 8, 8))
    with pytest.raises(HauberkError, match="frozen for inputs of shape"):
        net(torch.zeros(1, 4, 8, 8).double())


def test_layers_inside_others_are_frozen_too() -> None:
    inner = ConvexResidual(nn.Sequential(BjorckLinear(8, 8), LinearSpline(8)))
    other = nn.Sequential(nn.BatchNorm1d(8), UnitRowLinear(8, 3))
    net = nn.Sequential(nn.Flatten(), Concatenation(inner, other)).eval()
    frozen = materialised(net, (8, 1, 1))
    assert not any(hasattr(m, "parametrizations") or isinstance(m, nn.BatchNorm1d) for m in frozen.modules())
    assert sum("derived" in m._modules for m in frozen.modules()) == 2
    state = frozen.state_dict()
    frozen.load_state_dict(state, strict=True)
    assert all(v.dtype == torch.float64 for v in state.values())


def test_every_parametrised_tensor_is_kept_and_not_the_weight_alone() -> None:
    layer = SOCConv2d(2, 2).eval()
    nn.utils.parametrize.register_parametrization(layer, "bias", Half())
    with torch.no_grad():
        layer.parametrizations.bias.original.fill_(3.0)
    plain = without_parametrisation(layer)
    assert plain.bias.tolist() == [1.5, 1.5]
    assert torch.equal(plain.weight, layer.weight)
    assert isinstance(plain.bias, nn.Parameter)
    buffered = nn.BatchNorm1d(2).eval()
    nn.utils.parametrize.register_parametrization(buffered, "running_mean", Half(), unsafe=True)
    assert "running_mean" in dict(without_parametrisation(buffered).named_buffers())


class Half(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return 0.5 * value


def test_a_cached_weight_of_another_model_is_not_taken() -> None:
    layer = BjorckLinear(4, 4).eval()
    with nn.utils.parametrize.cached():
        for _ in range(20):  # copies of the copies take the same places in memory
            with torch.no_grad():
                layer.parametrizations.weight.original.add_(torch.randn(4, 4))
            expected = layer.parametrizations.weight()
            assert torch.equal(materialised(layer, (4,)).weight, expected.double())


def test_scales_that_leave_the_range_are_refused() -> None:
    for layer in (LinearSpline(2), SandwichLinear(2, 2), SandwichConv2d(2, 2, 1)):
        with torch.no_grad():
            (layer.log_scale if isinstance(layer, LinearSpline) else layer.log_psi).fill_(200.0)
        shape = (2, 3, 3) if isinstance(layer, SandwichConv2d) else (2,)
        with pytest.raises(HauberkError, match="NaN or infinity"):
            walk(materialised(layer.eval(), shape), shape)


@pytest.mark.parametrize("psi", [-60.0, -3.0, 0.0, 3.0, 60.0])
def test_the_bound_of_a_sandwich_follows_its_rounded_scales(psi: float) -> None:
    layer = SandwichLinear(4, 4).eval()
    with torch.no_grad():
        layer.log_psi.copy_(torch.tensor([psi, psi + 0.1, psi + 0.2, psi + 0.3]))
    frozen = materialised(layer, (4,))
    numbers = frozen.numbers((4,))
    value = frozen.lipschitz_bound((4,)).value
    a, b = frozen._halves(frozen.weight)
    on = 2.0 * float(torch.linalg.matrix_norm((a.T * numbers["outward"]) @ (numbers["inward"][:, None] * b), 2)) / 2.0
    assert on <= value
    apart = {"inward": torch.tensor([3.0, 1.0]), "outward": torch.tensor([1.0, 2.0])}
    assert product(apart) == pytest.approx(3.0)
    assert math.isclose(value, 1.0, rel_tol=1e-6)
