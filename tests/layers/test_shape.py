"""Layers that change channels or take means away, against their matrices and against batch normalisation."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from hauberk.conformance import check_lipschitz_layer
from hauberk.errors import HauberkError
from hauberk.layers import AOLConv2d, UnitRowLinear, model_bound
from hauberk.layers.activations import BetaAbs, FullSort, GroupSort, NActivation
from hauberk.layers.householder import Householder1, Householder2, HouseholderActivation
from hauberk.layers.pooling import GlobalAveragePool, L2NormPool2d, ScaledAvgPool2d
from hauberk.layers.shape import BatchCentring, Centring, PadChannels, TruncateChannels
from hauberk.layers.splines import LinearSpline
from hauberk.threats import norms


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def dense(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Matrix of an affine layer."""
    size = math.prod(shape)
    eye = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
    with torch.no_grad():
        return (layer(eye) - layer(torch.zeros_like(eye))).flatten(1).T


def operator_norm(matrix: Tensor, norm: str) -> float:
    if norm == "l2":
        return float(torch.linalg.matrix_norm(matrix, 2))
    return float(matrix.abs().sum(0 if norm == "l1" else 1).max())


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (PadChannels(5), (3, 2, 2)),
        (PadChannels(3), (3,)),
        (TruncateChannels(2), (3, 2, 2)),
        (TruncateChannels(3), (3,)),
        (Centring(), (3, 2, 3)),
        (Centring(), (2, 1, 2)),
        (Centring(), (2, 1, 1)),
        (Centring(), (4,)),
        (Centring(per_channel=False), (3, 2, 2)),
        (Centring(per_channel=False), (2,)),
        (BatchCentring(3).eval(), (3, 2, 2)),
    ],
    ids=repr,
)
def test_bounds_are_the_norms_of_the_matrices(layer: nn.Module, shape: tuple[int, ...]) -> None:
    check_lipschitz_layer(layer, shape)
    for norm in ("l1", "l2", "linf"):
        truth, bound = operator_norm(dense(layer.double(), shape), norm), layer.lipschitz_bound(shape, norm)
        assert truth <= bound.value * (1 + 1e-13) + 1e-30
        assert bound.value <= truth * (1 + 1e-8)
        assert bound.exact
    with pytest.raises(HauberkError, match="'l3'"):
        layer.lipschitz_bound(shape, "l3")


def test_channels_by_hand() -> None:
    features = normal(2, 3, 4)
    padded = PadChannels(5)(features)
    assert torch.equal(padded[:, :3], features)
    assert not bool(padded[:, 3:].any())
    assert padded.shape == (2, 5, 4)
    assert PadChannels(3)(features) is features
    assert torch.equal(TruncateChannels(2)(features), features[:, :2])
    assert torch.equal(TruncateChannels(3)(padded), features)


def test_centring_by_hand() -> None:
    features = torch.tensor([[[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]]])
    assert Centring()(features).tolist() == [[[-2.0, -1.0, 3.0], [-1.0, -1.0, 2.0]]]
    assert Centring(per_channel=False)(features).tolist() == [[[-1.0, 0.0, 4.0], [-2.0, -2.0, 1.0]]]
    out = Centring()(normal(4, 3, 5, 5))
    assert float(out.mean((2, 3)).abs().max()) < 1e-15
    assert torch.allclose(Centring()(out), out, atol=1e-15)


@pytest.mark.parametrize("shape", [(8, 3), (8, 3, 4), (8, 3, 4, 5)])
def test_batch_centring_against_batch_normalisation(shape: tuple[int, ...]) -> None:
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    layer, peer = BatchCentring(3, momentum=0.3).double(), kind(3, momentum=0.3, affine=False).double()
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1.0, 0.0, -2.0]))
    extra = [1] * (len(shape) - 2)
    bias = layer.bias.detach().reshape(3, *extra)
    for step in range(3):
        features = 2.0 * normal(*shape, seed=step) + 1.0
        axes = [axis for axis in range(len(shape)) if axis != 1]
        peer(features)
        assert torch.allclose(layer(features), features - features.mean(axes, keepdim=True) + bias, atol=1e-14)
        assert torch.allclose(layer.running_mean, peer.running_mean, atol=1e-14)
    layer.eval()
    before = layer.running_mean.clone()
    expected = features - peer.running_mean.reshape(3, *extra) + bias
    assert torch.allclose(layer(features), expected, atol=1e-14)
    assert torch.equal(layer.running_mean, before)
    assert layer.lipschitz_bound(shape[1:]).value == 1.0
    check_lipschitz_layer(layer, shape[1:])


