"""I follow a course: the central formulas, one by one, on one digit, by hand and by the library.

Run it: ``python examples/formula_walk.py`` (seconds, no download).  Every line prints two numbers that must agree: the
formula in plain numpy, and what Hauberk computes.  The classifier is linear, so the truth is known: the distance to
the nearest decision border has a closed form.  Symbols: ``docs/notation.md``.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats
from torch import nn

from hauberk.attacks import APGD, PGD
from hauberk.batch import Batch
from hauberk.certificates import LipschitzCertificate, MixedCertificate, SmoothingCertificate
from hauberk.data import load
from hauberk.defences import mixed
from hauberk.noises import Gaussian
from hauberk.randomness import PerSample
from hauberk.threats import L2, Linf

DIGIT = 2  # place in the test split


def linear(decay: float) -> nn.Sequential:
    """A linear classifier of digits; a large decay keeps its weights, and so its Lipschitz constants, small."""
    train = load("digits").train.batch()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=decay)
    for _ in range(200):
        loss = nn.functional.cross_entropy(model(train.images), train.labels)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    model.spec = {"name": f"linear-{decay:g}"}  # type: ignore[assignment]
    return model.eval()


def parameters(model: nn.Sequential) -> tuple[np.ndarray, np.ndarray]:
    """Weights W, shape (10, 64), and bias b, shape (10,), in float64."""
    weight, bias = (p.detach().numpy().astype(np.float64) for p in model.parameters())
    return weight, bias


def agree(what: str, by_hand: float, by_library: float, tolerance: float = 1e-5) -> None:
    """Print both numbers and insist that they are the same."""
    print(f"  {what:58} {by_hand:10.6f} {by_library:10.6f}")
    if not abs(by_hand - by_library) <= tolerance * max(1.0, abs(by_hand)):
        raise SystemExit("they differ")


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities p_k = exp(z_k) / sum_j exp(z_j)."""
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())


def projections(x: np.ndarray, image: torch.Tensor, z: torch.Tensor) -> None:
    """A point outside goes to the nearest point that is inside both the ball and the box."""
    print("1  threat projection: delta = z - x, back into the ball of eps and the box [0, 1]")
    inside = Linf(0.1).project(z, image)
    by_hand = np.clip(np.clip(z.numpy().ravel(), x - 0.1, x + 0.1), 0, 1)
    agree("Linf 0.1: first pixel, clip(z, x - eps, x + eps)", by_hand[0], float(inside.flatten()[0]))
    agree("Linf 0.1: max |delta|", float(np.abs(by_hand - x).max()), float(Linf(0.1).distance(inside, image)))
    short = L2(0.5).project(z, image)
    low, high = 0.0, 1.0  # the nearest point is clip(x + t delta, 0, 1) for the t that makes its length eps
    for _ in range(60):
        t = (low + high) / 2
        longer = np.linalg.norm(np.clip(x + t * (z.numpy().ravel() - x), 0, 1) - x) > 0.5
        low, high = (low, t) if longer else (t, high)
    by_hand = np.clip(x + low * (z.numpy().ravel() - x), 0, 1)
    length = float(L2(0.5).distance(short, image))
    agree("L2 0.5: length of the projected change", float(np.linalg.norm(by_hand - x)), length)


def pgd_step(x: np.ndarray, batch: Batch, model: nn.Sequential) -> None:
    """One step up the loss: for a linear net and cross-entropy the gradient is W^T (p - e_y)."""
    print("2  PGD step: x' = projection(x + a sign(gradient)), gradient = W^T (p - e_y)")
    weight, bias = parameters(model)
    error = softmax(weight @ x + bias)
    error[int(batch.labels)] -= 1.0
    stepped = np.clip(x + 0.1 * np.sign(weight.T @ error), 0, 1)
    attack = PGD(Linf(0.1), steps=1, step_size=0.1, random_start=False)
    found = attack.perturb(model, batch.images, batch.labels, PerSample(0, batch.ids, "walk"))
    agree("sum of the pixels after the step", float(stepped.sum()), float(found.sum()), 1e-4)
    expected = -float(np.log(softmax(weight @ stepped + bias)[int(batch.labels)]))
    with torch.no_grad():
        reached = float(nn.functional.cross_entropy(model(found), batch.labels))
    agree("cross-entropy after the step", expected, reached, 1e-4)


