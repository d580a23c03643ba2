"""Choosing a mix: against scans over alpha, brute-force grids, and arrays of a few images with known answers."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import special

from hauberk.classifier import logits_of
from hauberk.conformance import LinearOracle
from hauberk.defences import MixedClassifier
from hauberk.errors import HauberkError
from hauberk.evaluation import calibration
from hauberk.evaluation.alpha_steps import kept_by, largest, most, right_intervals
from hauberk.evaluation.calibration import (
    alpha_for_clean,
    alpha_for_robust,
    alpha_range,
    mixability,
    scales,
)

Array = NDArray[np.float64]
SCAN = np.linspace(0.0, 1.0, 4001)


def models(seed: int, n: int = 60, k: int = 4, robust: float = 1.0) -> tuple[Array, Array, Array, NDArray[np.int64]]:
    """Logits of an accurate and a robust model on n images, of the robust one under attack, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(k, size=n)
    truth = np.eye(k)[labels]
    accurate = 4 * truth + 1.5 * rng.normal(size=(n, k))
    h = robust * (2 * truth + rng.normal(size=(n, k)))
    attacked = h - robust * truth * rng.uniform(0, 1.5, size=(n, 1))
    return accurate, h, attacked, labels


def accuracy(g: Array, h: Array, labels: NDArray[np.int64], alpha: Any) -> float:
    """Clean accuracy of a mix of probabilities by its argmax."""
    alpha = np.broadcast_to(np.asarray(alpha, dtype=np.float64), (len(g),))[:, None]
    return float((((1 - alpha) * g + alpha * h).argmax(1) == labels).mean())


def margins(p: Array, labels: NDArray[np.int64]) -> Array:
    own = p[np.arange(len(p)), labels]
    rest = p.copy()
    rest[np.arange(len(p)), labels] = -np.inf
    return own - rest.max(1)


# --- where a mix is right -------------------------------------------------------------------------------------------


def right_interval(accurate: np.ndarray, robust: np.ndarray, label: int) -> tuple[float, float]:
    """One image, rival by rival: each is beaten on a half-line of weights."""
    low, high = -1.0, 2.0
    for j in (j for j in range(len(accurate)) if j != label):
        a, b = accurate[label] - accurate[j], robust[label] - robust[j]
        if a <= 0.0 and b <= 0.0:
            return float("nan"), float("nan")
        if a <= 0.0:
            low = max(low, a / (a - b))
        elif b <= 0.0:
            high = min(high, a / (a - b))
    return (low, high) if low < high else (float("nan"), float("nan"))


