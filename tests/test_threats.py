"""Threats against an independent dual solver, SLSQP, and closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import optimize

from hauberk.randomness import PerSample
from hauberk.threats import L1, L2, Linf, Threat, norm_equivalence, norms

ROWS = 100  # cases in one example: 100 examples of 100 cases
KINDS = (L1, L2, Linf)
CASES = st.tuples(  # seed, pixels, log budget, log scale, share of border pixels
    st.integers(0, 2**32 - 1),
    st.integers(1, 9),
    st.floats(-3.0, 1.0),
    st.floats(-2.0, 1.5),
    st.sampled_from((0.0, 0.4)),
)
# no shrinking: an example is a hundred cases, and the assertion shows the one that fails
ALIKE = settings(max_examples=100, deadline=None, derandomize=True, database=None, phases=[Phase.generate])


def random_cases(case: tuple, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Points, origins and a budget; some pixels of the origins lie on the border of the box."""
    seed, size, log_eps, log_scale, border = case
    generator = torch.Generator().manual_seed(seed)
    origins = torch.rand(ROWS, 1, 1, size, generator=generator, dtype=torch.float64)
    corner = torch.rand(origins.shape, generator=generator) < border
    origins = torch.where(corner, origins.round(), origins)
    points = origins + 10**log_scale * torch.randn(origins.shape, generator=generator, dtype=torch.float64)
    return points.to(dtype), origins.to(dtype), 10**log_eps * size ** (0.5 if seed % 2 else 0.0)


def nearest(norm: str, z: np.ndarray, x: np.ndarray, eps: float) -> np.ndarray:
    """The nearest point of ball and box by the multiplier of the ball's constraint, found by bisection; rows apart."""
    if norm == "linf":
        return np.clip(z, np.maximum(x - eps, 0.0), np.minimum(x + eps, 1.0))

    def best(multiplier: np.ndarray) -> np.ndarray:  # of 1/2 |u - z|^2 + multiplier * constraint, in the box
        m = multiplier[:, None]
        if norm == "l2":
            return np.clip((z + m * x) / (1.0 + m), 0.0, 1.0)
        return np.clip(np.where(z > x + m, z - m, np.where(z < x - m, z + m, x)), 0.0, 1.0)

    def length(u: np.ndarray) -> np.ndarray:
        return np.abs(u - x).sum(1) if norm == "l1" else np.sqrt(((u - x) ** 2).sum(1))

    low, high = np.zeros(len(z)), np.full(len(z), 1e9)
    for _ in range(200):
        middle = np.where(low > 0, np.sqrt(np.maximum(low, 1e-300) * high), 0.5 * (low + high))
        middle = np.where(high - low < 1.0, 0.5 * (low + high), middle)
        inside = length(best(middle)) <= eps
        low, high = np.where(inside, low, middle), np.where(inside, middle, high)
    return np.where((length(np.clip(z, 0.0, 1.0)) <= eps)[:, None], np.clip(z, 0.0, 1.0), best(high))


