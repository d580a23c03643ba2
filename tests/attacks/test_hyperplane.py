"""Steps to a hyperplane within the box: linear programmes, enumeration, optimality, and the published projections."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor

from hauberk.attacks.hyperplane import FIRST, step_to_hyperplane
from hauberk.threats import Norm, norms

NORMS: tuple[Norm, ...] = ("l1", "l2", "linf")
Problem = tuple[Tensor, Tensor, Tensor]


def problem(rows: int, size: int, seed: int, share: float = 0.6) -> Problem:
    """Points, normals and values in float64, at most ``share`` of the way from the plane to the end of the box."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(rows, size, generator=generator, dtype=torch.float64)
    points[:, ::3] = points[:, ::3].round()  # some stand at a side of the box
    normals = torch.randn(rows, size, generator=generator, dtype=torch.float64)
    part = share * (2.0 * torch.rand(rows, generator=generator, dtype=torch.float64) - 1.0)
    away = torch.where(normals * part[:, None] > 0, points, 1.0 - points)  # against the sign of the value
    return points, normals, part * (normals.abs() * away).sum(1)


def shortest(point: np.ndarray, normal: np.ndarray, value: float, norm: Norm) -> float:
    """The least distance in L1 or Linf by a linear programme: delta and bounds t with -t <= delta <= t."""
    size = len(point)
    bounds_of = np.eye(size) if norm == "l1" else np.ones((size, 1))
    upper = np.block([[np.eye(size), -bounds_of], [-np.eye(size), -bounds_of]])
    many = bounds_of.shape[1]
    found = linprog(
        np.concatenate([np.zeros(size), np.ones(many)]),
        A_ub=upper,
        b_ub=np.zeros(2 * size),
        A_eq=np.concatenate([normal, np.zeros(many)])[None],
        b_eq=[-value],
        bounds=[*zip(-point, 1.0 - point, strict=True), *[(0.0, None)] * many],
    )
    assert found.status == 0
    return float(found.fun)


def shortest_by_faces(point: np.ndarray, normal: np.ndarray, value: float) -> float:
    """The least Euclidean distance: every entry is at 0, at 1 or free, and the free ones take the closed form."""
    best = np.inf
    for face in itertools.product((0.0, 1.0, None), repeat=len(point)):
        free = np.array([side is None for side in face])
        change = np.array([0.0 if side is None else side - x for side, x in zip(face, point, strict=True)])
        left = value + normal @ change
        square = float((normal * free) @ normal)
        if square == 0.0:
            if abs(left) > 1e-12:
                continue
        else:
            change = change - free * normal * left / square
        inside = (point + change >= -1e-12) & (point + change <= 1.0 + 1e-12)
        if inside.all():
            best = min(best, float(np.linalg.norm(change)))
    return best