@given(st.integers(0, 10_000), st.integers(2, 6))
@settings(max_examples=60, deadline=None)
def test_intervals_are_those_of_one_image_at_a_time(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    g, h = (np.round(rng.dirichlet(np.full(k, 0.5), 8), 1) for _ in range(2))  # rounded: ties, zeros
    g, h = ((p + 0.01) / (p + 0.01).sum(1, keepdims=True) for p in (g, h))
    labels = rng.integers(k, size=8)
    expected = np.array([right_interval(a, b, y) for a, b, y in zip(g, h, labels, strict=True)])
    np.testing.assert_array_equal(np.stack(right_intervals(g, h, labels), 1), expected)


@given(st.integers(0, 10_000), st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None)
def test_the_largest_alpha_against_a_scan(seed: int, wanted: float) -> None:
    g, h, _, labels = models(seed, 30)
    g, h = special.softmax(g, 1), special.softmax(0.7 * h, 1)
    scan = np.array([accuracy(g, h, labels, a) for a in SCAN])
    assume(scan.max() >= wanted)
    found = alpha_for_clean(g, h, labels, wanted)
    assert found.n == found.clean_accuracy.n == 30
    assert found.clean_accuracy.value >= wanted - 1e-12
    assert found.clean_accuracy.value == accuracy(g, h, labels, found.alpha)
    assert found.alpha >= SCAN[scan >= wanted].max() - 2e-6
    assert bool((scan[found.alpha + 2e-6 < SCAN] < wanted).all())


def test_a_tie_is_no_win() -> None:
    """At the end of its interval an image is not right, and a margin that is just enough is not kept."""
    one, half = np.array([1.0]), np.array([0.5])
    assert most(half / 2, half, 0.5) == (1.0, 0)
    assert most(one, 2 * one, 0.9) == (1.0, 0)
    assert most(half, one, 0.2) == (pytest.approx(1 - 1e-6), 1)
    assert kept_by(one, 0.5) == 0
    assert kept_by(one, 0.5 + 1e-12) == 1


def test_a_window_narrower_than_the_step_back_is_found() -> None:
    """Two images, right below 0.5 and above 0.5 - 4e-7: both between."""
    low, high = np.array([-1.0, 0.5 - 4e-7]), np.array([0.5, 2.0])
    alpha, count = largest(low, high, 2, 1.0)
    assert count == 2
    assert 0.5 - 4e-7 < alpha < 0.5
    assert most(low, high, 0.2) == (alpha, 2)


def three_images() -> tuple[Array, Array, NDArray[np.int64]]:
    """Right below 0.8, right above 0.25, and always."""
    g = np.array([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.1, 0.2, 0.7]])
    h = np.array([[0.4, 0.6, 0.0], [0.8, 0.2, 0.0], [0.3, 0.3, 0.4]])
    return g, h, np.array([0, 0, 2])


def test_the_largest_alpha_of_three_images() -> None:
    g, h, labels = three_images()
    assert alpha_for_clean(g, h, labels, 1.0).alpha == pytest.approx(0.8, abs=2e-6)
    assert alpha_for_clean(g, h, labels, 1.0).alpha < 0.8
    assert alpha_for_clean(g, h, labels, 2 / 3).alpha == 1.0
    assert alpha_for_clean(g, h, labels, 2 / 3).clean_accuracy.value == pytest.approx(2 / 3)


def test_the_reachable_range_is_named() -> None:
    g, h, labels = three_images()
    g[1], h[0] = [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]  # right below 0.444, right above 0.625
    with pytest.raises(HauberkError, match=r"expected 3 of 3 .* gets 2 near .*, 2 at 1, and at most 2 \(0.6667\)"):
        alpha_for_clean(g, h, labels, 0.9)
    assert alpha_for_clean(g, h, labels, 0.6).alpha == 1.0


# --- robust accuracy, estimated -------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=40), st.floats(0.01, 1.0))
@settings(max_examples=200, deadline=None)
def test_the_smallest_alpha_against_a_scan(values: list[float], wanted: float) -> None:
    m = np.array(values)
    share = (SCAN[:, None] * m > 1 - SCAN[:, None]).mean(1)
    if (m > 0).mean() < wanted - 1e-9:
        with pytest.raises(HauberkError, match=f"{(m > 0).mean():.4g} of {len(m)} images"):
            alpha_for_robust(m, wanted)
        return
    assume(np.sort(m)[::-1][math.ceil(wanted * len(m) - 1e-9) - 1] > 1e-6)
    found = alpha_for_robust(m, wanted)
    assert found.estimated_robust_accuracy.value == np.mean(m > (1 - found.alpha) / found.alpha) >= wanted - 1e-9
    assert bool((share[found.alpha - 1e-9 > SCAN] < wanted).all())


def test_the_smallest_alpha_of_four_margins() -> None:
    m = [0.9, 0.25, 0.6, -0.3]
    assert [alpha_for_robust(m, w).alpha for w in (0.25, 0.5, 0.51, 0.75)] == pytest.approx(
        [1 / 1.9, 1 / 1.6, 1 / 1.25, 1 / 1.25]
    )
    assert alpha_for_robust(m, 0.75).n == 4
    assert alpha_for_robust([0.5] * 7 + [-0.5] * 93, 0.07).alpha == pytest.approx(1 / 1.5)  # 0.07 * 100 is above 7


