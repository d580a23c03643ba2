"""Nets of one hidden layer: the dual is above the maximum over all corners, and is the source's bound for its c."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hauberk.conformance import check_lipschitz_layer
from hauberk.errors import HauberkError
from hauberk.layers import OneHiddenLayer, pairwise_bounds


def layer_of(seed: int, features: int = 3, hidden: int = 4, classes: int = 3, spread: float = 1.0) -> OneHiddenLayer:
    """Random weights, and dual variables that nobody has trained."""
    layer = OneHiddenLayer(features, hidden, classes).double().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in layer.named_parameters():
        size = spread if name.startswith("log") else 1.0
        weight.copy_(size * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    return layer


def matrix(layer: OneHiddenLayer, i: int, j: int) -> np.ndarray:
    """M of the source, written down from its definition."""
    first, last = layer.net[0].weight.numpy(), layer.net[2].weight.numpy()
    v = last[i] - last[j]
    d, m = first.shape[1], first.shape[0]
    made = np.zeros((1 + d + m, 1 + d + m))
    made[0, 1 : 1 + d] = first.T @ v
    made[1 : 1 + d, 1 + d :] = first.T @ np.diag(v)
    return made + made.T


def corners(layer: OneHiddenLayer, i: int, j: int) -> float:
    """A quarter of the largest value of y' M y over all vectors of signs."""
    form = matrix(layer, i, j)
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=len(form))))
    return float(np.einsum("ni,ij,nj->n", signs, form, signs).max()) / 4.0


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), spread=st.sampled_from([0.0, 1.0, 30.0]), features=st.integers(1, 4))
def test_no_corner_is_above_the_bound_whatever_the_dual_variables(seed: int, spread: float, features: int) -> None:
    layer = layer_of(seed, features, spread=spread)
    bounds = layer.pairwise_bounds((features,), "linf")
    assert torch.equal(bounds, bounds.T)
    assert torch.equal(bounds.diagonal(), torch.zeros(3, dtype=torch.float64))
    for i, j in itertools.combinations(range(3), 2):
        assert corners(layer, i, j) <= float(bounds[i, j])


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_bound_of_the_source_at_its_own_c(seed: int) -> None:
    # (1/4) (D max(0, lambda_max(M - diag c)) + sum of max(c, 0)), with numpy's eigenvalues; p and q of one length
    layer = layer_of(seed, spread=0.3)
    scaled, size, _ = layer.duals(torch.float64)
    for pair, (i, j) in enumerate(itertools.combinations(range(3), 2)):
        p, q = (np.exp(logs[pair].numpy()) for logs in (layer.log_p, layer.log_q))
        p, q = p / np.linalg.norm(p), q / np.linalg.norm(q)
        form, d = matrix(layer, i, j), len(p)
        inside = form[1 : 1 + d][:, [0, *range(1 + d, len(form))]] / np.outer(p, q)
        norm = np.linalg.svd(inside, compute_uv=False)[0]
        c = norm * np.concatenate([q[:1] ** 2, p**2, q[1:] ** 2])
        above = np.linalg.eigvalsh(form - np.diag(c)).max()
        assert abs(above) < 1e-9 * norm  # c stands above M, and touches it
        found = 0.5 * float(torch.linalg.matrix_norm(scaled[pair], 2) * size[pair])
        assert found == pytest.approx((len(form) * max(0.0, above) + c.sum()) / 4.0, rel=1e-9)


def test_one_pixel_and_one_unit_by_hand() -> None:
    # f_0 - f_1 = 2 relu(3 x): the slope is 6, and B = (6, 6), so that p = 1 and q = (1, 1) give |B| sqrt(2) / 2 = 6
    layer = OneHiddenLayer(1, 1, 2).double().eval().requires_grad_(False)
    layer.net[0].weight.fill_(3.0)
    layer.net[2].weight.copy_(torch.tensor([[2.0], [0.0]]))
    assert float(layer.pairwise_bounds((1,), "linf")[0, 1]) == pytest.approx(6.0, rel=1e-8)


def test_gradient_ascent_finds_nothing_faster() -> None:
    layer = layer_of(5, features=6, hidden=8, spread=0.1)
    bounds = layer.pairwise_bounds((6,), "linf")
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(64, 6, generator=generator, dtype=torch.float64)
    steps = torch.randn(64, 6, generator=generator, dtype=torch.float64).clamp(-1, 1).requires_grad_(True)
    for _ in range(60):
        apart = layer(points + steps) - layer(points)
        (slope,) = torch.autograd.grad((apart[:, 0] - apart[:, 1]).sum(), steps)
        steps = (steps + 0.1 * slope.sign()).clamp(-1, 1).detach().requires_grad_(True)
    apart = (layer(points + steps) - layer(points)) / steps.abs().amax(1, keepdim=True)
    fastest = float((apart[:, 0] - apart[:, 1]).detach().max())
    assert 0.3 * float(bounds[0, 1]) < fastest <= float(bounds[0, 1])


def test_other_norms_and_what_stands_before_it() -> None:
    layer = layer_of(7)
    plain = pairwise_bounds(layer.net, (3,), "l2")
    assert torch.equal(layer.pairwise_bounds((3,), "l2"), plain)
    assert bool((layer.pairwise_bounds((3,), "linf") <= pairwise_bounds(layer.net, (3,), "linf")).all())
    twice = nn.Linear(3, 3, bias=False).double().requires_grad_(False)
    twice.weight.copy_(2.0 * torch.eye(3))
    model = nn.Sequential(twice, layer).eval()
    for norm in ("linf", "l2"):
        alone = layer.pairwise_bounds((3,), norm)
        assert torch.allclose(pairwise_bounds(model, (3,), norm), 2.0 * alone, rtol=1e-6)
    assert pairwise_bounds(layer, (3,), "linf") == pytest.approx(layer.pairwise_bounds((3,), "linf"))


def test_sums_that_cancel_are_counted() -> None:
    # W' v is 0 but for rounding, and q takes it for large: what rounding left is not taken for nothing
    layer = layer_of(3, features=2, hidden=2, classes=2, spread=0.0)
    big = float(2**40) + 1.0
    layer.net[0].weight.copy_(torch.tensor([[1.0, 1.0], [1.0, 1.0]]))
    layer.net[2].weight.copy_(torch.tensor([[big / 3, -big / 3], [0.0, 0.0]]))
    lost = float(layer.duals(torch.float64)[2][0])
    assert lost >= 2.0**-52 * big
    layer.log_q[0, 0] = -5.0  # the sums count for more, and so does what they lost
    assert float(layer.duals(torch.float64)[2][0]) == pytest.approx(math.exp(5.0) * lost)


def test_the_contract() -> None:
    check_lipschitz_layer(layer_of(1), (3,))


def test_nan_and_images_are_refused() -> None:
    layer = layer_of(2)
    layer.log_q[0, 1] = float("nan")
    with pytest.raises(HauberkError, match="dual variables"):
        layer.pairwise_bounds((3,), "linf")
    with pytest.raises(HauberkError, match="flat features"):
        layer.lipschitz_bound((1, 2, 3))


def test_a_subclass_that_computes_something_else_is_refused() -> None:
    class Doubled(OneHiddenLayer):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return 2.0 * super().forward(features)

        def lipschitz_bound(self, input_shape, norm="l2"):
            return super().lipschitz_bound(input_shape, norm)

        def weighted_branches(self):
            return super().weighted_branches()

    with pytest.raises(HauberkError, match="pairwise_bounds"):
        pairwise_bounds(Doubled(3, 4, 3).eval(), (3,), "linf")
