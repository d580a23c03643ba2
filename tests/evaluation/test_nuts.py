"""The search for MixedNUTS: its trade image by image, brute-force grids, and the classifier that keeps the promise."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import special

from hauberk.batch import Batch
from hauberk.classifier import logits_of
from hauberk.defences.mixed_nuts import MixedNuts, normalise
from hauberk.errors import HauberkError
from hauberk.evaluation.nuts import _Rows, _trade, nuts

Array = NDArray[np.float64]


def models(seed: int, n: int = 60, k: int = 4, robust: float = 1.0) -> tuple[Array, Array, Array, NDArray[np.int64]]:
    """Logits of an accurate and a robust model on n images, of the robust one under attack, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(k, size=n)
    truth = np.eye(k)[labels]
    accurate = 4 * truth + 1.5 * rng.normal(size=(n, k))
    h = robust * (2 * truth + rng.normal(size=(n, k)))
    attacked = h - robust * truth * rng.uniform(0, 1.5, size=(n, 1))
    return accurate, h, attacked, labels


def margins(p: Array, labels: NDArray[np.int64]) -> Array:
    own = p[np.arange(len(p)), labels]
    rest = p.copy()
    rest[np.arange(len(p)), labels] = -np.inf
    return own - rest.max(1)


def bend(z: Array, scale: float, shift: float, power: float) -> Array:
    """Probabilities of the bent logits."""
    normal = (z - z.mean(1, keepdims=True)) / np.sqrt(z.var(1, ddof=1, keepdims=True) + 1e-8) + shift
    a = normal * special.ndtr(normal)
    return special.softmax(scale * np.sign(a) * np.abs(a) ** power, 1)


def trade(z: tuple[Array, Array], labels: Any, beta: float, setting: tuple[float, float, float]) -> tuple[float, float]:
    """Cutoff and share of clean errors at the cutoff or above, image by image."""
    h, attacked = z
    right = attacked.argmax(1) == labels
    kept = sorted(margins(bend(attacked, *setting), labels)[right], reverse=True)
    cutoff = kept[math.ceil(beta * len(kept) - 1e-9) - 1]
    wrong = h.argmax(1) != labels
    return cutoff, float(np.mean(-margins(bend(h, *setting), labels)[wrong] >= cutoff))


@pytest.mark.parametrize("seed", range(3))
def test_the_search_is_no_worse_than_a_brute_force_grid(seed: int) -> None:
    g, h, attacked, labels = models(seed, 80, 5)
    found = nuts(g, h, attacked, labels, 0.9)
    setting = (found.scale, found.shift, found.power)
    cutoff, lost = trade((h, attacked), labels, 0.9, setting)
    assert found.alpha == pytest.approx(1 / (1 + cutoff), rel=1e-9)
    assert found.lost == lost
    assert 1e-5 <= cutoff <= 0.9
    grid = product(np.geomspace(0.05, 15, 8), np.linspace(-2.2, 0.4, 8), np.linspace(1.0, 4.8, 8))
    rivals = [trade((h, attacked), labels, 0.9, s) for s in grid]
    assert lost <= min(share for c, share in rivals if 1e-5 <= c <= 0.9) + 0.05
    errors = -margins(special.softmax(h, 1), labels)[h.argmax(1) != labels]
    assert lost < np.mean(errors >= 1 / found.surrogate_alpha - 1)  # bending is what the search is for


def test_the_promise_is_what_the_classifier_does() -> None:
    g, h, attacked, labels = models(1, 80, 5)
    found = nuts(g, h, attacked, labels, 0.9)

    def played(table: Array) -> Any:
        return torch.nn.Sequential(Lookup(torch.from_numpy(table)))

    images = (torch.arange(80, dtype=torch.float64) / 255).reshape(-1, 1, 1, 1)
    batch = Batch(images, torch.from_numpy(labels), torch.arange(80))
    settings_ = (found.alpha, found.scale, found.shift, found.power, 250, found.surrogate_alpha)
    clean = logits_of(MixedNuts(played(g), played(h), *settings_).eval(), batch).argmax(1).numpy()
    assert (clean == labels).mean() == found.clean_accuracy.value
    worst = []
    for rival in range(5):  # whatever the accurate model says at the attacked points
        model = MixedNuts(played(np.eye(5)[np.full(80, rival)]), played(attacked), *settings_).eval()
        worst.append(logits_of(model, batch).argmax(1).numpy() == labels)
    assert np.all(worst, axis=0).mean() == found.estimated_robust_accuracy.value
    right = attacked.argmax(1) == labels
    assert np.all(worst, axis=0)[right].mean() >= 0.9
    plain = margins(special.softmax(attacked, 1), labels)[right]
    assert np.mean(plain > 1 / found.surrogate_alpha - 1) >= 0.9
    assert np.mean(plain > 1 / (found.surrogate_alpha - 1e-6) - 1) < 0.9 + 1 / right.sum()
    assert found.n == 80