def test_what_lemma_3_2_keeps_no_accurate_model_can_spoil() -> None:
    """The estimate is about the points it saw: there it is exact against every accurate model."""
    _, _, attacked, labels = models(4)
    p = special.softmax(3 * attacked, 1)
    found = alpha_for_robust(margins(p, labels), 0.5)
    kept = margins(p, labels) > (1 - found.alpha) / found.alpha
    for rival in range(4):  # every vertex of the simplex, so every distribution
        mix = (1 - found.alpha) * np.eye(4)[np.full(60, rival)] + found.alpha * p
        assert bool((mix.argmax(1) == labels)[kept].all())
    worst = np.where(labels == 0, 1, 0)
    mixes = [(1 - found.alpha) * np.eye(4)[(worst + j) % 4] + found.alpha * p for j in range(4)]
    fell = np.any([m.argmax(1) != labels for m in mixes], axis=0)
    assert bool(fell[~kept].all())


# --- scales ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("wanted", [0.3, 0.5])
def test_scales_against_brute_force(seed: int, wanted: float) -> None:
    g, h, attacked, labels = models(seed)
    grid = (0.5, 1.0, 3.0)
    found = scales(g, h, attacked, labels, wanted, accurate_scales=grid, robust_scales=grid)
    best = (0.0, 0.0)
    for sharp, hot in product(grid, grid):
        p, q = special.softmax(sharp * g, 1), special.softmax(hot * h, 1)
        m = margins(special.softmax(hot * attacked, 1), labels)
        allowed = [a for a in SCAN[1:] if np.mean(m > (1 - a) / a) >= wanted]
        best = max(best, *((accuracy(p, q, labels, a), np.mean(m > (1 - a) / a)) for a in allowed))
    assert (found.clean_accuracy.value, found.estimated_robust_accuracy.value) >= best
    p = special.softmax(found.accurate_scale * g, 1)
    q = special.softmax(found.robust_scale * h, 1)
    m = margins(special.softmax(found.robust_scale * attacked, 1), labels)
    assert found.clean_accuracy.value == accuracy(p, q, labels, found.alpha)
    assert found.estimated_robust_accuracy.value == np.mean(m > (1 - found.alpha) / found.alpha) >= wanted
    assert found.n == 60


def test_scales_that_cannot_keep_enough_are_refused() -> None:
    g, h, attacked, labels = models(0)
    right = (attacked.argmax(1) == labels).mean()
    with pytest.raises(HauberkError, match=f"has {right:.4g} of 60"):
        scales(g, h, attacked, labels, right + 0.01)
    with pytest.raises(HauberkError, match="no scales"):
        scales(g, h, attacked, labels, 0.1, robust_scales=())


# --- does mixing help? ----------------------------------------------------------------------------------------------


def two_leaders(lead: Array, winner: NDArray[np.int64]) -> Array:
    """Probabilities of four classes whose winner leads by a given gap."""
    p = np.repeat((1 - lead[:, None]) / 4, 4, axis=1)
    p[np.arange(len(lead)), winner] += lead
    return p


def pair(kept: float, wrong: float, n: int = 40) -> tuple[Array, Array, Array, Array, NDArray[np.int64]]:
    """g is right on clean images (0.9) and wrong under attack (0.98); h is wrong on every fourth image."""
    y, every = np.zeros(n, dtype=np.int64), np.arange(n) % 4 == 0
    g = two_leaders(np.full(n, 0.9), y)
    g_attacked = two_leaders(np.full(n, 0.98), y + 1)
    h = two_leaders(np.where(every, wrong, 0.8), np.where(every, 2, y))
    h_attacked = two_leaders(np.full(n, kept), np.where(every, 2, y))
    return g, g_attacked, h, h_attacked, y


