"""Lemma 3.2: a hostile accurate model cannot turn the mix inside the radius, and can just outside."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from hauberk.batch import Batch
from hauberk.certificates import ABSTAIN, LipschitzCertificate, MixedCertificate, SmoothingCertificate
from hauberk.certificates.mixed import needed_alpha, required_margin
from hauberk.classifier import predictor_name
from hauberk.conformance import LinearOracle, check_certificate
from hauberk.defences import MixedClassifier
from hauberk.errors import HauberkError
from hauberk.noise import Gaussian

LIPSCHITZ = MixedCertificate()
SMOOTHING = MixedCertificate(SmoothingCertificate(sigma=0.05, n0=20, n=500, alpha=0.01))


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
    np.testing.assert_allclose(scaled.evidence[0]["logits"], scale * np.asarray(plain.evidence[0]["logits"]))


def test_its_own_margin_is_that_of_lemma_3_2() -> None:
    row = {"logits": [6.0, 1.0, 0.0]}
    shared = {"pairwise": (2.0 * (1 - np.eye(3))).tolist(), "layers": [], "base": "lipschitz", "mix_alpha": 0.8}
    for r in (0.0, 0.5, 1.0):
        kept = LipschitzCertificate().margin(row, shared, r)
        assert LIPSCHITZ.margin(row, shared, r) == pytest.approx(0.8 * kept - 0.2)
    whole, wider = LIPSCHITZ.radius(row, shared), LIPSCHITZ.radius(row, shared, 0.3)
    assert LIPSCHITZ.margin(row, shared, whole) == pytest.approx(0.0, abs=1e-9)
    assert LIPSCHITZ.margin(row, shared, wider) == pytest.approx(0.3, abs=1e-9)
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
    with pytest.raises(ValueError, match="mix inside a mix"):
        MixedCertificate(MixedCertificate())
