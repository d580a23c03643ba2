"""Rounding of the float64 forward pass: what cancels proves nothing, the allowance exceeds what exact sums find."""

import math
from fractions import Fraction

import pytest
import torch
from torch import nn

from hauberk import verify
from hauberk.batch import Batch
from hauberk.certificates import FrozenLipschitz, LipschitzCertificate, lipschitz_radii, rounding
from hauberk.certificates.evidence import LogitMargins
from hauberk.certificates.mixed import MixedCertificate
from hauberk.certificates.rounding import ExactForward
from hauberk.certificates.top_k import top_k_radius
from hauberk.defences.mixed import MixedClassifier
from hauberk.layers import (
    AffineResidual,
    AOLLinear,
    Bound,
    Concatenation,
    ConvexResidual,
    LinearSpline,
    SandwichLinear,
    SLLLinear,
    UnitRowLinear,
    walk,
)

read = LogitMargins.read
CERTIFICATE = LipschitzCertificate()


def images_of(rows: int, seed: int, side: int = 2) -> Batch:
    images = torch.rand(rows, 1, side, side, generator=torch.Generator().manual_seed(seed))
    return Batch(images, torch.zeros(rows).long(), torch.arange(rows))


def shift(by: float) -> nn.Linear:
    layer = nn.Linear(2, 2, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(2))
        layer.bias.fill_(by)
    return layer


def two_pixels(first: float, second: float) -> Batch:
    return Batch(torch.tensor([[[[first, second]]]]).double(), torch.tensor([0]), torch.tensor([0]))


@pytest.mark.parametrize("inside", [False, True])
def test_a_margin_lost_between_large_biases_proves_nothing(inside: bool) -> None:
    """Sums near 2^52 are whole numbers: a gap of 0.02 becomes 1, and a radius five times too large would follow."""
    middle: nn.Module = nn.Sequential(shift(2.0**52), shift(-(2.0**52)))
    middle = ConvexResidual(middle).double() if inside else middle
    net = nn.Sequential(nn.Flatten(), middle).eval()
    batch = two_pixels(0.51, 0.49)
    assert float((net(batch.images) @ torch.tensor([1.0, -1.0]).double()).detach()) > 0.5  # 25 or 50 times what it is
    found = CERTIFICATE(net, batch)
    assert found.radius.tolist() == [0.0]
    assert found.rows[0]["rounding"] > 1.0
    assert FrozenLipschitz(net, (1, 1, 2))(batch.images)[1].tolist() == [0.0]
    assert verify.lipschitz(found.rows[0], found.shared) == (0, 0.0)


def test_rounding_by_hand() -> None:
    """e = sqrt 2 rho (L_2 (|x_1| + L_1 |x_0|) + |x_2| + L_2 |x_1|)."""
    first, second = shift(0.0), shift(0.0)
    with torch.no_grad():
        first.weight.mul_(2.0)
        second.weight.mul_(3.0)
    forward = ExactForward(walk(nn.Sequential(nn.Flatten(), first, second).eval(), (1, 1, 2)))
    _, moved = forward(two_pixels(0.6, 0.8).images)  # of length 1; the flattening counts as a layer
    share = 3.0 * (2.0 * (1.0 + 1.0) + 2.0 + 2.0) + 6.0 + 3.0 * 2.0
    assert float(moved) == pytest.approx(math.sqrt(2.0) * 1e-12 * share)


@pytest.mark.parametrize("size", [1.0, 2.0**20, 2.0**40])
def test_rounding_exceeds_what_exact_arithmetic_finds(size: float) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)]
    net = nn.Sequential(nn.Flatten(), *layers).double().eval()
    with torch.no_grad():
        for layer in (net[1], net[3], net[5]):
            layer.bias.add_(size)
    images = images_of(5, 1, side=2).images.double().repeat(1, 1, 1, 2)[..., :3]
    logits, moved = ExactForward(walk(net, (1, 2, 3)))(images)
    for image, row, allowance in zip(images, logits.tolist(), moved.tolist(), strict=True):
        exact = [Fraction(v) for v in image.flatten().tolist()]
        for layer in layers:
            if isinstance(layer, nn.Linear):
                weight, bias = layer.weight.tolist(), layer.bias.tolist()
                exact = [
                    Fraction(b) + sum((Fraction(w) * v for w, v in zip(line, exact, strict=True)), Fraction(0))
                    for line, b in zip(weight, bias, strict=True)
                ]
            else:
                exact = [max(v, Fraction(0)) for v in exact]
        for i, j in ((0, 1), (1, 2), (2, 0)):
            error = abs(float((exact[i] - exact[j]) - (Fraction(row[i]) - Fraction(row[j]))))
            assert error < allowance
        assert allowance < 1e-6 * size


def test_rounding_is_taken_off_every_gap() -> None:
    row, shared = {"logits": [3.0, 1.0, 0.0]}, {"pairwise": (1.0 - torch.eye(3)).tolist()}
    assert CERTIFICATE.radius(read(row | {"rounding": 0.5}, shared)) == pytest.approx(1.5)
    assert CERTIFICATE.margin(read(row | {"rounding": 2.5}, shared), 0.0) == -1.0
    assert top_k_radius(read(row | {"rounding": 0.25}, shared), 2) == pytest.approx(0.75)
    gaps = lipschitz_radii(torch.tensor([[3.0, 1.0, 0.0]]).double(), torch.ones(3, 3).double(), torch.tensor([0.5]))
    assert float(gaps[1]) == pytest.approx(1.5)