def test_benign_confidence_is_what_helps() -> None:
    found = mixability(*pair(0.93, 0.38))
    assert found.helps
    assert (found.low, found.high) == pytest.approx((0.98 / 1.91, 0.9 / 1.28))
    assert found.robust.attacked_right.median.value == pytest.approx(0.93)
    assert found.robust.clean_wrong.mean.value == pytest.approx(0.38)
    assert found.accurate.attacked_wrong.median.value == pytest.approx(0.98)
    assert (found.correctable.value, found.n) == (0.25, 40)
    assert found.sentence.startswith("Mixing will help: the robust model leads by 0.93")
    assert "0.38" in found.sentence
    assert "0.513 and 0.703" in found.sentence


def test_between_the_weights_named_mixing_does_help() -> None:
    g, g_attacked, h, h_attacked, y = pair(0.93, 0.38)
    found = mixability(g, g_attacked, h, h_attacked, y)
    inside, below, above = (found.low + found.high) / 2, found.low - 0.01, found.high + 0.01
    assert accuracy(g, h, y, inside) == 1.0
    assert accuracy(g, h, y, above) == accuracy(g_attacked, h_attacked, y, inside) == 0.75
    assert accuracy(g_attacked, h_attacked, y, below) == 0.0


def test_an_overconfident_robust_model_does_not_mix() -> None:
    found = mixability(*pair(0.5, 0.9))
    assert not found.helps
    assert found.low > found.high
    assert found.sentence.startswith("Mixing will hardly help: the robust model leads by 0.50")


def test_reasons_beyond_the_gaps() -> None:
    g, g_attacked, h, h_attacked, y = pair(0.93, 0.38)
    right = mixability(g, g_attacked, two_leaders(np.full(40, 0.8), y), h_attacked, y)
    assert not right.helps
    assert "on no clean image" in right.sentence
    together = mixability(np.where(h.argmax(1)[:, None] == 2, h, g), g_attacked, h, h_attacked, y)  # wrong at once
    assert together.low < together.high
    assert not together.helps
    assert "on no clean image" in together.sentence
    broken = mixability(g, g_attacked, h, two_leaders(np.full(40, 0.8), y + 1), y)
    assert not broken.helps
    assert "nothing to keep" in broken.sentence
    unbroken = mixability(g, g, h, h_attacked, y)
    assert unbroken.helps
    assert unbroken.low == 0.0


# --- a mixing network -----------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.04, 0.15, 0.6]), st.floats(0.3, 0.95))
@settings(max_examples=60, deadline=None)
def test_the_range_against_a_scan(seed: int, width: float, wanted: float) -> None:
    g, h, attacked, labels = models(seed, 30)
    g, h = special.softmax(g, 1), special.softmax(h, 1)
    m = margins(special.softmax(attacked, 1), labels)
    u, v = np.random.default_rng(seed).random((2, 30))
    starts = np.linspace(0.0, 1.0 - width, 2001)
    scan = np.array([accuracy(g, h, labels, s + width * u) for s in starts])
    assume(scan.max() >= wanted)
    found = alpha_range(g, h, labels, u, v, m, width, wanted)
    assert found.alpha_max == found.alpha_min + width <= 1.0 + 1e-12
    assert found.clean_accuracy.value == accuracy(g, h, labels, found.alpha_min + width * u) >= wanted - 1e-12
    assert found.alpha_min >= starts[scan >= wanted].max() - 2e-6
    assert bool((scan[starts > found.alpha_min + 2e-6] < wanted).all())
    alphas = found.alpha_min + width * v
    assert found.estimated_robust_accuracy.value == np.mean(alphas * m > 1 - alphas)
    assert found.estimated_least_accuracy.value == np.mean(found.alpha_min * m > 1 - found.alpha_min)
    assert found.estimated_least_accuracy.value <= found.estimated_robust_accuracy.value
    assert found.n == 30


