"""A denoiser before a classifier: a Wiener filter whose smoothed radius has closed form, noise, spec and contract."""

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from hauberk import registry
from hauberk.batch import Batch
from hauberk.capabilities import Denoises
from hauberk.certificates import MixedCertificate, SmoothingCertificate
from hauberk.classifier import predictor_name, traits
from hauberk.conformance import LinearOracle, check_classifier
from hauberk.defences import mixed, smoothed
from hauberk.defences.denoised import DenoisedClassifier, check_sigma, denoised
from hauberk.errors import HauberkError
from hauberk.models import small_cnn
from hauberk.models.dncnn import dncnn
from hauberk.noises import Gaussian, Uniform

SIGMA = 0.25
SMALL = SmoothingCertificate(Gaussian(SIGMA), n0=20, n=200, alpha=0.01)
TASK = {"input_shape": (1, 4, 4), "num_classes": 3, "mean": (0.5,), "std": (0.2,)}


class Wiener(nn.Module, Denoises):
    r"""The best denoiser of images :math:`x \sim N(m, \mathrm{diag}(s))`: :math:`m + s / (s + \sigma^2) (y - m)`."""

    def __init__(self, variance: Tensor, mean: float = 0.5, sigma: float = SIGMA) -> None:
        super().__init__()
        self.gain, self.mean, self.sigma = variance / (variance + sigma**2), mean, sigma
        self.spec = {"name": "own", "source": "wiener:build"}

    def forward(self, images: Tensor) -> Tensor:
        return self.mean + self.gain * (images - self.mean)


def variance(shape=(1, 4, 4)) -> Tensor:
    return 0.5 * torch.rand(shape, generator=torch.Generator().manual_seed(3)) ** 2


def cnn(**settings) -> nn.Module:
    torch.manual_seed(0)
    return small_cnn(**(TASK | {"widths": (4,), "strides": (1,)} | settings)).eval()


# --- the certificate is that of f(x) = c(D(x)) -----------------------------------------------------------------


def test_the_smoothed_radius_of_a_linear_classifier_behind_a_wiener_filter_is_known():
    """The filter moves the boundary of :math:`c(y) = w (y - c) + b` to the one of the weights ``gain * w``."""
    oracle, gain = LinearOracle.random((1, 4, 4)), Wiener(variance()).gain
    model = DenoisedClassifier(oracle, Wiener(variance()), SIGMA).eval()
    seen = LinearOracle(oracle.layers[1].weight.data * gain.flatten(), torch.zeros(2), (1, 4, 4))
    with torch.no_grad():
        seen.layers[1].bias.copy_(oracle(torch.full((1, 1, 4, 4), 0.5))[0] - 0.5 * seen.layers[1].weight.sum(1))
    batch = seen.at_distance(0.3, "l2", rows=6)
    assert torch.allclose(model(batch.images), seen(batch.images), atol=1e-5)
    true = seen.true_radius(batch.images, "l2")
    assert float((true - oracle.true_radius(batch.images, "l2")).abs().min()) > 0.01  # it is another classifier
    n = 4000
    found = replace(SMALL, n=n, alpha=1e-4)(model, batch, tile=500)
    assert torch.equal(found.prediction, seen(batch.images).argmax(1))
    p = stats.norm.cdf(true / SIGMA)
    spread = 6 * ((p * (1 - p)) / n) ** 0.5
    least = torch.tensor(SIGMA * stats.norm.ppf(p - spread))
    assert bool((found.radius <= true).all())
    assert bool((found.radius >= least).all())


def test_the_filter_is_the_best_one_so_that_the_noise_is_on_the_scale_of_its_sigma():
    s = torch.full((1, 1, 1), 0.04)
    draw = torch.Generator().manual_seed(0)
    clean = 0.5 + 0.2 * torch.randn(20_000, 1, 1, 1, generator=draw)
    noisy = clean + SIGMA * torch.randn(clean.shape, generator=draw)
    error = (Wiener(s)(noisy) - clean).square().mean()
    assert float(error) == pytest.approx(0.04 * SIGMA**2 / (0.04 + SIGMA**2), rel=0.05)


def test_certificates_of_it_alone_and_of_its_smoothed_form_are_one():
    batch = LinearOracle.random((1, 4, 4)).batch(3)
    model = denoised(cnn(num_classes=2), Wiener(variance())).eval()
    alone, whole = SMALL(model, batch), SMALL(smoothed(model, Gaussian(SIGMA)).eval(), batch)
    assert alone.evidence == whole.evidence
    assert alone.predictor == whole.predictor