def affine(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight), dtype=torch.float64)
    layer.load_state_dict(
        {"weight": torch.tensor(weight, dtype=torch.float64), "bias": torch.tensor(bias, dtype=torch.float64)}
    )
    return layer


def lost(kind: str) -> nn.Module:
    """A layer on one number whose float64 output at 0.5 is far from the true one."""
    if kind in ("residual", "concatenation"):
        branch = nn.Sequential(affine([[1e-17]], [1.0]), affine([[1e17]], [-1e17]))  # the identity
        return AffineResidual(branch, skip=0.0).double() if kind == "residual" else Concatenation(branch)
    if kind == "gradient step":  # x - 2 U' relu(U x + b), hidden units that are both on
        layer = SLLLinear(1, 2).double()
        with torch.no_grad():
            layer.parametrizations.weight.original.copy_(torch.tensor([[1.0], [-1.0]]))
            layer.bias.fill_(1e17)
        return layer
    if kind == "spline":
        return LinearSpline(1, knots=3, reach=1e17, start="identity").double()
    layer = nn.BatchNorm1d(1).double()
    layer.running_mean.fill_(1e17)
    with torch.no_grad():
        layer.bias.fill_(1e17 / math.sqrt(1.0 + layer.eps))
    return layer


@pytest.mark.parametrize("kind", ["residual", "concatenation", "gradient step", "spline", "batch norm"])
def test_what_is_lost_inside_a_layer_proves_nothing(kind: str) -> None:
    layer = lost(kind)
    net = nn.Sequential(nn.Flatten(), layer, affine([[1.0], [0.0]], [0.0, 0.25])).eval()
    batch = Batch(torch.full((1, 1, 1, 1), 0.5).double(), torch.tensor([0]), torch.tensor([0]))
    assert CERTIFICATE(net, batch).radius.tolist() == [0.0]
    assert FrozenLipschitz(net, (1, 1, 1))(batch.images)[1].tolist() == [0.0]


def test_a_sandwich_counts_its_scaled_bias() -> None:
    layer = SandwichLinear(2, 2).double().eval()
    with torch.no_grad():
        layer.log_psi.copy_(torch.tensor([2.0, 3.0]))
        layer.bias.copy_(torch.tensor([5.0, 7.0]))
    expected = 2.0 * (5.0 + math.hypot(5.0 * math.exp(2.0), 7.0 * math.exp(3.0)))
    assert float(layer.inner_size(torch.tensor([[3.0, 4.0]]).double(), 1.0).detach()) == pytest.approx(expected)


def test_underflow_proves_nothing() -> None:
    steps = [affine([[factor]], [0.0]) for factor in (1e-300, 1e-30, 1e300, 1e30)]
    net = nn.Sequential(nn.Flatten(), *steps, affine([[1.0], [0.0]], [0.0, 0.25])).eval()
    batch = Batch(torch.full((1, 1, 1, 1), 0.5).double(), torch.tensor([0]), torch.tensor([0]))
    assert CERTIFICATE(net, batch).radius.tolist() == [0.0]


def test_ordinary_layers_lose_little() -> None:
    torch.manual_seed(0)
    body = (SLLLinear(4, 6), SandwichLinear(4, 4), LinearSpline(4), ConvexResidual(AOLLinear(4, 4)), nn.BatchNorm1d(4))
    net = nn.Sequential(nn.Flatten(), *body, UnitRowLinear(4, 3)).eval()
    batch = images_of(4, 0)
    found = CERTIFICATE(net, batch)
    assert all(row["rounding"] < 1e-9 for row in found.rows)
    assert bool((found.radius > 0.0).all())
    assert torch.equal(batch.images, images_of(4, 0).images)


class Negate(nn.Module):
    """Works in place."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul_(-1.0)

    def lipschitz_bound(self, input_shape: tuple[int, ...]) -> Bound:
        return Bound(1.0, "sign", True)


def test_a_first_layer_in_place_leaves_the_images() -> None:
    net = nn.Sequential(Negate(), nn.Flatten(), affine([[1.0], [0.0]], [0.0, 0.25])).eval()
    images = torch.full((1, 1, 1, 1), 0.5).double()
    FrozenLipschitz(net, (1, 1, 1))(images)
    assert float(images) == 0.5


def test_a_scaled_mix_scales_the_rounding_too() -> None:
    robust = nn.Sequential(nn.Flatten(), shift(2.0**30), shift(-(2.0**30)), affine([[1, 0], [0, 1]], [0.0, 0.4995]))
    batch = two_pixels(0.5, 0.0)
    for scale in (1.0, 3000.0):
        mix = MixedClassifier(robust, robust, 0.9, 1.0, scale).eval()
        row = MixedCertificate(CERTIFICATE)(mix, batch).rows[0]
        assert row["rounding"] == pytest.approx(scale * CERTIFICATE(robust.eval(), batch).rows[0]["rounding"])


def test_a_model_is_walked_once_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    net, other = (nn.Sequential(nn.Flatten(), AOLLinear(4, 4), AOLLinear(4, 3)).eval() for _ in range(2))
    batch, walks = images_of(3, 0), []
    monkeypatch.setattr(rounding, "walk", lambda *given: (walks.append(given), walk(*given))[1])
    with rounding.unchanged():
        first = CERTIFICATE(net, batch).radius
        with rounding.unchanged():
            assert torch.equal(CERTIFICATE(net, batch).radius, first)
        CERTIFICATE(other, batch)
    assert len(walks) == 2
    with torch.no_grad():
        net[2].bias.add_(torch.tensor([0.0, 9.0, 0.0]))
    assert not torch.equal(CERTIFICATE(net, batch).radius, first)
    assert len(walks) == 3