def lipschitz_radius(x: np.ndarray, batch: Batch, model: nn.Sequential) -> None:
    """Margin over Lipschitz constant; for a linear net it is the true distance to the nearest border."""
    print("3  Lipschitz radius: R = min over j of (z_y - z_j) / ||w_y - w_j||")
    weight, bias = parameters(model)
    logits = weight @ x + bias
    y = int(logits.argmax())
    gaps = [(logits[y] - logits[j]) / np.linalg.norm(weight[y] - weight[j]) for j in range(10) if j != y]
    radius = float(LipschitzCertificate()(model, batch).radius)
    agree("certified radius (here also the true one, without the box)", float(min(gaps)), radius)
    inside = APGD(L2(0.999 * radius), steps=30, loss="margin")(model, batch)
    outside = APGD(L2(1.5 * radius), steps=30, loss="margin")(model, batch)
    print(f"  an attack of 0.999 R succeeds: {bool(inside.success)};   of 1.5 R: {bool(outside.success)}")
    if bool(inside.success):
        raise SystemExit("an attack inside a certified radius")


def cohen_radius(batch: Batch, model: nn.Sequential) -> None:
    """Votes under noise give a lower bound of the top class's probability, and that a radius."""
    print("4  Cohen's radius: R = sigma * PhiInv(lower bound of p_A), the bound by Clopper and Pearson at level alpha")
    result = SmoothingCertificate(Gaussian(0.25), n0=100, n=1000, alpha=0.001)(model, batch, seed=0)
    votes = result.rows[0]["counts"]
    top = votes[int(np.argmax(result.rows[0]["counts0"]))]
    bound = float(stats.beta.ppf(0.001, top, 1000 - top + 1))
    print(f"  votes for the top class: {top} of 1000, so p_A >= {bound:.6f} except with probability 0.001")
    by_hand = max(0.0, 0.25 * float(stats.norm.ppf(bound)))  # at or below one half it abstains
    agree("certified radius of the majority vote", by_hand, float(result.radius))


def mix(x: np.ndarray, batch: Batch, accurate: nn.Sequential, robust: nn.Sequential) -> None:
    """Mix probabilities, not logits; the robust model's margin must exceed (1 - alpha) / alpha (Lemma 3.2)."""
    print("5  mix (Bai et al. 2024, Eq. 5): m = log((1 - alpha) softmax(g) + alpha softmax(h)), alpha = 0.8")
    probabilities = []
    for net in (accurate, robust):
        weight, bias = parameters(net)
        probabilities.append(softmax(weight @ x + bias))
    g, h = probabilities
    model = mixed(accurate, robust, alpha=0.8).eval()
    y = int(batch.labels)
    agree("m_y", float(np.log(0.2 * g[y] + 0.8 * h[y])), float(model(batch.images)[0, y].detach()))
    margin = float(h[y] - np.delete(h, y).max())
    print(f"  margin of the robust model {margin:.4f}, needed (1 - alpha) / alpha = {0.2 / 0.8:.4f}")
    radius = float(MixedCertificate()(model, batch).radius)
    weight, bias = parameters(robust)
    logits = weight @ x + bias
    least = [logits[y] - logits[j] - np.linalg.norm(weight[y] - weight[j]) * radius for j in range(10) if j != y]
    kept = -np.expm1(-min(least)) / (1.0 + np.exp(-np.array(least)).sum())
    print(f"  certified radius of the mix {radius:.6f}")
    if radius > 0.0:
        agree("margin that the robust model keeps in that radius", float(kept), 0.2 / 0.8)


def main() -> None:
    """Walk through the formulas on one test digit."""
    torch.set_num_threads(1)
    batch = load("digits").test.batch(slice(DIGIT, DIGIT + 1))
    x = batch.images.numpy().ravel().astype(np.float64)
    robust, accurate = linear(1.0), linear(0.0)
    print(f"one test digit, a {int(batch.labels)}; by hand on the left, by Hauberk on the right")
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.3, batch.images.shape)).float()
    projections(x, batch.images, batch.images + noise)
    pgd_step(x, batch, robust)
    lipschitz_radius(x, batch, robust)
    cohen_radius(batch, robust)
    mix(x, batch, accurate, robust)


if __name__ == "__main__":
    main()