def test_a_denoiser_that_looks_at_other_images_of_the_batch_is_not_certified():
    class Mean(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images - images.mean() + 0.5

    model = DenoisedClassifier(cnn(), Mean(), SIGMA).eval()
    with pytest.raises(HauberkError, match="other images of the batch"):
        SMALL(model, LinearOracle.random((1, 4, 4)).batch(3))


# --- the noise that the denoiser is made for --------------------------------------------------------------------


def test_a_smoothing_with_other_noise_is_refused_wherever_the_denoiser_stands():
    model = denoised(cnn(), dncnn(1, 4, 2), sigma=SIGMA).eval()
    batch = LinearOracle.random((1, 4, 4)).batch(2)
    other = replace(SMALL, noise=Gaussian(0.5))
    said = r"made for noise of sigma 0\.25, but the smoothing has sigma 0\.5"
    for inside in (model, mixed(cnn(), model, 0.6).eval()):
        with pytest.raises(HauberkError, match=said):
            smoothed(inside, Gaussian(0.5))
        with pytest.raises(HauberkError, match=said) as caught:
            other(inside, batch)
        assert "smooth with sigma 0.25" in caught.value.hint
        smoothed(inside, Uniform(SIGMA))  # of another family and the same size
        SMALL(inside, batch)
    check_sigma(nn.Sequential(model), 0.1 + 0.15)


def test_an_accurate_model_that_meets_no_noise_may_be_denoised_for_any():
    robust = smoothed(cnn(), Gaussian(0.5)).eval()
    mix = mixed(denoised(cnn(), dncnn(1, 4, 2), sigma=SIGMA), robust, 0.7).eval()
    found = MixedCertificate(replace(SMALL, noise=Gaussian(0.5)))(mix, LinearOracle.random((1, 4, 4)).batch(2))
    assert found.kind == "probabilistic" and len(found.radius) == 2


def test_a_denoiser_tells_its_noise_or_the_user_does():
    with pytest.raises(HauberkError, match="noise level of the denoiser is not known"):
        denoised(cnn(), dncnn(1, 4, 2))
    assert denoised(cnn(), Wiener(variance())).sigma == SIGMA
    assert denoised(cnn(), Wiener(variance()), sigma=SIGMA).sigma == SIGMA
    with pytest.raises(HauberkError, match="not for sigma 0"):
        denoised(cnn(), Wiener(variance()), sigma=0.5)
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(HauberkError, match="positive sigma"):
            denoised(cnn(), dncnn(1, 4, 2), sigma=wrong)


def test_the_denoiser_of_a_denoised_classifier_is_taken_with_its_noise():
    first = smoothed(denoised(cnn(), dncnn(1, 4, 2), sigma=SIGMA), Gaussian(SIGMA))
    second = denoised(cnn(widths=(6,)), first)
    assert second.denoiser is first.base.denoiser
    assert (second.sigma, denoised(cnn(), first, sigma=0.5).sigma) == (SIGMA, 0.5)
    with pytest.raises(HauberkError, match="holds 2 denoised classifiers"):
        denoised(cnn(), mixed(first.base, second, 0.6))


# --- the classifier ---------------------------------------------------------------------------------------------


def test_the_contract_the_spec_and_its_name():
    model = denoised(cnn(), dncnn(1, 4, 3), sigma=SIGMA).eval()
    check_classifier(model, (1, 4, 4))
    assert (traits(model).declared, traits(model).gradient) == (True, "exact")
    again = registry.build(registry.spec(model), "defence").eval()
    again.load_state_dict(model.state_dict())
    images = torch.rand(2, 1, 4, 4)
    assert torch.equal(again(images), model(images))
    assert predictor_name(again) == predictor_name(model)
    again.sigma = 0.5
    assert predictor_name(again) != predictor_name(model)


def test_the_classifier_is_frozen_and_stays_in_eval_mode():
    model = denoised(cnn(), dncnn(1, 4, 3), sigma=SIGMA).train()
    assert model.denoiser.training
    assert not any(m.training for m in model.base.modules())
    assert {name.partition(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"denoiser"}


def test_what_decides_otherwise_and_what_changes_the_shape_is_refused():
    with pytest.raises(HauberkError, match="has a decision rule of its own"):
        denoised(smoothed(cnn(), Gaussian(SIGMA)), dncnn(1, 4, 2), sigma=SIGMA)
    model = DenoisedClassifier(cnn(), nn.AvgPool2d(2), SIGMA).eval()
    with pytest.raises(HauberkError, match=r"\(2, 1, 2, 2\) for images of shape \(2, 1, 4, 4\)"):
        model(Batch(torch.rand(2, 1, 4, 4), torch.zeros(2).long(), torch.arange(2)).images)
