"""The straight line between two models: the height by interpolation, its error by resampling."""

import numpy as np
import pytest

from hauberk.comparison import above
from hauberk.statistics import student


def outcomes(rng: np.random.Generator, clean: float, kept: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    right = rng.random(n) < clean
    return right.astype(float), (right & (rng.random(n) < kept)).astype(float)


def by_hand(points, curve) -> float:
    """Interpolation on sorted means."""
    ends = sorted((c.mean(), r.mean()) for c, r in curve)
    return np.mean([r.mean() - np.interp(c.mean(), *zip(*ends, strict=True)) for c, r in points])


@pytest.mark.parametrize("clean", [0.3, 0.5, 0.62, 0.8, 0.95])
def test_the_height_is_that_of_interpolation_and_level_beyond_the_ends(clean: float) -> None:
    rng = np.random.default_rng(0)
    curve = [outcomes(rng, *p, 700) for p in ((0.9, 0.1), (0.4, 0.8), (0.65, 0.6))]
    points = [outcomes(rng, clean, 0.5, 700), outcomes(rng, 0.7, 0.4, 700)]
    for chosen in (points[:1], points):
        assert above(chosen, curve).mean() == pytest.approx(by_hand(chosen, curve), abs=1e-12)


def test_a_model_lies_on_the_line_through_itself() -> None:
    rng = np.random.default_rng(1)
    ends = [outcomes(rng, 0.9, 0.1, 50), outcomes(rng, 0.4, 0.8, 50)]
    for end in ends:
        assert above([end], ends) == pytest.approx(np.zeros(50), abs=1e-12)


def test_its_error_is_that_of_resampling() -> None:
    rng = np.random.default_rng(2)
    curve = [outcomes(rng, 0.9, 0.1, 800), outcomes(rng, 0.5, 0.7, 800)]
    points = [outcomes(rng, 0.75, 0.5, 800), outcomes(rng, 0.6, 0.6, 800)]
    interval, _ = student(above(points, curve))
    draws = []
    for _ in range(1500):
        rows = rng.integers(0, 800, 800)
        draws.append(by_hand([(c[rows], r[rows]) for c, r in points], [(c[rows], r[rows]) for c, r in curve]))
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * np.std(draws), rel=0.08)
