"""Total variation minimisation: closed cases, a convex solver of its own, the mask, and its gradients."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import nn

from hauberk import registry
from hauberk.attacks.gradients import attackable, draws
from hauberk.classifier import traits
from hauberk.conformance import check_classifier
from hauberk.defences.total_variation import Minimisation, RandomTotalVariation, TotalVariation, total_variation
from hauberk.draws import drawn
from hauberk.errors import HauberkError
from hauberk.models import small_cnn
from hauberk.randomness import Key

KINDS = ("isotropic", "l1")


def images(rows=2, side=8, channels=1):
    found = torch.rand(rows, channels, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found[..., : side // 2] += 1.0  # an edge
    return found / 2.0


def mask(like, drop=0.5, seed=2):
    return (torch.rand(like.shape, generator=torch.Generator().manual_seed(seed)) >= drop).to(like)


def matrix(side):
    """All differences down, then all to the right, as a dense matrix on images read row by row."""
    step = np.diff(np.eye(side), axis=0, append=np.eye(side)[-1:])
    return np.concatenate([np.kron(step, np.eye(side)), np.kron(np.eye(side), step)])


def variation(flows, kind):
    down, right = np.split(flows, 2)
    return (np.hypot(down, right) if kind == "isotropic" else abs(down) + abs(right)).sum()


def dual_solution(image, weight, kind, steps=20_000):
    """The minimiser without a mask by projected ascent on the dual, and the duality gap: the error is sqrt(2 gap)."""
    x, d = image.reshape(-1), matrix(len(image))
    p = ahead = np.zeros(len(d))
    for k in range(steps):
        new = ahead + d @ (x - d.T @ ahead) / 8.0
        if kind == "isotropic":
            pair = new.reshape(2, -1)
            new = (pair * np.minimum(1.0, weight / np.maximum(np.hypot(*pair), 1e-300))).reshape(-1)
        else:
            new = new.clip(-weight, weight)
        ahead, p = new + k / (k + 3.0) * (new - p), new
    z = x - d.T @ p
    primal = 0.5 * ((z - x) ** 2).sum() + weight * variation(d @ z, kind)
    return z.reshape(image.shape), primal - (0.5 * (x @ x) - 0.5 * (z @ z))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weight", [0.03, 0.2])
def test_without_a_mask_it_is_the_minimiser_of_another_solver(kind, weight):
    x = images(1)
    exact, gap = dual_solution(x[0, 0].numpy(), weight, kind)
    assert gap < 1e-9
    found = Minimisation(weight, 3000, kind)(x, torch.ones_like(x))
    assert abs(found[0, 0].numpy() - exact).max() < 1e-3
    assert abs(exact - x[0, 0].numpy()).max() > 0.02  # there is something to find


@pytest.mark.parametrize("kind", KINDS)
def test_with_a_mask_its_objective_is_the_least(kind):
    """Held against L-BFGS on an objective that is smooth, at most 64 lambda delta (isotropic) above the true one."""
    x, weight = images(1), 0.05
    kept, d = mask(x), matrix(8)
    known, k = x.numpy().reshape(-1), kept.numpy().reshape(-1)

    def smooth(z, delta):
        flows = d @ z
        squares = (flows.reshape(2, -1) ** 2).sum(0) if kind == "isotropic" else flows**2
        lengths = np.sqrt(squares + delta**2)
        slopes = flows / (np.tile(lengths, 2) if kind == "isotropic" else lengths)
        return 0.5 * (k * (z - known) ** 2).sum() + weight * lengths.sum(), k * (z - known) + weight * d.T @ slopes

    start, bounds = np.full(64, 0.5), {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-15, "gtol": 1e-10}
    for delta in (1e-2, 1e-3, 1e-4, 1e-5):
        best = optimize.minimize(smooth, start, (delta,), "L-BFGS-B", jac=True, options=bounds)
        start = best.x
    solver = Minimisation(weight, 3000, kind)
    least = float(solver.objective(solver(x, kept), x, kept))
    assert least == pytest.approx(best.fun, abs=2e-3 * best.fun)
    assert least <= best.fun + 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_the_objective_is_that_of_the_matrix_and_falls_with_the_steps(kind):
    x = images()
    kept = mask(x)
    z = torch.rand(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(5))
    by_hand = [
        0.5 * (m * (a - b) ** 2).sum() + 0.1 * variation(matrix(8) @ a.reshape(-1), kind)
        for a, b, m in zip(z.numpy()[:, 0], x.numpy()[:, 0], kept.numpy()[:, 0], strict=True)
    ]
    assert Minimisation(0.1, 1, kind).objective(z, x, kept).tolist() == pytest.approx(by_hand)
    solvers = [Minimisation(0.1, n, kind) for n in (0, 5, 20, 80, 320)]
    values = torch.stack([solver.objective(solver(x, kept), x, kept) for solver in solvers])
    assert bool((values[1:] <= values[:-1] + 1e-9).all())
    assert bool((values[-1] < 0.9 * values[0]).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("drop", [0.0, 0.5])
def test_a_constant_image_stays(kind, drop):
    x = torch.full((2, 3, 6, 7), 0.3, dtype=torch.float64)
    x[1] = 0.9
    found = Minimisation(0.1, 50, kind)(x, mask(x, drop))
    assert torch.allclose(found, x, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_with_little_weight_and_all_pixels_it_is_the_identity_and_with_more_there_is_less_variation(kind):
    x = images()
    whole = torch.ones_like(x)
    assert torch.allclose(Minimisation(1e-9, 50, kind)(x, whole), x, atol=1e-7)
    left = [
        Minimisation(1.0, 1, kind).objective(Minimisation(w, 400, kind)(x, whole), x, 0 * x)
        for w in (0.01, 0.03, 0.1, 0.3, 1.0)
    ]
    assert all(bool((b < a - 1e-3).all()) for a, b in pairwise(left))


def test_fifty_steps_are_within_half_a_percent_at_the_usual_setting():
    """On an image with edges and texture of the size of CIFAR-10's."""
    x = images(2, 32, 3)
    kept = mask(x)
    short, long = (Minimisation(0.03, n, "isotropic") for n in (50, 2000))
    least = long.objective(long(x, kept), x, kept)
    assert bool((short.objective(short(x, kept), x, kept) <= 1.005 * least).all())


