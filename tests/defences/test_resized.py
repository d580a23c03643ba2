"""Resizing against a bilinear rule written down by hand, its gradients, its spec, and what certificates say."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hauberk import registry
from hauberk.certificates import LipschitzCertificate, MixedCertificate
from hauberk.classifier import predictor_name, traits
from hauberk.conformance import LinearOracle, check_classifier
from hauberk.defences import mixed
from hauberk.defences.resized import ResizedClassifier, resized
from hauberk.errors import HauberkError
from hauberk.layers.lipschitz import layer_bounds, model_bound, pairwise_bounds
from hauberk.models import small_cnn


class Look(nn.Module):
    """Gives back what it sees."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def images(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, height, width, generator=generator, dtype=torch.float64)


def weights(old: int, new: int) -> np.ndarray:
    """Triangle filter at the pixel centres, (new, old); as wide as a new pixel where the axis shrinks."""
    ratio = old / new
    width = max(1.0, ratio)
    rows = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * ratio
        if ratio < 1:  # beyond the first and last centre the border goes on
            centre = min(max(centre, 0.5), old - 0.5)
        for j in range(old):
            rows[i, j] = max(0.0, 1.0 - abs(j + 0.5 - centre) / width)
        rows[i] /= rows[i].sum()
    return rows


@pytest.mark.parametrize("size", [(8, 8), (5, 9), (3, 2), (2, 9), (4, 6), (4, 9), (4, 3), (5, 6)])
def test_it_is_bilinear_between_pixel_centres_and_low_passed_where_it_shrinks(size):
    found = ResizedClassifier(Look(), size)(images(4, 6)).reshape(2, 3, *size).numpy()
    expected = np.einsum("ih,jw,bchw->bcij", weights(4, size[0]), weights(6, size[1]), images(4, 6).numpy())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_shrinking_sees_every_pixel():
    leaf = images(12, 12).requires_grad_(True)
    (gradient,) = torch.autograd.grad(ResizedClassifier(Look(), (3, 3))(leaf).sum(), leaf)
    assert bool((gradient > 0).all())


def test_the_same_size_is_the_base_bit_for_bit():
    oracle = LinearOracle.random((3, 4, 6), 3)
    assert torch.equal(ResizedClassifier(oracle, (4, 6))(images(4, 6)), oracle(images(4, 6)))


@pytest.mark.parametrize("size", [8, (5, 4)])
def test_the_contract_the_spec_and_a_mix_of_two_resolutions(size):
    torch.manual_seed(0)
    height, width = (size, size) if isinstance(size, int) else size
    task = {"num_classes": 3, "mean": (0.5,) * 3, "std": (0.2,) * 3, "widths": (4,), "strides": (1,)}
    large = resized(small_cnn(input_shape=(3, height, width), **task), size)
    mix = mixed(large, small_cnn(input_shape=(3, 6, 4), **task), 0.6).eval()
    for model in (large, mix):
        check_classifier(model, (3, 6, 4))
        assert traits(model).declared
        assert traits(model).gradient == "exact"
    again = registry.build(mix.spec, "defence").eval()
    again.load_state_dict(mix.state_dict())
    few = images(6, 4).float()
    assert torch.equal(again(few), mix(few))
    assert large.spec["size"] == [height, width]
    assert predictor_name(again) == predictor_name(mix)


@pytest.mark.parametrize("size", [(6, 6), (2, 2)])
def test_lipschitz_certificates_refuse_it_by_name(size):
    oracle = LinearOracle.random((1, *size), 2)
    batch = LinearOracle.random((1, 4, 4), 2).batch(3)
    model = ResizedClassifier(oracle.layers, size).eval()
    model(batch.images)
    for bound in (layer_bounds, model_bound, pairwise_bounds):
        with pytest.raises(HauberkError, match="ResizedClassifier"):
            bound(model, (1, 4, 4))
        with pytest.raises(HauberkError, match="ResizedClassifier"):
            bound(nn.Sequential(model).eval(), (1, 4, 4))
    with pytest.raises(HauberkError, match="ResizedClassifier"):
        LipschitzCertificate()(model, batch)
    model.spec = {"name": "resized"}
    mix = mixed(model, model, 0.9).eval()
    with pytest.raises(HauberkError, match="ResizedClassifier"):
        MixedCertificate(LipschitzCertificate())(mix, batch)


def test_enlarging_stretches_distances_so_that_the_base_s_radius_is_not_the_whole_s():
    """Why the refusal matters: an L2 distance grows by about the scale."""
    apart = images(4, 4) - 0.5
    larger = ResizedClassifier(Look(), (16, 16))(torch.ones_like(apart))
    assert math.isclose(float(larger[0].norm()), 4.0 * math.sqrt(48), rel_tol=1e-6)


@pytest.mark.parametrize("size", [0, (4, 0), (-1, 4)])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(HauberkError, match="at least 1"):
        resized(LinearOracle.random((1, 4, 4), 2), size)