def check_feasible(given_: Problem, step: Tensor, tolerance: float = 1e-9) -> None:
    points, normals, values = given_
    assert float((points + step).min()) >= -tolerance
    assert float((points + step).max()) <= 1 + tolerance
    torch.testing.assert_close((normals * step).sum(1), -values, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm", ["l1", "linf"])
@pytest.mark.parametrize("size", [1, 2, 5, 20, 3 * FIRST])
def test_as_short_as_a_linear_programme_finds(norm: Norm, size: int) -> None:
    asked = problem(6, size, seed=size, share=0.9)
    step = step_to_hyperplane(*asked, norm)
    check_feasible(asked, step)
    points, normals, values = (part.numpy() for part in asked)
    least = [shortest(p, w, v, norm) for p, w, v in zip(points, normals, values, strict=True)]
    np.testing.assert_allclose(norms(step, norm), least, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("size", [1, 2, 4, 6])
def test_as_short_as_the_shortest_over_all_faces_of_the_box(size: int) -> None:
    asked = problem(8, size, seed=size, share=0.9)
    step = step_to_hyperplane(*asked, "l2")
    check_feasible(asked, step)
    points, normals, values = (part.numpy() for part in asked)
    least = [shortest_by_faces(p, w, v) for p, w, v in zip(points, normals, values, strict=True)]
    np.testing.assert_allclose(norms(step, "l2"), least, rtol=1e-9, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(2, 300), share=st.floats(0.0, 1.0), norm=st.sampled_from(NORMS))
def test_no_exchange_between_two_entries_is_shorter(seed: int, size: int, share: float, norm: Norm) -> None:
    asked = problem(3, size, seed, share)
    points, normals, _ = asked
    step = step_to_hyperplane(*asked, norm)
    check_feasible(asked, step)
    length = norms(step, norm)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(20):
        i, j = torch.randperm(size, generator=generator)[:2].tolist()
        for amount in (1e-3, -1e-3):
            other = step.clone()
            other[:, i] += amount / normals[:, i]
            other[:, j] -= amount / normals[:, j]
            legal = ((points + other >= 0) & (points + other <= 1)).all(1)
            assert not bool((legal & (norms(other, norm) < length - 1e-12)).any())


@pytest.mark.parametrize("norm", NORMS)
def test_out_of_the_box_s_reach_it_leads_to_the_closest_corner(norm: Norm) -> None:
    points = torch.tensor([[0.25, 0.5, 0.75]])
    normals = torch.tensor([[1.0, -2.0, 0.0]])
    down = step_to_hyperplane(points, normals, torch.tensor([9.0]), norm)
    up = step_to_hyperplane(points, normals, torch.tensor([-9.0]), norm)
    assert torch.equal(down, torch.tensor([[-0.25, 0.5, 0.0]]))
    assert torch.equal(up, torch.tensor([[0.75, -0.5, 0.0]]))


@pytest.mark.parametrize("norm", NORMS)
def test_nothing_moves_on_the_plane_or_without_a_normal(norm: Norm) -> None:
    points = torch.rand(2, 1, 2, 3, generator=torch.Generator().manual_seed(0))
    normals = torch.stack([torch.ones(1, 2, 3), torch.zeros(1, 2, 3)])
    step = step_to_hyperplane(points, normals, torch.tensor([0.0, 1.0]), norm)
    assert torch.equal(step, torch.zeros_like(points))


@pytest.mark.parametrize("norm", NORMS)
def test_the_size_of_the_gradient_does_not_matter(norm: Norm) -> None:
    points, normals, values = (part.float() for part in problem(5, 40, seed=1))
    step = step_to_hyperplane(points, normals, values, norm)
    tiny = step_to_hyperplane(points, normals * 2.0**-80, values * 2.0**-80, norm)
    assert torch.equal(step, tiny)


@pytest.mark.parametrize("norm", NORMS)
def test_entries_that_tie_are_treated_alike(norm: Norm) -> None:
    points = torch.full((1, 4), 0.5)
    normals = torch.tensor([[1.0, -1.0, 1.0, 0.5]])
    step = step_to_hyperplane(points, normals, torch.tensor([0.6]), norm)
    assert len({round(abs(float(s)), 6) for s in step[0, :3]}) == 1


@pytest.mark.parametrize("norm", NORMS)
def test_a_row_does_not_depend_on_its_neighbours(norm: Norm) -> None:
    points, normals, values = (part.float() for part in problem(6, 500, seed=2, share=0.01))
    values[3] *= 60  # this row needs more entries, or more Newton steps, than the others
    together = step_to_hyperplane(points, normals, values, norm)
    alone = [step_to_hyperplane(points[b : b + 1], normals[b : b + 1], values[b : b + 1], norm) for b in range(6)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.95])
def test_the_published_projection_finds_the_same_point(norm: Norm, share: float) -> None:
    published = pytest.importorskip("pyautoattack.fab_projections")
    points, normals, values = (part.float() for part in problem(16, 192, seed=3, share=share))
    offset = (normals * points).sum(1) - values
    theirs = getattr(published, f"projection_{norm}")(points, normals, offset)
    ours = step_to_hyperplane(points, normals, values, norm)
    torch.testing.assert_close(norms(ours, norm), norms(theirs, norm), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    missed = [((normals * step).sum(1) + values).abs().amax() for step in (ours, theirs)]
    assert float(missed[0]) <= float(missed[1]) + 1e-5