class Lookup(torch.nn.Module):
    """Answers the row of a table that the first pixel names."""

    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.rows[(images.flatten(1)[:, 0] * 255).round().long()]


@pytest.mark.parametrize("seed", range(3))
def test_the_printed_margin_calls_errors_correctable_that_are_not(seed: int) -> None:
    """Where the label comes third, the gap of the two largest is small and the way down to the label long."""
    g, h, attacked, labels = models(seed, 80, 5)
    h[h.argmax(1) != labels] -= 0.7 * np.eye(5)[labels[h.argmax(1) != labels]]
    found = nuts(g, h, attacked, labels, 0.9, as_printed=True)
    setting = (found.scale, found.shift, found.power)
    cutoff, lost = trade((h, attacked), labels, 0.9, setting)
    top = np.sort(bend(h, *setting)[h.argmax(1) != labels], axis=1)
    assert found.lost == np.mean(top[:, -1] - top[:, -2] >= cutoff) < lost
    assert nuts(g, h, attacked, labels, 0.9).lost <= lost + 0.05


def test_errors_are_measured_by_the_cutoff_and_a_saturated_map_is_not_allowed() -> None:
    _, h, attacked, labels = models(1, 80, 5)
    right, wrong = attacked.argmax(1) == labels, h.argmax(1) != labels
    clean, kept = (normalise(torch.from_numpy(z), 250) for z in (h[wrong], attacked[right]))
    rows = _Rows(kept, labels[right], clean, labels[wrong], int(right.sum()) // 2, False)
    lost, size, cutoff = _trade(rows, np.array([0.3, 1.0, 1e5]), -0.5, 2.0)
    for at, scale in enumerate((0.3, 1.0)):
        errors = -margins(bend(h, scale, -0.5, 2.0), labels)[wrong] / cutoff[at]
        assert lost[at] == (errors >= 1.0).mean()
        assert size[at] == pytest.approx(np.minimum(errors, 1.0).mean())
    assert 0.0 < size[0] < 1.0
    assert lost[2] == math.inf
    assert cutoff[2] > 0.9


def test_nothing_to_keep_is_said() -> None:
    g, h, attacked, labels = models(0)
    with pytest.raises(HauberkError, match="no image correctly under attack"):
        nuts(g, h, -50.0 * np.eye(4)[labels], labels)
    with pytest.raises(HauberkError, match="share in"):
        nuts(g, h, attacked, labels, 0.0)


@pytest.mark.parametrize("seed", range(3))
def test_of_two_classes_it_is_a_threshold_on_the_gap_that_no_map_beats(seed: int) -> None:
    g, h, attacked, labels = models(seed, n=80, k=2, robust=0.7)
    found = nuts(g, h, attacked, labels, 0.9)
    own = attacked[np.arange(80), labels] - attacked[np.arange(80), 1 - labels]
    kept = np.sort(own[own > 0])[::-1]
    needed = math.ceil(0.9 * len(kept) - 1e-9)
    threshold = kept[needed - 1]
    gaps = np.abs(h[:, 1] - h[:, 0])
    said = np.where(gaps >= threshold * (1 - 1e-9), h.argmax(1), g.argmax(1))
    assert found.clean_accuracy.value == pytest.approx(float((said == labels).mean()))
    assert found.lost == pytest.approx(float((gaps >= threshold)[h.argmax(1) != labels].mean()))
    assert (found.shift, found.power) == (0.0, 1.0)
    assert found.alpha == pytest.approx(2 / 3)
    assert found.estimated_robust_accuracy.value >= 0.9 * float((own > 0).mean()) - 1e-9
    z, worst = (t - t.mean(1, keepdims=True) for t in (h, attacked))
    for scale, power in product((0.1, 1.0, 5.0), (1.0, 2.0, 4.0)):  # maps that are odd and monotone in the gap
        bent, clean = (scale * np.sign(t) * np.abs(t) ** power for t in (worst, z))
        cutoff = np.sort(np.tanh(np.abs(bent[:, 0]))[own > 0])[::-1][needed - 1]
        lost = (np.tanh(np.abs(clean[:, 0])) >= cutoff)[h.argmax(1) != labels].mean()
        assert lost == pytest.approx(found.lost)


def test_a_robust_model_without_errors_loses_none() -> None:
    g, _, _, labels = models(0)
    h = 5.0 * np.eye(4)[labels] + 0.1 * g
    assert nuts(g, h, h, labels).lost == 0.0