def test_a_range_of_no_width_is_one_alpha() -> None:
    g, h, labels = three_images()
    one = alpha_for_clean(g, h, labels, 1.0)
    none = alpha_range(g, h, labels, [0.1, 0.5, 1.0], [1.0] * 3, [0.9, 0.2, -0.1], 0.0, 1.0)
    assert (none.alpha_min, none.alpha_max, none.clean_accuracy) == (one.alpha, one.alpha, one.clean_accuracy)


def test_a_network_that_tells_images_apart_raises_the_range() -> None:
    """The image that is lost at 0.8 has a low alpha, so alpha_min = 0.8 - 0.3 * 0 and the others see more."""
    g, h, labels = three_images()
    found = alpha_range(g, h, labels, [0.0, 1.0, 1.0], [1.0, 1.0, 1.0], [0.2, 0.0, 0.0], 0.15, 1.0)
    assert found.alpha_min == pytest.approx(0.8, abs=2e-6)
    assert found.estimated_robust_accuracy.value == 0.0 + 1 / 3  # 0.95 * 0.2 > 0.05
    assert found.estimated_least_accuracy.value == 0.0


# --- the classifier itself, and what is refused ----------------------------------------------------------------------


def test_a_mixed_classifier_does_what_was_promised() -> None:
    g, h = (LinearOracle.random((1, 3, 3), 4, seed=s) for s in (0, 1))
    batch = g.batch(200)
    tables = [logits_of(model, batch).double().softmax(1).numpy() for model in (g, h)]
    labels = batch.labels.numpy()
    found = alpha_for_clean(*tables, labels, 0.8)
    mix = MixedClassifier(g, h, found.alpha, 1.0, 1.0).eval()
    assert float((logits_of(mix, batch).argmax(1) == batch.labels).double().mean()) == found.clean_accuracy.value
    assert 0.0 < found.alpha < 1.0
    lost = MixedClassifier(g, h, found.alpha + 1e-3, 1.0, 1.0).eval()
    assert float((logits_of(lost, batch).argmax(1) == batch.labels).double().mean()) < 0.8


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda g, h, a, y: alpha_for_clean(g, h, y, 0.5), "expected probabilities"),
        (lambda g, h, a, y: scales(special.softmax(g, 1), h, a, y, 0.5), "expected logits"),
        (lambda g, h, a, y: scales(g, h, a[:9], y, 0.5), r"tables \(N, K\)"),
        (lambda g, h, a, y: scales(g, h, a, y + 1, 0.5), "labels in 0..3"),
        (lambda g, h, a, y: scales(g, h, np.where(a > 2, np.nan, a), y, 0.5), "finite"),
        (lambda g, h, a, y: alpha_for_robust(a[:, 0], 0.5), "margins of probabilities"),
        (lambda g, h, a, y: alpha_for_robust([0.5], 1.5), "share in"),
        (lambda g, h, a, y: alpha_for_robust([], 0.5), "margins of probabilities"),
    ],
)
def test_mistakes_are_named(call: Any, words: str) -> None:
    with pytest.raises(HauberkError, match=words):
        call(*models(0))


@pytest.mark.parametrize(
    ("change", "words"),
    [({"width": 1.0}, "width"), ({"clean_alphas": [0.0, 1.2, 0.3]}, "sigmoid"), ({"attacked_alphas": [0.5]}, "sigmoid"),
     ({"margins": [0.5]}, "margins")],
)  # fmt: skip
def test_mistakes_of_a_range_are_named(change: dict[str, Any], words: str) -> None:
    g, h, labels = three_images()
    right: dict[str, Any] = {
        "clean_alphas": [0.5] * 3, "attacked_alphas": [0.5] * 3, "margins": [0.5] * 3, "width": 0.1, "wanted": 0.5
    }  # fmt: skip
    with pytest.raises(HauberkError, match=words):
        alpha_range(g, h, labels, **(right | change))


def test_results_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        alpha_for_robust([0.5], 1.0).alpha = 0.3  # type: ignore[misc]
    assert replace(alpha_for_robust([0.5], 1.0), n=2).n == 2
    assert set(calibration.__all__) >= {"nuts", "Nuts"}