def test_batch_centring_as_a_module() -> None:
    layer = BatchCentring(2)
    features = normal(6, 2, 3, 3).float().requires_grad_()
    layer(features).square().sum().backward()
    assert layer.bias.grad is not None
    # in training the gradient goes through the mean: it sums to that of the bias' share, here zero
    assert float(layer.bias.grad.abs().max()) < 1e-4
    assert float(features.grad.sum((0, 2, 3)).abs().max()) < 1e-4
    fresh = BatchCentring(2)
    fresh.load_state_dict(layer.state_dict())
    twin = copy.deepcopy(layer)
    assert torch.equal(fresh.eval()(features), twin.eval()(features))
    assert set(BatchCentring(2, bias=False).state_dict()) == {"running_mean"}
    assert float(BatchCentring(2, bias=False)(features).detach().mean().abs()) < 1e-6


def test_refusals() -> None:
    layer = BatchCentring(3)
    with pytest.raises(HauberkError, match="in train mode"):
        layer.lipschitz_bound((3, 2, 2))
    layer.eval()
    for shape in ((2, 4), ()):
        with pytest.raises(HauberkError, match="expected 3 channels"):
            layer.lipschitz_bound(shape)
    with pytest.raises(HauberkError, match="expected 3 channels"):
        layer(torch.zeros(2, 4))
    for name in ("running_mean", "bias"):
        broken = BatchCentring(3).eval()
        with torch.no_grad():
            getattr(broken, name)[1] = torch.nan
        with pytest.raises(HauberkError, match="NaN or infinity"):
            broken.lipschitz_bound((3,))
    for momentum in (0.0, 1.5, math.nan):
        with pytest.raises(HauberkError, match="momentum"):
            BatchCentring(3, momentum)
    for call in (lambda s: PadChannels(2).lipschitz_bound(s), lambda s: PadChannels(2)(torch.zeros(1, *s))):
        with pytest.raises(HauberkError, match="cannot pad"):
            call((3, 2))
    for call in (lambda s: TruncateChannels(4).lipschitz_bound(s), lambda s: TruncateChannels(4)(torch.zeros(1, *s))):
        with pytest.raises(HauberkError, match="cannot keep"):
            call((3, 2))
    with pytest.raises(HauberkError, match="one channel or more"):
        TruncateChannels(0)
    for shape in ((), (2, 0)):
        with pytest.raises(HauberkError, match=r"expected a shape \(C, ...\)"):
            Centring().lipschitz_bound(shape)


def test_a_network_of_such_layers_stays_below_its_bound() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        AOLConv2d(2, 12, 3, padding=1), GroupSort(3), HouseholderActivation(12, 4), L2NormPool2d(2), PadChannels(16),
        AOLConv2d(16, 16, 3, padding=1), LinearSpline(16), TruncateChannels(8), BatchCentring(8), NActivation(8),
        Householder1(8), Centring(), BetaAbs(), FullSort(), ScaledAvgPool2d(2), Householder2(8),
        GlobalAveragePool(scaled=True), UnitRowLinear(8, 3),
    ).double().eval()  # fmt: skip
    bound = model_bound(model, (2, 8, 8)).value
    first, second = normal(20, 2, 8, 8, seed=1).requires_grad_(), normal(20, 2, 8, 8, seed=2).requires_grad_()
    climber = torch.optim.Adam([first, second, *model.parameters()], 0.02)
    for _ in range(40):
        ratio = norms(model(first) - model(second), "l2") / norms(first - second, "l2")
        climber.zero_grad()
        (-ratio.sum()).backward()
        climber.step()
    ratio = norms(model(first) - model(second), "l2") / norms(first - second, "l2")
    assert 0.3 < float(ratio.detach().max()) <= model_bound(model, (2, 8, 8)).value <= 1.8
    assert bound <= 1.8
