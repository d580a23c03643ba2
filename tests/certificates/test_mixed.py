"""Lemma 3.2: a hostile accurate model cannot turn the mix inside the radius, and can just outside."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor, nn

from hauberk.batch import Batch
from hauberk.certificates import (
    ABSTAIN,
    Certificate,
    LipschitzCertificate,
    MixedCertificate,
    SmoothingCertificate,
)
from hauberk.certificates.evidence import LogitMargins, OfMix
from hauberk.certificates.local_lipschitz import LocalLipschitz
from hauberk.certificates.mixed import Bound, needed_alpha, required_margin, theorem_3_5_radius
from hauberk.classifier import predictor_name
from hauberk.conformance import LinearOracle, check_certificate
from hauberk.defences import MixedClassifier
from hauberk.defences.adaptive_mixed import AdaptiveMixedClassifier
from hauberk.errors import HauberkError
from hauberk.noises import Gaussian
from hauberk.threats import L2, Linf

read = OfMix.read
VOTED = {"counts0": [90, 5, 5], "counts": [990, 5, 5]}, {"sigma": 0.5, "n0": 100, "n": 1000, "alpha": 0.001}
LIPSCHITZ = MixedCertificate()
VOTES = SmoothingCertificate(Gaussian(0.05), n0=20, n=500, alpha=0.01)
SMOOTHING = MixedCertificate(VOTES)
ORDERS = {"l1": 1.0, "l2": 2.0, "linf": math.inf}
DUALS = {"l1": math.inf, "l2": 2.0, "linf": 1.0}


class Hostile(nn.Module):
    """Sure of the label near the image, sure of the other class elsewhere."""

    def __init__(self, images: Tensor, label: int) -> None:
        super().__init__()
        self.register_buffer("images", images)
        self.label = label

    def forward(self, images: Tensor) -> Tensor:
        near = (images - self.images).flatten(1).abs().amax(1) < 1e-9
        sure = torch.where(near, 1e4, -1e4).to(images)
        return torch.stack([sure, -sure], 1) if self.label == 0 else torch.stack([-sure, sure], 1)


@pytest.mark.parametrize("alpha", [0.6, 0.9, 1.0])
def test_conformance_on_a_lipschitz_base(alpha: float) -> None:
    check_certificate(LIPSCHITZ, lambda net: MixedClassifier(net, net, alpha, 1.0, 50.0))


@pytest.mark.parametrize("alpha", [0.75, 1.0])
def test_conformance_on_a_smoothed_base(alpha: float) -> None:
    check_certificate(SMOOTHING, lambda net: MixedClassifier(net, net, alpha, 1.0, 1.0))


@pytest.mark.parametrize("alpha", [0.75, 1.0])
@pytest.mark.parametrize(("base", "bound"), [(LipschitzCertificate(), "theorem_3_5"), (VOTES, "theorem_3_5"),
                                             (VOTES, "theorem_a1")])  # fmt: skip
def test_conformance_with_the_bounds_of_the_paper(base: Certificate, bound: Bound, alpha: float) -> None:
    check_certificate(MixedCertificate(base, bound), lambda net: MixedClassifier(net, net, alpha, 1.0, 50.0))


@pytest.mark.parametrize("bound", ["exact", "theorem_3_5"])
def test_conformance_on_an_estimate(bound: Bound) -> None:
    certificate = MixedCertificate(LocalLipschitz(L2(0.03), steps=2), bound)
    check_certificate(certificate, lambda net: MixedClassifier(net, net, 0.75, 1.0, 50.0))


@pytest.mark.parametrize("alpha", [0.55, 0.79, 0.99])
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_a_hostile_accurate_model_flips_just_outside_and_never_inside(alpha: float, scale: float) -> None:
    """The robust model is linear with two classes, so its margin is known everywhere and the certificate is tight."""
    oracle = LinearOracle.random((1, 2, 3), 2, seed=4).double()
    w = oracle.layers[1].weight.detach().diff(dim=0)[0]
    w = w / w.norm()
    tried = 0
    for row in range(12):
        single = _row(oracle, row)
        y = int(single.labels[0])
        mix = MixedClassifier(Hostile(single.images, y), oracle.layers, alpha, 1.0, scale).eval()
        found = LIPSCHITZ(mix, single)
        radius = float(found.radius[0])
        if found.prediction[0] == ABSTAIN:
            assert radius == 0.0
            continue
        tried += 1
        toward = (w if y == 0 else -w).reshape(1, 1, 2, 3)
        with torch.no_grad():
            assert int(mix(single.images).argmax(1)) == y
            for part in (0.3, 0.9, 1 - 1e-9):
                assert int(mix(single.images + part * radius * toward).argmax(1)) == y
            assert int(mix(single.images + (1 + 1e-6) * radius * toward).argmax(1)) != y
    assert tried > 0 or (scale == 1.0 and alpha < 0.9)


def _row(oracle: LinearOracle, row: int) -> Batch:
    generator = torch.Generator().manual_seed(row)
    images = 0.4 + 0.2 * torch.rand(1, 1, 2, 3, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        return Batch(images, oracle(images).argmax(1), torch.tensor([row]))


@pytest.mark.parametrize("alpha", [0.55, 0.67, 0.79, 0.9, 0.999])
@pytest.mark.parametrize("p", [0.6, 0.8, 0.95, 0.999])
def test_no_smaller_than_theorem_a1_and_equal_at_one(alpha: float, p: float) -> None:
    """As printed: sigma / 2 (Phi^-1(a h_y) - Phi^-1(a h_y' + 1 - a)), with the rival's share 1 - p."""
    sigma = 0.5
    printed = 0.5 * sigma * (stats.norm.ppf(alpha * p) - stats.norm.ppf(alpha * (1 - p) + 1 - alpha))
    exact = Gaussian(sigma).radius(p, required_margin(alpha))
    assert max(exact, 0.0) >= max(printed, 0.0) - 1e-12
    at_one = 0.5 * sigma * (stats.norm.ppf(p) - stats.norm.ppf(1 - p))
    assert Gaussian(sigma).radius(p, required_margin(1.0)) == pytest.approx(at_one, rel=1e-12)


@pytest.mark.parametrize("alpha", [0.6, 0.8])
def test_on_a_half_space_the_smoothed_radius_is_exact(alpha: float) -> None:
    """h(x) = Phi(x / sigma): inside the radius a hostile model cannot turn the mix, just outside it can."""
    sigma, p = 0.5, 0.97
    at = sigma * stats.norm.ppf(p)
    radius = Gaussian(sigma).radius(p, required_margin(alpha))

    def turned(r: float) -> bool:
        h = stats.norm.cdf((at - r) / sigma)
        return alpha * h + (1 - alpha) * 0.0 < alpha * (1 - h) + (1 - alpha)

    assert not turned(radius * (1 - 1e-9))
    assert turned(radius * (1 + 1e-9))


def test_the_margin_that_is_needed() -> None:
    assert required_margin(1.0) == 0.0
    assert required_margin(0.5) == 1.0
    for alpha in (0.5, 0.6, 0.79, 0.999):
        assert needed_alpha(required_margin(alpha)) == pytest.approx(alpha, rel=1e-11)
        assert needed_alpha(required_margin(alpha)) > alpha  # rounded up
    assert needed_alpha(1e-15) <= 1.0
    assert math.isnan(needed_alpha(0.0))
    assert math.isnan(needed_alpha(-0.5))


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.49, 0.5])
def test_below_one_half_nothing_is_proved(alpha: float) -> None:
    oracle = LinearOracle.random((1, 2, 2), 2)
    found = LIPSCHITZ(MixedClassifier(oracle.layers, oracle.layers, alpha, 1.0, 100.0).eval(), oracle.batch(8))
    assert found.prediction.tolist() == [ABSTAIN] * 8
    assert found.radius.tolist() == [0.0] * 8


def test_at_one_it_is_the_bases_own_certificate() -> None:
    oracle = LinearOracle.random((1, 2, 2), 3)
    batch = oracle.batch(8)
    found = LIPSCHITZ(MixedClassifier(oracle.layers, oracle.layers, 1.0, 1.0, 1.0).eval(), batch)
    own = LipschitzCertificate()(oracle.layers, batch)
    torch.testing.assert_close(found.radius, own.radius, rtol=1e-9, atol=0)
    assert torch.equal(found.prediction, own.prediction)


@pytest.mark.parametrize("scale", [0.5, 7.0])
def test_the_scale_multiplies_logits_and_bounds(scale: float) -> None:
    """A scale moves no boundary: at alpha 1 the radius stays; below, a larger scale keeps the margin for longer."""
    oracle = LinearOracle.random((1, 2, 2), 3)
    batch = oracle.batch(8)
    plain = LIPSCHITZ(MixedClassifier(oracle.layers, oracle.layers, 1.0, 1.0, 1.0).eval(), batch)
    scaled = LIPSCHITZ(MixedClassifier(oracle.layers, oracle.layers, 1.0, 1.0, scale).eval(), batch)
    torch.testing.assert_close(plain.radius, scaled.radius, rtol=1e-9, atol=0)
    np.testing.assert_allclose(scaled.shared["pairwise"], scale * np.asarray(plain.shared["pairwise"]))
    np.testing.assert_allclose(scaled.rows[0]["logits"], scale * np.asarray(plain.rows[0]["logits"]))


def test_its_own_margin_is_that_of_lemma_3_2() -> None:
    row = {"logits": [6.0, 1.0, 0.0]}
    shared = {"pairwise": (2.0 * (1 - np.eye(3))).tolist(), "layers": [], "base": "lipschitz", "mix_alpha": 0.8}
    for r in (0.0, 0.5, 1.0):
        kept = LipschitzCertificate().margin(LogitMargins.read(row, shared), r)
        assert LIPSCHITZ.margin(read(row, shared), r) == pytest.approx(0.8 * kept - 0.2)
    whole, wider = LIPSCHITZ.radius(read(row, shared)), LIPSCHITZ.radius(read(row, shared), 0.3)
    assert LIPSCHITZ.margin(read(row, shared), whole) == pytest.approx(0.0, abs=1e-9)
    assert LIPSCHITZ.margin(read(row, shared), wider) == pytest.approx(0.3, abs=1e-9)
    assert wider < whole


def test_the_votes_failure_probability_survives_in_the_evidence() -> None:
    oracle = LinearOracle.random((1, 2, 2), 2)
    found = SMOOTHING(MixedClassifier(oracle.layers, oracle.layers, 0.9, 1.0, 1.0).eval(), oracle.batch(2))
    assert found.shared["alpha"] == 0.01
    assert found.shared["mix_alpha"] == 0.9
    assert found.failure_probability == 0.01
    assert found.kind == "probabilistic"


def test_predictors_have_names_of_their_own() -> None:
    net = LinearOracle.random((1, 2, 2), 2).layers
    names = set()
    for alpha in (0.84, 0.8400001):
        for scale in (1.0, 2.0, 2.0000001):
            model = MixedClassifier(net, net, alpha, 1.0, scale)
            names |= {LIPSCHITZ.predictor(model), SMOOTHING.predictor(model)}
            assert LIPSCHITZ.predictor(model) == predictor_name(model)
    assert len(names) == 12


def test_only_mixes_and_no_mix_of_mixes() -> None:
    oracle = LinearOracle.random((1, 2, 2), 2)
    with pytest.raises(HauberkError, match="certifies a mixed classifier"):
        LIPSCHITZ(oracle.layers, oracle.batch(1))
    with pytest.raises(ValueError, match="cannot be mixed_margin again"):
        MixedCertificate(MixedCertificate())


# --- the bounds of the paper ----------------------------------------------------------------------------------


def certificates_of(base: Certificate) -> dict[str, MixedCertificate]:
    bounds: list[Bound] = ["exact", "theorem_3_5"]
    bounds += ["theorem_a1"] if isinstance(base, SmoothingCertificate) else []
    return {bound: MixedCertificate(base, bound) for bound in bounds}


@pytest.mark.parametrize("alpha", [0.51, 0.55, 0.67, 0.79, 0.95, 1.0])
def test_on_votes_the_exact_radius_is_never_below_the_theorems(alpha: float) -> None:
    """All from the same votes, against the formulas as printed; positive for the same votes, A.1 equal at one.

    A.1 is never below Theorem 3.5 as printed; with the sharp constant either may be the larger one.
    """
    base = SmoothingCertificate(Gaussian(0.5), n=1000, alpha=0.001)
    shared = {"sigma": 0.5, "n0": 100, "n": 1000, "alpha": 0.001, "base": "smoothing", "mix_alpha": alpha}
    for votes in (0, 500, 560, 600, 650, 690, 695, 700, 750, 800, 900, 990, 999, 1000):
        row = {"counts0": [0, 100], "counts": [1000 - votes, votes]}
        p = stats.beta.ppf(0.001, votes, 1001 - votes) if votes else 0.0
        r = {bound: c.radius(read(row, shared)) for bound, c in certificates_of(base).items()}
        quantiles = stats.norm.ppf(alpha * p) - stats.norm.ppf(alpha * (1 - p) + 1 - alpha)
        assert r["theorem_a1"] == pytest.approx(max(0.0, 0.25 * quantiles), rel=1e-9)
        paper = (alpha * (2 * p - 1) + alpha - 1) / (2 * alpha * math.sqrt(2 / math.pi) / 0.5)
        assert r["theorem_3_5"] == pytest.approx(max(0.0, 2 * paper), rel=1e-9)  # with half of the paper's constant
        assert r["exact"] >= max(r.values()) * (1 - 1e-9)
        assert r["theorem_a1"] >= paper * (1 - 1e-9)
        assert len({value > 0.0 for value in r.values()}) == 1
        assert len({c.decision(read(row, shared)) for c in certificates_of(base).values()}) == 1
        if alpha == 1.0:
            assert r["exact"] == pytest.approx(r["theorem_a1"], rel=1e-9)


def test_the_constant_of_a_smoothed_probability_is_sharp() -> None:
    """The steepest smoothed [0, 1]-valued function is a half-space, and it is as steep as its Lipschitz constant."""
    sigma, h = 0.3, 1e-5
    slope = (stats.norm.cdf(h / sigma) - stats.norm.cdf(-h / sigma)) / (2 * h)
    shared = {"sigma": sigma, "n0": 100, "n": 10**5, "alpha": 0.001, "base": "smoothing", "mix_alpha": 1.0}
    certificate = MixedCertificate(SmoothingCertificate(Gaussian(sigma)), "theorem_3_5")
    row = {"counts0": [0, 1], "counts": [10**4, 9 * 10**4]}
    p = stats.beta.ppf(0.001, 90000, 10001)
    assert (2 * p - 1) / (2 * certificate.radius(read(row, shared))) == pytest.approx(slope, rel=1e-6)


def linear(norm: str, k: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights (K, 3), an image and the pairwise Lipschitz constants of the logits of a linear model in a norm."""
    draw = np.random.default_rng(seed)
    weights, image = 3.0 * draw.normal(size=(k, 3)), draw.normal(size=3)
    pairwise = np.linalg.norm(weights[:, None] - weights[None], ord=DUALS[norm], axis=2)
    return weights, image, pairwise


def ball(norm: str, radius: float, seed: int) -> np.ndarray:
    """Points of a ball in three dimensions, extreme points of the cube and the cross-polytope among them."""
    draw = np.random.default_rng(seed)
    corners = np.array(list(itertools.product([-1.0, 1.0], repeat=3)))
    points = np.concatenate([draw.normal(size=(2000, 3)), corners, np.eye(3), -np.eye(3)])
    return radius * points / np.linalg.norm(points, ord=ORDERS[norm], axis=1, keepdims=True)


def theorem(weights: np.ndarray, image: np.ndarray, pairwise: np.ndarray, alpha: float) -> tuple[int, float]:
    p = special.softmax(weights @ image)
    y, constants = int(p.argmax()), pairwise.max(1) / 4
    radius = theorem_3_5_radius(p[y] - np.delete(p, y), constants[y], np.delete(constants, y), alpha)
    return y, radius


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize("k", [2, 4])
def test_theorem_3_5_holds_in_every_norm(norm: str, k: int) -> None:
    """Brute force over the ball with the worst accurate model there is: one-hot on the robust model's runner-up."""
    positive = 0
    for seed in range(30):
        weights, image, pairwise = linear(norm, k, seed)
        for alpha in (0.6, 0.79, 1.0):
            y, radius = theorem(weights, image, pairwise, alpha)
            p = special.softmax(weights @ image)
            assert (radius > 0.0) == (alpha > 1 / (1 + p[y] - np.delete(p, y).max()))
            if radius == 0.0:
                continue
            positive += 1
            q = special.softmax((image + ball(norm, radius, seed)) @ weights.T, axis=1)
            assert (alpha * (q[:, y] - np.delete(q, y, 1).max(1)) - (1 - alpha)).min() >= -1e-12
    assert positive > 20


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize("k", [2, 4])
def test_the_constants_of_a_softmax_bound_it_and_are_sharp(norm: str, k: int) -> None:
    """Finite differences never exceed max K / 4; with two classes they reach it where both have one half."""
    weights, image, pairwise = linear(norm, k, 1)
    constants = pairwise.max(1) / 4
    steps = ball(norm, 1e-4, 2)
    images = [image + 0.3 * np.random.default_rng(i).normal(size=3) for i in range(20)]
    if k == 2:  # the image at which the classes are level
        gap = weights[0] - weights[1]
        images.append(image - gap * (gap @ image) / (gap @ gap))
    moved = [special.softmax((x + steps) @ weights.T, axis=1) - special.softmax(weights @ x) for x in images]
    steepest = np.abs(np.concatenate(moved)).max(0) / 1e-4
    assert (steepest <= constants * (1 + 1e-3)).all()
    if k == 2:
        assert (steepest >= 0.98 * constants).all()


def test_theorem_3_5_by_hand() -> None:
    assert theorem_3_5_radius([0.5, 0.7], 1.0, [2.0, 8.0], 0.8) == pytest.approx(min(0.2 / 2.4, 0.36 / 7.2))
    assert theorem_3_5_radius([0.5, 0.7], 1.0, [2.0, 8.0], 0.8, 0.1) == pytest.approx(min(0.1 / 2.4, 0.26 / 7.2))
    assert theorem_3_5_radius([0.5], 0.0, [0.0], 0.8) == math.inf
    for margins in ([0.2], [0.5, 0.1], [float("nan")]):
        assert theorem_3_5_radius(margins, 1.0, [1.0] * len(margins), 0.8) == 0.0
    for alpha in (0.0, 0.4, 0.5, float("nan")):
        assert theorem_3_5_radius([1.0], 1.0, [1.0], alpha) == 0.0


def propagated(seed: int, alpha: float) -> tuple[dict[str, float], float, np.ndarray, np.ndarray, int]:
    weights, image, pairwise = linear("l2", 5, seed)
    row, shared = {"logits": (weights @ image).tolist()}, {
        "pairwise": pairwise.tolist(), "layers": [], "base": "lipschitz", "mix_alpha": alpha,
    }  # fmt: skip
    made = certificates_of(LipschitzCertificate())
    radii = {b: c.radius(read(row, shared)) for b, c in made.items()}
    return radii, alpha, weights, image, int(np.argmax(weights @ image))


def test_propagated_logit_gaps_hold_and_beat_theorem_3_5() -> None:
    """No violation in brute force, never a smaller radius, and a larger one at the median."""
    radii = []
    for seed, alpha in itertools.product(range(60), (0.55, 0.79, 0.95)):
        found, alpha, weights, image, y = propagated(seed, alpha)
        assert found["exact"] >= found["theorem_3_5"] * (1 - 1e-9)
        assert (found["exact"] > 0) == (found["theorem_3_5"] > 0)
        if found["exact"] == 0.0:
            continue
        radii.append(list(found.values()))
        for part in (0.5, 1.0):
            q = special.softmax((image + ball("l2", part * found["exact"], seed)) @ weights.T, axis=1)
            assert (alpha * (q[:, y] - np.delete(q, y, 1).max(1)) - (1 - alpha)).min() > -1e-12
    exact, theorem_3_5 = np.median(np.array(radii), axis=0)
    assert len(radii) > 60
    assert exact > 1.5 * theorem_3_5


@pytest.mark.parametrize("bound", ["exact", "theorem_3_5"])
@pytest.mark.parametrize("base", ["lipschitz", "smoothing"])
def test_every_bound_grows_with_alpha_and_is_consistent_with_its_margin(bound: Bound, base: str) -> None:
    row, shared = {"logits": [6.0, 1.0, 0.0]}, {"pairwise": (2.0 * (1 - np.eye(3))).tolist(), "layers": []}
    certificate = MixedCertificate(LipschitzCertificate(), bound)
    if base == "smoothing":
        row, shared = VOTED
        certificate = MixedCertificate(SmoothingCertificate(Gaussian(0.5), n=1000), bound)
    _grows(certificate, row, shared | {"base": base})


def test_theorem_a1_grows_with_alpha_and_is_consistent_with_its_margin() -> None:
    row, shared = VOTED
    votes = SmoothingCertificate(Gaussian(0.5), n=1000)
    _grows(MixedCertificate(votes, "theorem_a1"), row, shared | {"base": "smoothing"})


def _grows(certificate: MixedCertificate, row: dict[str, Any], shared: dict[str, Any]) -> None:
    radii = []
    for alpha in np.linspace(0.4, 1.0, 25).tolist():
        seen = read(row, shared | {"mix_alpha": alpha})
        radii.append(certificate.radius(seen))
        for margin in (0.0, 0.1, 0.3):
            radius = certificate.radius(seen, margin)
            assert radius <= radii[-1]
            if radius > 0.0:
                assert certificate.margin(seen, radius) == pytest.approx(margin, abs=1e-9)
    assert (np.diff(radii) >= 0).all()
    assert radii[0] == 0.0
    assert len(set(radii)) > 15


def test_a_bound_needs_a_base_that_it_knows() -> None:
    with pytest.raises(ValueError, match="theorem_a1 needs a base that is SmoothingCertificate"):
        MixedCertificate(LipschitzCertificate(), "theorem_a1")
    with pytest.raises(ValueError, match="theorem_a1 needs"):
        MixedCertificate(LocalLipschitz(Linf(0.1)), "theorem_a1")


# --- a weight that depends on the image -----------------------------------------------------------------------


class HostileWeight(nn.Module):
    """A mixing network that takes, for each image, the end of the range under which the label is further behind."""

    def __init__(self, low: float, scales: tuple[float, float], label: int) -> None:
        super().__init__()
        self.low, self.scales, self.label = low, scales, label

    def forward(self, first: Sequence[Tensor], _: Sequence[Tensor]) -> Tensor:
        """From both bases' logits, each (B, K), to a number that is far on one side, (B,)."""
        g, h = ((scale * z).softmax(1) for scale, z in zip(self.scales, first, strict=True))
        rivals = [i for i in range(g.shape[1]) if i != self.label]
        lead = [(z[:, self.label] - z[:, rivals].amax(1)) for z in ((1 - self.low) * g + self.low * h, h)]
        return torch.where(lead[0] < lead[1], -1e6, 1e6).to(g)


def varying(accurate: nn.Module, robust: nn.Module, low: float, scales: tuple[float, float], label: int = 0):
    mixing = HostileWeight(low, scales, label)
    return AdaptiveMixedClassifier(
        accurate, robust, mixing, ("", ""), ("", ""), alpha_min=low, alpha_max=1.0, accurate_scale=scales[0],
        robust_scale=scales[1],
    ).eval()  # fmt: skip


class RunnerUp(nn.Module):
    """Sure of the robust model's best class other than the label."""

    def __init__(self, robust: nn.Module, label: int) -> None:
        super().__init__()
        self.robust, self.label = robust, label

    def forward(self, images: Tensor) -> Tensor:
        logits = self.robust(images).clone()
        logits[:, self.label] = -torch.inf
        return 1e4 * nn.functional.one_hot(logits.argmax(1), logits.shape[1]).to(logits)


@pytest.mark.parametrize("alpha", [0.6, 0.79, 0.95])
@pytest.mark.parametrize("sure", [True, False], ids=["runner-up", "random"])
def test_no_weight_above_the_least_one_can_break_its_certificate(alpha: float, sure: bool) -> None:
    """Both the accurate model and the weight work against the label; beyond the radius they turn some image."""
    robust = LinearOracle.random((1, 2, 3), 3, seed=5).double().layers
    other = LinearOracle.random((1, 2, 3), 3, seed=6).double().layers
    draw = torch.Generator().manual_seed(0)
    images = 0.4 + 0.2 * torch.rand(10, 1, 2, 3, generator=draw, dtype=torch.float64)
    directions = torch.randn(400, 1, 2, 3, generator=draw, dtype=torch.float64)
    weight = robust[1].weight.detach()
    steep = (weight[:, None] - weight[None]).reshape(-1, 1, 2, 3)
    directions = torch.cat([directions, steep[steep.flatten(1).norm(dim=1) > 0]])
    directions = directions / directions.flatten(1).norm(dim=1)[:, None, None, None]
    tried = turned = 0
    for row in range(len(images)):
        image = images[row : row + 1]
        label = int(robust(image).argmax(1))
        accurate = RunnerUp(robust, label) if sure else other
        mix = varying(accurate, robust, alpha, (100.0, 20.0), label)
        found = LIPSCHITZ(mix, Batch(image, torch.tensor([label]), torch.tensor([row])))
        assert found.shared["mix_alpha"] == alpha
        if float(found.radius[0]) == 0.0:
            continue
        tried += 1
        with torch.no_grad():
            for part in (0.3, 0.9, 1.0 - 1e-9):
                assert bool((mix(image + part * float(found.radius[0]) * directions).argmax(1) == label).all())
            turned += bool((mix(image + 1.3 * float(found.radius[0]) * directions).argmax(1) != label).any())
    assert tried >= 5
    assert turned > 0 or not sure


def test_the_least_weight_is_what_is_read() -> None:
    oracle = LinearOracle.random((1, 2, 2), 2)
    mixes = [varying(oracle.layers, oracle.layers, 0.7, (1.0, 50.0)),
             MixedClassifier(oracle.layers, oracle.layers, 0.7, 1.0, 50.0)]  # fmt: skip
    found = [LIPSCHITZ(mix.eval(), oracle.batch(6)) for mix in mixes]
    assert torch.equal(found[0].radius, found[1].radius)
    assert found[0].shared["mix_alpha"] == 0.7
    assert bool((found[0].radius > 0).any())


def test_an_estimate_stays_one_and_sees_the_scale() -> None:
    """Over a local estimate the mix passes or fails at the budget, and no name speaks of votes."""
    oracle = LinearOracle.random((1, 2, 2), 2)
    batch, threat = oracle.batch(8), L2(0.02)
    certificate = MixedCertificate(LocalLipschitz(threat, steps=5))
    passed = []
    for scale in (1.0, 200.0):
        mix = MixedClassifier(oracle.layers, oracle.layers, 0.8, 1.0, scale).eval()
        found = certificate(mix, batch)
        assert (found.kind, found.failure_probability, found.norm) == ("estimate", 1.0, "l2")
        assert found.predictor == predictor_name(mix)
        assert set(found.radius.tolist()) <= {0.0, threat.eps}
        passed.append(int((found.radius > 0).sum()))
        both = MixedCertificate(LocalLipschitz(threat, steps=5), "theorem_3_5")(mix, batch)
        assert bool((both.radius <= found.radius).all())
    assert passed[0] < passed[1]


@pytest.mark.parametrize("bound", ["exact", "theorem_3_5"])
def test_changes_within_the_budget_say_nothing_of_what_lies_beyond(bound: Bound) -> None:
    """Probabilities 0.9 and 0.1 that move by 0.01 at most: at the budget 0.8 * 0.78 - 0.2 is left."""
    certificate = MixedCertificate(LocalLipschitz(Linf(0.5)), bound)
    row = {"clean": [0.9, 0.1], "points": [[0.89, 0.11], [0.89, 0.11]]}
    shared = {"norm": "linf", "eps": 0.5, "base": "local_lipschitz", "mix_alpha": 0.8}
    assert certificate.margin(read(row, shared), 0.5) == pytest.approx(0.8 * 0.78 - 0.2)
    assert certificate.radius(read(row, shared)) == 0.5
    assert certificate.margin(read(row, shared), 0.5001) < 0.0
