"""Run directories with true records and no training: linear classifiers on digits, attacked and certified exactly."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.datasets import load_digits

from hauberk import records
from hauberk.runs import Run

CLASSES = [str(k) for k in range(10)]
IMAGES = 120
COMMON = {"data": "d" * 16, "seed": 0, "tile": 64, "dtype": "float32"}
FACTS = {"dataset": "digits", "split": "test", "classes": CLASSES, "shape": [1, 8, 8]}
RECIPE = {"name": "digits_trades", "model": {"name": "lip_convnet", "width": 16}, "data": {"name": "digits"},
          "training": {"objective": {"name": "trades", "beta": 6.0}, "epochs": 30, "seed": 0}}


@dataclass
class Linear:
    """Logits x W + b, so that margins, attacks and radii have closed forms."""

    name: str
    weights: np.ndarray
    bias: np.ndarray

    def logits(self, x: np.ndarray) -> np.ndarray:
        return x @ self.weights + self.bias

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        z = self.logits(x)
        e = np.exp(z - z.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    def pairwise(self) -> np.ndarray:
        return np.linalg.norm(self.weights[:, :, None] - self.weights[:, None, :], axis=0)

    def radius(self, x: np.ndarray) -> np.ndarray:
        z = self.logits(x)
        y = z.argmax(1)
        gap = z[np.arange(len(x)), y][:, None] - z
        scale = self.pairwise()[y]
        return np.where(scale > 0, gap / np.where(scale > 0, scale, 1), np.inf).min(1)

    def attack(self, x: np.ndarray, y: np.ndarray, eps: float, norm: str) -> np.ndarray:
        """The best of all straight attacks towards another class, clipped to the box."""
        best, best_margin = x.copy(), margin(self.logits(x), y)
        for j in range(10):
            direction = (self.weights[:, j][None] - self.weights[:, y].T)
            length = np.linalg.norm(direction, axis=1, keepdims=True) + 1e-12
            step = np.sign(direction) if norm == "linf" else direction / length
            point = np.clip(x + eps * step, 0, 1)
            m = margin(self.logits(point), y)
            best = np.where((m < best_margin)[:, None], point, best)
            best_margin = np.minimum(m, best_margin)
        return best


def margin(scores: np.ndarray, y: np.ndarray) -> np.ndarray:
    own = scores[np.arange(len(y)), y]
    rest = scores.copy()
    rest[np.arange(len(y)), y] = -np.inf
    return own - rest.max(1)


def attack_part(model, data, norm, eps, method, keep=0, weaken=1.0, classes=None):
    """``model`` is anything with name, probabilities and attack."""
    x, y, ids = data
    adversarial = model.attack(x, y, eps * weaken, norm)
    clean, found = model.probabilities(x), model.probabilities(adversarial)
    change = adversarial - x
    distance = np.abs(change).max(1) if norm == "linf" else np.linalg.norm(change, axis=1)
    broken = (found.argmax(1) != y) | (clean.argmax(1) != y)
    wrong = clean.argmax(1) != y
    adversarial[wrong], distance[wrong], found[wrong] = x[wrong], 0.0, clean[wrong]
    kept = [i < keep for i in range(len(x))]
    columns = {
        "id": ids, "label": y, "clean_prediction": clean.argmax(1), "prediction": found.argmax(1), "success": broken,
        "distance": distance, "loss": -np.log(found[np.arange(len(y)), y]), "logit_margin": margin(np.log(found), y),
        "probability_margin": margin(found, y), "forwards": np.full(len(y), 22), "backwards": np.full(len(y), 20),
        "stopped": ["steps"] * len(y),
        "image": [v.astype(np.float32).tobytes() if k else None for v, k in zip(x, kept, strict=True)],
        "adversarial": [v.astype(np.float32).tobytes() if k else None for v, k in zip(adversarial, kept, strict=True)],
        "clean_probabilities": [p.tolist() for p in clean], "probabilities": [p.tolist() for p in found],
    }
    unit = {"predictor": model.name, "weights": records.content_hash(model.name), "threat": {"name": norm, "eps": eps},
            "method": {**method, "threat": {"name": norm, "eps": eps}}, **COMMON}
    facts = {**FACTS, "stochastic": False} | ({"classes": classes} if classes else {})
    return records.part("attack", unit, facts, columns)


def certificate_part(name, data, prediction, radius, method, norm="l2", proof="deterministic", failure=0.0):
    _, y, ids = data
    unit = {"predictor": name, "weights": records.content_hash(name), "method": method, **COMMON}
    facts = {**FACTS, "norm": norm, "proof": proof, "failure_probability": failure, "shared": {}}
    columns = {"id": ids, "label": y, "prediction": prediction, "radius": radius, "evidence": ["{}"] * len(y)}
    return records.part("certificate", unit, facts, columns)


def right_interval(g: np.ndarray, h: np.ndarray, y: int) -> tuple[float, float]:
    """Where (1 - a) (g_y - g_j) + a (h_y - h_j) > 0 for every j: an intersection of half-lines."""
    low, high = -np.inf, np.inf
    for j in range(len(g)):
        if j == y:
            continue
        a, b = g[y] - g[j], h[y] - h[j]
        if a == b:
            low = low if a > 0 else np.inf
        elif b > a:
            low = max(low, a / (a - b))
        else:
            high = min(high, a / (a - b))
    return (low, high) if max(low, 0) <= min(high, 1) and low < high else (np.nan, np.nan)


@dataclass
class Mixture:
    name: str
    accurate: Linear
    robust: Linear
    alpha: float

    def probabilities(self, x):
        return (1 - self.alpha) * self.accurate.probabilities(x) + self.alpha * self.robust.probabilities(x)

    def attack(self, x, y, eps, norm):
        points = [m.attack(x, y, eps, norm) for m in (self.accurate, self.robust)]
        margins = np.stack([margin(self.probabilities(p), y) for p in points])
        return np.where((margins[0] <= margins[1])[:, None], *points)


def mix_part(mixture: Mixture, data, grid, proof="deterministic"):
    x, y, ids = data
    g, h = mixture.accurate.probabilities(x), mixture.robust.probabilities(x)
    z, pairwise = mixture.robust.logits(x), mixture.robust.pairwise()
    ends = np.array([right_interval(g[i], h[i], y[i]) for i in range(len(y))])
    certified = []
    for i in range(len(y)):
        row, c = [], z[i].argmax()
        for eps in grid:
            gap = np.delete(z[i][c] - z[i] - pairwise[c] * eps, c)
            p = 1 / (1 + np.exp(-gap).sum())
            m = p * (1 - np.exp(-gap.min()))
            row.append(1 / (1 + m) if c == y[i] and m > 0 else None)
        certified.append(row)
    unit = {"predictor": mixture.name, "weights": "m" * 16, "method": {"name": "mixed_margin"}, **COMMON}
    norm = "l2" if grid else ""
    facts = {**FACTS, "norm": norm, "alpha": mixture.alpha, "eps": grid, "proof": proof,
             "accurate": mixture.accurate.name, "robust": mixture.robust.name}
    return records.part("mix", unit, facts, {
        "id": ids, "label": y, "accurate_prediction": g.argmax(1), "robust_prediction": h.argmax(1),
        "alpha_low": ends[:, 0], "alpha_high": ends[:, 1], "certified_alpha": certified,
    })


def new_run(path: Path, parts, recipe=RECIPE, **info) -> Path:
    run = Run.create(path, recipe)
    run.update(**info)
    run.update(seed=0, hashes={"recipe": "0123456789abcdef"}, timings={"train_seconds": 41.7})
    for part in parts:
        records.write(run.records, part)
    return path


@pytest.fixture(scope="session")
def lab(tmp_path_factory) -> SimpleNamespace:
    """Three runs: a robust linear model, an accurate one, and their mix."""
    digits = load_digits()
    x, y = digits.data / 16.0, digits.target.astype(np.int64)
    train, test = slice(0, 1400), slice(1400, 1400 + IMAGES)
    means = np.stack([x[train][y[train] == k].mean(0) for k in range(10)])
    robust = Linear("LipConvNet[a1b2c3d4e5f60718]", 6 * means.T, -3 * (means**2).sum(1))  # the nearest mean
    padded = np.c_[x[train], np.ones(len(x[train]))]
    ridge = np.linalg.solve(padded.T @ padded + 0.1 * np.eye(65), padded.T @ np.eye(10)[y[train]])
    accurate = Linear("SmallCNN[ffeeddccbbaa9988]", 9 * ridge[:-1], 9 * ridge[-1])
    data = (x[test], y[test], np.arange(1400, 1400 + IMAGES))
    mixture = Mixture(f"mixed(alpha=0.8, {accurate.name}, {robust.name})", accurate, robust, 0.8)
    pgd = {"name": "pgd", "steps": 20, "restarts": 1, "loss": "ce", "targeted": False}
    apgd = {"name": "apgd", "steps": 100, "loss": "margin"}
    grid = [0.25, 0.5, 0.75, 1.0]
    robust_parts = [attack_part(robust, data, "l2", e, pgd, keep=9, weaken=0.8) for e in grid]
    robust_parts += [attack_part(robust, data, "l2", e, apgd) for e in grid]
    robust_parts += [attack_part(robust, data, "linf", e / 255, pgd) for e in (4, 8, 16)]
    prediction = robust.logits(data[0]).argmax(1)
    robust_parts.append(certificate_part(robust.name, data, prediction, robust.radius(data[0]), {"name": "lipschitz"}))
    noisy = np.where(robust.radius(data[0]) > 0.15, prediction, -1)
    smooth = np.where(noisy >= 0, robust.radius(data[0]) * 0.8, 0.0)
    voted = f"smoothed({robust.name}, gaussian, sigma=0.5)"
    method = {"name": "smoothing", "sigma": 0.5, "n0": 100, "n": 10000, "alpha": 0.001}
    robust_parts.append(certificate_part(voted, data, noisy, smooth, method, proof="probabilistic", failure=0.001))
    mixed_parts = [attack_part(mixture, data, "l2", e, apgd, keep=3) for e in grid]
    mixed_parts.append(mix_part(mixture, data, [0.0, *grid]))
    accurate_parts = [attack_part(accurate, data, "l2", e, apgd, keep=4) for e in grid]
    root = tmp_path_factory.mktemp("runs")
    runs = [new_run(root / "robust", robust_parts), new_run(root / "accurate", accurate_parts),
            new_run(root / "mix", mixed_parts)]
    models = {"robust": robust, "accurate": accurate, "mixture": mixture}
    return SimpleNamespace(root=root, runs=runs, data=data, grid=grid, **models)


@pytest.fixture(scope="session")
def unproved(lab, tmp_path_factory) -> SimpleNamespace:
    """The same two models without a certificate, a mix of them, and mixes of other kinds."""
    bases, apgd, data = f"{lab.accurate.name}, {lab.robust.name}", {"name": "apgd", "steps": 100}, lab.data
    taps = "scales=1.0/1.0, logit='a', taps=('b', 'c')/('d', 'e'), 0f"
    names = {
        "scaled": f"mixed(alpha=0.9, scales=1.0/4.0, {bases})",
        "network": f"adaptive_mixed(alpha=0.84..0.99, {taps}, {bases})",
        "nuts": f"mixed_nuts(alpha=0.75, scale=4.0, shift=0.0, power=2.0, top_k=3, {bases})",
        "turned": f"mixed(alpha=0.4, {lab.robust.name}, {lab.accurate.name})",
    }
    root = tmp_path_factory.mktemp("unproved")
    robust, accurate = ([attack_part(m, data, "linf", e / 255, apgd, keep=9) for e in (8, 16)]
                        for m in (lab.robust, lab.accurate))
    mixed = [mix_part(lab.mixture, data, [], proof="none"), attack_part(lab.mixture, data, "linf", 16 / 255, apgd)]
    runs = [new_run(root / "robust one", robust, predictor=lab.robust.name),
            new_run(root / "accurate", accurate, predictor=lab.accurate.name),
            new_run(root / "mix", mixed, predictor=lab.mixture.name)]
    for short, name in names.items():
        other = Mixture(name, lab.accurate, lab.robust, 0.9)
        runs.append(new_run(root / short, [attack_part(other, data, "linf", 16 / 255, apgd)], predictor=name))
    return SimpleNamespace(runs=runs, names=names)
