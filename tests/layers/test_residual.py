"""Sums and concatenations: bounds from those of the branches, attained by linear branches."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hauberk.conformance import check_lipschitz_layer
from hauberk.errors import HauberkError
from hauberk.layers import AOLConv2d, MaxMin, model_bound
from hauberk.layers.residual import AffineResidual, Concatenation, ConvexResidual, plus

SHAPE = (2, 4, 4)


def branch(seed: int = 0, out: int = 2) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), MaxMin(), nn.Conv2d(4, out, 1))


def scaling(factor: float) -> nn.Module:
    """x -> factor * x, as a layer that the walk can bound."""
    layer = nn.Conv2d(2, 2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(factor * torch.eye(2)[:, :, None, None])
    return layer


def stretch(function: Callable[[Tensor], Tensor], norm: str, count: int = 40) -> float:
    """The largest ratio of distances among random pairs and Jacobians, in the norm."""
    generator = torch.Generator().manual_seed(5)
    best = 0.0
    for _ in range(count // 10):
        point = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(lambda x: function(x[None])[0].flatten(), point).flatten(1)
        if norm == "l2":
            best = max(best, float(torch.linalg.matrix_norm(jacobian, 2)))
        else:
            best = max(best, float(jacobian.abs().sum(0 if norm == "l1" else 1).max()))
    return best


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize(
    "build",
    [
        lambda: AffineResidual(branch()),
        lambda: AffineResidual(branch(), skip=-0.5, gain=2.0, learnable=True),
        lambda: ConvexResidual(branch(), 0.3),
        lambda: Concatenation(branch(0), branch(1, 3), nn.Identity()),
        lambda: AffineResidual(ConvexResidual(nn.Sequential(branch(), nn.ReLU()))),
    ],
)
def test_no_point_is_steeper(build: Callable[[], nn.Module], norm: str) -> None:
    layer = build().double().eval()
    assert stretch(layer, norm) <= layer.lipschitz_bound(SHAPE, norm).value


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_attained_by_linear_branches(norm: str) -> None:
    two, three = scaling(2.0), scaling(3.0)
    cases = [
        (AffineResidual(two), 3.0),
        (AffineResidual(two, skip=-1.5, gain=-0.5), 2.5),
        (ConvexResidual(two, 0.25), 0.25 + 0.75 * 2.0),
        (ConvexResidual(scaling(-1.0), 0.5), 1.0),
        (Concatenation(two, three), {"l1": 5.0, "l2": math.sqrt(13.0), "linf": 3.0}[norm]),
        (Concatenation(three), 3.0),
    ]
    for layer, expected in cases:
        bound = layer.double().eval().lipschitz_bound(SHAPE, norm)
        assert bound.value == pytest.approx(expected, rel=1e-7)
        assert bound.value >= expected * (1 - 1e-15)
        assert stretch(layer, norm) <= bound.value


def test_a_residual_is_not_bounded_by_its_branch_alone() -> None:
    # the common mistake: a 1-Lipschitz branch beside a skip is 2-Lipschitz, and no less
    layer = AffineResidual(scaling(1.0)).double().eval()
    assert stretch(layer, "l2") == pytest.approx(2.0)
    assert layer.lipschitz_bound(SHAPE).value == pytest.approx(2.0, rel=1e-7)


def test_a_shortcut_takes_the_place_of_the_input_and_its_share_of_the_bound() -> None:
    wide = nn.Conv2d(2, 3, 1, bias=False)
    with torch.no_grad():
        wide.weight.zero_()[:2] = 3.0 * torch.eye(2)[:, :, None, None]
    layer = ConvexResidual(nn.Conv2d(2, 3, 1), alpha=0.25, shortcut=wide).eval()
    with torch.no_grad():
        for values in layer.branch.parameters():
            values.zero_()
    images = torch.rand(2, *SHAPE)
    assert torch.allclose(layer(images), 0.25 * wide(images))
    assert model_bound(layer, SHAPE).value == pytest.approx(0.75)
    assert [share for share, _ in layer.weighted_branches()] == pytest.approx([0.75, 0.25])
    check_lipschitz_layer(ConvexResidual(branch(out=3), shortcut=nn.Conv2d(2, 3, 1)), SHAPE)


def test_convex_weights_are_learned_and_stay_within_one() -> None:
    layer = ConvexResidual(AOLConv2d(2, 2, 3, padding=1), 0.9)
    assert layer.alpha.item() == pytest.approx(0.9)
    optimiser = torch.optim.SGD(layer.parameters(), 1.0)
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    for _ in range(5):
        optimiser.zero_grad()
        layer(x).square().sum().backward()
        optimiser.step()
    assert layer.alpha.item() != pytest.approx(0.9)
    assert layer.double().eval().lipschitz_bound(SHAPE).value <= 1.0
    for extreme in (1e3, -1e3):
        with torch.no_grad():
            layer.logit.fill_(extreme)
        assert layer.lipschitz_bound(SHAPE).value <= 1.0


def test_formulas() -> None:
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    f, g = branch(0), branch(1, 3)
    assert torch.allclose(AffineResidual(f, 0.5, -2.0)(x), 0.5 * x - 2.0 * f(x))
    assert torch.allclose(ConvexResidual(f, 0.2)(x), 0.2 * x + 0.8 * f(x), atol=1e-6)
    assert torch.equal(Concatenation(f, g)(x), torch.cat([f(x), g(x)], 1))
    assert plus(0.0, 0.3) == 0.3
    assert plus(1.0, 2.0**-60) > 1.0


def test_learnable_weights_and_state() -> None:
    learned, fixed = AffineResidual(branch(), learnable=True), AffineResidual(branch(), skip=0.7)
    assert {name for name, _ in learned.named_parameters()} >= {"skip", "gain"}
    assert not {name for name, _ in fixed.named_parameters()} & {"skip", "gain"}
    twin, fresh = copy.deepcopy(fixed), AffineResidual(branch(3))
    fresh.load_state_dict(fixed.state_dict())
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fresh(x), fixed(x))
    assert torch.equal(twin(x), fixed(x))


def test_contract_and_walk() -> None:
    for layer in (AffineResidual(branch()), ConvexResidual(branch()), Concatenation(branch(), branch(1, 3))):
        check_lipschitz_layer(layer, SHAPE)
    model = nn.Sequential(ConvexResidual(scaling(1.0)), nn.Flatten(), nn.Linear(32, 3)).double().eval()
    assert model_bound(model, SHAPE).value <= model_bound(model[2], (32,)).value * (1 + 1e-8)


def test_refusals() -> None:
    # broadcasting would repeat values, which adds length that no bound knows of
    narrow = AffineResidual(nn.Conv2d(2, 1, 1)).eval()
    with pytest.raises(HauberkError, match="keeps the shape"):
        narrow(torch.zeros(1, *SHAPE))
    with pytest.raises(HauberkError, match="keeps the shape"):
        model_bound(nn.Sequential(narrow).eval(), SHAPE)
    with pytest.raises(HauberkError, match="strictly between"):
        ConvexResidual(nn.Identity(), 1.0)
    with pytest.raises(HauberkError, match="needs at least one branch"):
        Concatenation()
    with pytest.raises(HauberkError, match="GELU"):
        AffineResidual(nn.Sequential(nn.GELU())).eval().lipschitz_bound(SHAPE)
    with pytest.raises(HauberkError, match="train"):
        Concatenation(branch()).lipschitz_bound(SHAPE)
    # the identity would pass on what the other branch has made of the input
    shared = Concatenation(nn.Identity(), nn.Sequential(nn.LeakyReLU(3.0, inplace=True))).eval()
    assert shared(-torch.ones(1, *SHAPE)).min() == -3.0
    with pytest.raises(HauberkError, match="in place"):
        shared.lipschitz_bound(SHAPE)
    broken = AffineResidual(scaling(1.0), gain=math.nan).eval()
    with pytest.raises(HauberkError, match="finite"):
        broken.lipschitz_bound(SHAPE)