def test_dropped_pixels_do_not_matter():
    x = images()
    kept = mask(x)
    other = torch.where(kept > 0, x, 0.1)
    solver = Minimisation(0.03, 30, "isotropic")
    assert torch.equal(solver(x, kept), solver(other, kept))
    assert bool(solver(x, 0 * kept).isfinite().all())


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_the_steps_is_that_of_finite_differences(kind):
    x = images(1, 5)
    kept = mask(x)
    torch.autograd.gradcheck(lambda z: Minimisation(0.05, 12, kind)(z, kept), x.clone().requires_grad_(True))
    flat = torch.full_like(x, 0.5).requires_grad_(True)
    (gradient,) = torch.autograd.grad(Minimisation(0.05, 12, kind)(flat, kept).square().sum(), flat)
    assert bool(gradient.isfinite().all())


# --- the defence ------------------------------------------------------------------------------------------------


def net(**settings):
    torch.manual_seed(0)
    base = small_cnn((3, 12, 12), 3, (0.5,) * 3, (0.2,) * 3, widths=(4,), strides=(1,))
    return total_variation(base.eval(), **settings)


@pytest.mark.parametrize(
    "settings",
    [{}, {"drop": 0.0, "kind": "l1"}, {"backward": "identity"}, {"drop": 0.0, "backward": "identity", "steps": 5}],
)
def test_the_contract_and_the_spec(settings):
    model = net(**settings)
    check_classifier(model, (3, 12, 12))
    again = registry.build(registry.spec(model)).eval()
    again.load_state_dict(model.state_dict())
    x, key = torch.rand(2, 3, 12, 12), Key(0, 0, (1, 2), "test")
    assert torch.equal(drawn(again, key)(x), drawn(model, key)(x))


def test_the_mask_drops_each_value_with_its_probability():
    step = RandomTotalVariation(Minimisation(0.03, 0, "isotropic"), "exact", 0.3)
    x = torch.rand(1, 3, 100, 100)
    kept = step.draw(Key(0, 0, (4,), "test"))(x) == x  # with no steps, what is kept is there and the rest is the mean
    assert float(kept.float().mean()) == pytest.approx(0.7, abs=0.01)
    assert not torch.equal(kept[:, 0], kept[:, 1])
    twice = step.draw(Key(0, 0, (4, 5), "test"))(x.expand(2, -1, -1, -1))
    assert step.traits.stochastic and not torch.equal(twice[0], twice[1])  # each image has a mask of its own


def test_traits_say_how_it_is_attacked():
    x = torch.rand(2, 3, 12, 12)
    said = {
        (drop, backward): traits(net(drop=drop, backward=backward))
        for drop in (0.0, 0.5) for backward in ("exact", "identity")
    }  # fmt: skip
    assert [t.stochastic for t in said.values()] == [False, False, True, True]
    assert [t.gradient for t in said.values()] == ["exact", "none", "exact", "none"]
    assert draws(net(), x) == 20
    assert draws(net(drop=0.0), x) == 1


def test_bpda_is_exact_forwards_and_the_identity_backwards():
    x = torch.rand(2, 3, 6, 6)
    key = Key(0, 0, (1, 2), "test")
    solver = Minimisation(0.03, 20, "isotropic")
    exact = RandomTotalVariation(solver, "exact", 0.5).draw(key)
    step = RandomTotalVariation(solver, "identity", 0.5).draw(key)
    weights = torch.rand(2, 3, 6, 6)
    leaf = x.clone().requires_grad_(True)
    assert not step(leaf).requires_grad
    with attackable(step):
        found = step(leaf)
        (gradient,) = torch.autograd.grad((weights * found).sum(), leaf)
    assert torch.equal(found, exact(x))
    assert torch.equal(gradient, weights)
    (true,) = torch.autograd.grad((weights * exact(leaf)).sum(), leaf)
    assert not torch.allclose(true, weights, atol=0.1)


def test_settings_out_of_range_are_refused():
    for wrong in ({"drop": 1.0}, {"drop": -0.1}, {"weight": 0.0}, {"weight": float("nan")}, {"weight": float("inf")}):
        with pytest.raises(HauberkError, match="expected 0 <= drop < 1"):
            net(**wrong)
    with pytest.raises(HauberkError, match="drop"):
        registry.build({"name": "total_variation", "drop": 1.0}, base=net().base)
    assert isinstance(net(drop=0.0).purifier, TotalVariation)
    assert isinstance(net().base, nn.Module)