@pytest.mark.parametrize("kind", KINDS)
@given(case=CASES)
@ALIKE
def test_projection_is_the_nearest_point_of_ball_and_box(kind: type[Threat], case: tuple) -> None:
    points, origins, eps = random_cases(case)
    threat = kind(eps)
    found = threat.project(points, origins)
    assert bool(((found >= 0) & (found <= 1)).all())
    assert float(threat.distance(found, origins).max()) <= eps * (1 + 1e-9) + 1e-12
    expected = nearest(threat.norm, points.flatten(1).numpy(), origins.flatten(1).numpy(), eps)
    np.testing.assert_allclose(found.flatten(1).numpy(), expected, atol=2e-7, rtol=0)
    torch.testing.assert_close(threat.project(found, origins), found, atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@given(case=CASES)
@ALIKE
def test_single_precision_stays_inside(kind: type[Threat], case: tuple) -> None:
    points, origins, eps = random_cases(case, torch.float32)
    found = kind(eps).project(points, origins)
    assert bool(((found >= 0) & (found <= 1)).all())
    rounding = 1e-6 * max(1.0, eps, float((points - origins).abs().max()))
    assert float(kind(eps).distance(found, origins).max()) <= eps + rounding
    torch.testing.assert_close(kind(eps).project(found, origins), found, atol=2e-6, rtol=0)
    draws = PerSample(case[0], range(ROWS), "test")
    start = kind(eps).random_point(origins, draws)
    assert bool(((start >= 0) & (start <= 1)).all())
    assert float(kind(eps).distance(start, origins).max()) <= eps + 1e-6 * max(1.0, eps)


@pytest.mark.parametrize("kind", KINDS)
@given(case=CASES)
@ALIKE
def test_steepest_step_attains_the_dual_norm(kind: type[Threat], case: tuple) -> None:
    gradient = random_cases(case)[0] - 0.5
    threat = kind(1.0)
    step = threat.steepest_step(gradient)
    torch.testing.assert_close((gradient * step).flatten(1).sum(1), threat.dual_norm(gradient), atol=1e-12, rtol=1e-9)
    assert float(norms(step, threat.norm).max()) <= 1 + 1e-9
    other = kind(1.0).project(torch.randn(gradient.shape, dtype=torch.float64), torch.zeros_like(gradient))
    assert bool(((gradient * other).flatten(1).sum(1) <= threat.dual_norm(gradient) + 1e-9).all())


@pytest.mark.parametrize("kind", [L1, Linf])
@given(case=CASES)
@ALIKE
def test_a_step_reaches_the_best_point_of_ball_and_box(kind: type[Threat], case: tuple) -> None:
    """Against a linear programme, from the middle of the box, its corners, and with entries without a gradient."""
    points, origins, size = random_cases(case)
    points, gradient = points[:4].clamp(0.0, 1.0), ((origins - 0.5) * (origins > 0.2))[:4]
    reached = kind(size).ascend(points, gradient, size).clamp(0.0, 1.0)
    assert float(kind(size).distance(reached, points).max()) <= size * (1 + 1e-9) + 1e-12
    for point, slope, found in zip(points.flatten(1), gradient.flatten(1), reached.flatten(1), strict=True):
        x, g = point.double().numpy(), slope.double().numpy()
        if kind is Linf:
            best = float(np.abs(g) @ np.minimum(size, np.where(g > 0, 1 - x, x)))
        else:  # the change as a difference of two non-negative parts
            room = [(0, v) for v in (*(1 - x), *x)]
            best = -optimize.linprog(np.r_[-g, g], A_ub=np.ones((1, 2 * len(g))), b_ub=[size], bounds=room).fun
        assert abs(float(g @ (found.double().numpy() - x)) - best) <= 1e-6


@pytest.mark.parametrize("kind", [L1, L2])
def test_projection_agrees_with_a_general_solver(kind: type[Threat]) -> None:
    generator = np.random.default_rng(4)
    for _ in range(25):
        x, z, eps = generator.random(3), generator.normal(0.5, 1.2, 3), float(generator.uniform(0.1, 1.2))
        if kind is L2:
            limit = {"type": "ineq", "fun": lambda u, x=x, eps=eps: eps**2 - ((u - x) ** 2).sum()}
            solved = optimize.minimize(
                lambda u, z=z: ((u - z) ** 2).sum(), x, bounds=[(0, 1)] * 3, constraints=[limit], method="SLSQP",
                options={"ftol": 1e-14},
            ).x  # fmt: skip
        else:  # the change as a difference of two non-negative parts
            limit = {"type": "ineq", "fun": lambda p, eps=eps: eps - p.sum()}
            solved = optimize.minimize(
                lambda p, x=x, z=z: ((x + p[:3] - p[3:] - z) ** 2).sum(), np.zeros(6), method="SLSQP",
                bounds=[(0, 1 - v) for v in x] + [(0, v) for v in x], constraints=[limit], options={"ftol": 1e-14},
            ).x  # fmt: skip
            solved = x + solved[:3] - solved[3:]
        found = kind(eps).project(torch.tensor(z)[None], torch.tensor(x)[None])[0].numpy()
        np.testing.assert_allclose(found, solved, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_may_have_its_own_budget(kind: type[Threat]) -> None:
    points, origins, _ = random_cases((5, 6, 0.0, 0.5, 0.4))
    budgets = torch.linspace(0.0, 1.5, ROWS, dtype=torch.float64)
    found = kind(9.0).project(points, origins, budgets)
    single = torch.cat([kind(float(e)).project(points[i : i + 1], origins[i : i + 1]) for i, e in enumerate(budgets)])
    torch.testing.assert_close(found, single, atol=1e-12, rtol=0)
    torch.testing.assert_close(found[0], origins[0])
    drawn = kind(9.0).random_point(origins, PerSample(1, range(ROWS), "test"), budgets)
    assert bool((kind(1.0).distance(drawn, origins) <= budgets + 1e-6).all())


@pytest.mark.parametrize("kind", KINDS)
def test_random_points_fill_the_ball(kind: type[Threat]) -> None:
    rows, size, eps = 4000, 4, 0.2
    origins = torch.full((rows, 1, 2, 2), 0.5)
    points = kind(eps).random_point(origins, PerSample(0, range(rows), "test"))
    share = (kind(eps).distance(points, origins) / eps) ** size  # uniform on [0, 1] for a uniform point of the ball
    assert float(share.mean()) == pytest.approx(0.5, abs=0.02)
    assert float((share < 0.1).float().mean()) == pytest.approx(0.1, abs=0.02)
    mean = (points - origins).mean(0).abs().max()
    assert float(mean) < 0.01  # every pixel moves both ways
    assert float((points - origins).abs().amax(0).min()) > 0.5 * eps * (1 if kind is Linf else 0.8)


def test_a_draw_of_zero_does_not_give_nan() -> None:
    class Zeros:
        def uniform(self, *shape: int) -> torch.Tensor:
            draws = torch.full((2, *shape), 0.7)
            if shape:
                draws[0].view(-1)[0] = 0.0
            return draws

        def normal(self, *shape: int) -> torch.Tensor:
            return torch.zeros(2, *shape)

    origins = torch.full((2, 1, 2, 2), 0.5)
    for kind in KINDS:
        assert bool(kind(0.3).random_point(origins, Zeros()).isfinite().all()), kind


def test_tiny_and_zero_gradients() -> None:
    tiny = torch.tensor([[3e-30, 4e-30], [0.0, 0.0]]).reshape(2, 1, 1, 2)
    step = L2(1.0).steepest_step(tiny).flatten(1)
    torch.testing.assert_close(step, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    for kind in KINDS:
        assert bool((kind(1.0).steepest_step(tiny)[1] == 0).all())


def test_norms_and_their_names() -> None:
    change = torch.tensor([[3.0, -4.0]])
    assert [float(norms(change, n)) for n in ("l1", "l2", "linf")] == [7.0, 5.0, 4.0]
    assert [float(kind(1.0).dual_norm(change)) for kind in KINDS] == [4.0, 5.0, 7.0]
    assert str(Linf(8 / 255)) == "linf:8/255"
    assert L2(0.5).distance(torch.ones(1, 4), torch.zeros(1, 4)).dtype == torch.float64


@pytest.mark.parametrize("bad", [-0.1, math.inf, math.nan])
def test_impossible_budgets_are_refused(bad: float) -> None:
    with pytest.raises(ValidationError):
        Linf(bad)


@pytest.mark.parametrize("source", ["l1", "l2", "linf"])
@pytest.mark.parametrize("target", ["l1", "l2", "linf"])
def test_norm_equivalence_is_sound_and_tight(source: str, target: str) -> None:
    size = 16
    factor = norm_equivalence(source, target, size)
    extremes = torch.cat([torch.eye(size), torch.ones(1, size), torch.randn(200, size)])
    worst = float((norms(extremes, source) / norms(extremes, target)).max())  # source length of a target unit vector
    assert factor * worst <= 1 + 1e-6
    assert factor * worst == pytest.approx(1.0, abs=1e-6)
