"""Sampling a diffusion model: in a Gaussian world every step is a straight line, so moments are known exactly."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from hauberk import registry
from hauberk.errors import HauberkError
from hauberk.models.diffusion import DiffusionModel, diffusion_unet, linear_schedule, spread
from hauberk.models.diffusion_mlp import diffusion_mlp

TABLE = linear_schedule()


class GaussianWorld(nn.Module):
    r"""The best predictor of the noise for images :math:`u \sim N(m, s^2)`, with a UNet's interface.

    :math:`E[\epsilon \mid x_t] = \sqrt{1-a}\,(x_t - \sqrt a\,m) / v_t` with :math:`v_t = a s^2 + 1 - a`.
    """

    def __init__(self, mean: float, spread: float, per_class: float = 0.0) -> None:
        super().__init__()
        self.mean, self.spread, self.per_class = mean, spread, per_class

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None, return_dict: bool = True):
        a = TABLE[timestep].to(sample)[:, None, None, None]
        told = 0.0 if class_labels is None else self.per_class * class_labels[:, None, None, None]
        noise = (1 - a).sqrt() * (sample - a.sqrt() * (self.mean + told)) / (a * self.spread**2 + 1 - a)
        return SimpleNamespace(sample=noise) if return_dict else (noise,)


def model(mean: float, sd: float, per_class: float = 0.0) -> DiffusionModel:
    return DiffusionModel(GaussianWorld(mean, sd, per_class), (1, 4, 4), 3, conditional=per_class != 0.0)


def expected(mean: float, sd: float, steps: int, eta: float = 0.0) -> tuple[float, float]:
    """Mean and standard deviation of the last point, from those of the start by the affine map of every step."""
    centre, variance = 0.0, 1.0
    for place in reversed(range(steps)):
        times = [(i + 1) * 1000 // steps - 1 for i in range(steps)]
        a = float(TABLE[times[place]])
        b = float(TABLE[times[place - 1]]) if place else 1.0
        v = a * sd**2 + 1 - a
        sigma2 = eta**2 * (1 - b) / (1 - a) * (1 - a / b)
        slope = (math.sqrt(b * a) * sd**2 + math.sqrt(max(0.0, 1 - b - sigma2)) * math.sqrt(1 - a)) / v
        centre = math.sqrt(b) * mean + slope * (centre - math.sqrt(a) * mean)
        variance = slope**2 * variance + sigma2
    return centre, math.sqrt(variance)


def drawn(world: DiffusionModel, steps: int, eta: float = 0.0, labels: Tensor | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(0)

    def noise(step: int) -> Tensor:
        return torch.randn(4000, 1, 4, 4, generator=generator)

    images = world.sample(torch.randn(4000, 1, 4, 4, generator=generator), labels, steps, eta, noise)
    assert float(images.min()) >= 0.0 and float(images.max()) <= 1.0
    return 2.0 * images.double() - 1.0


def test_the_schedule_is_that_of_the_paper():
    betas = [1e-4 + (0.02 - 1e-4) * t / 999 for t in range(1000)]
    product = math.prod(1.0 - b for b in betas)
    assert float(TABLE[0]) == pytest.approx(1.0 - 1e-4)
    assert float(TABLE[-1]) == pytest.approx(product, rel=1e-9)
    assert len(TABLE) == 1000


@pytest.mark.parametrize(("steps", "eta"), [(1, 0.0), (5, 0.0), (50, 0.0), (20, 1.0), (50, 0.5)])
def test_moments_are_those_of_the_affine_steps(steps, eta):
    centre, sd = expected(0.2, 0.15, steps, eta)
    found = drawn(model(0.2, 0.15), steps, eta)
    assert float(found.mean()) == pytest.approx(centre, abs=5 * 0.15 / 64_000**0.5 + 1e-6)
    assert float(found.std()) == pytest.approx(sd, rel=5 / (2 * 64_000) ** 0.5, abs=1e-5)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_many_steps_give_the_data_s_own_moments(eta):
    assert expected(0.2, 0.15, 1000, eta) == (pytest.approx(0.2, abs=2e-3), pytest.approx(0.15, rel=0.03))


def test_a_class_moves_the_images():
    world = model(-0.4, 0.1, 0.4)
    labels = torch.arange(4000) % 3
    found = drawn(world, 20, labels=labels)
    for k in range(3):
        assert float(found[labels == k].mean()) == pytest.approx(expected(-0.4 + 0.4 * k, 0.1, 20)[0], abs=0.01)


def test_images_outside_the_box_are_clipped():
    found = drawn(model(0.95, 0.5), 20)
    assert float(found.max()) == 1.0


class Half(nn.Module):
    """A network that finds half of its input to be noise."""

    def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = True) -> tuple[Tensor]:
        return (0.5 * sample,)


def test_every_step_clips_the_clean_image_and_keeps_the_point():
    """Two steps by hand: what is clipped off the clean image goes into its noise."""
    a, b, start = float(TABLE[999]), float(TABLE[499]), 0.05
    clean = min(1.0, (start - math.sqrt(1 - a) * 0.5 * start) / math.sqrt(a))
    noise = (start - math.sqrt(a) * clean) / math.sqrt(1 - a)
    point = math.sqrt(b) * clean + math.sqrt(1 - b) * noise
    last = (point - math.sqrt(1 - b) * 0.5 * point) / math.sqrt(b)
    assert clean == 1.0 and 0.0 < last < 1.0
    found = DiffusionModel(Half(), (1, 1, 1), 2, conditional=False).sample(torch.full((1, 1, 1, 1), start), None, 2)
    assert float(found) == pytest.approx((last + 1) / 2, abs=1e-5)


def test_an_image_depends_on_its_own_start_alone():
    world, start = model(0.1, 0.3), torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    whole = world.sample(start, None, 10)
    assert torch.allclose(world.sample(start[2:4], None, 10), whole[2:4], atol=1e-6)


def test_steps_are_spread_evenly_and_begin_with_the_last():
    assert spread(4, 1000) == [249, 499, 749, 999]
    assert spread(1000, 1000) == list(range(1000))
    assert spread(1, 1000) == [999]
    for steps in (0, 1001):
        with pytest.raises(HauberkError, match="expected 1 to 1000 steps"):
            spread(steps, 1000)


def test_it_is_no_classifier():
    with pytest.raises(HauberkError, match="no logits"):
        model(0.0, 1.0)(torch.rand(2, 1, 4, 4))


# --- the networks -----------------------------------------------------------------------------------------------

NETWORKS = [
    {"name": "diffusion_mlp", "width": 16, "depth": 1},
    pytest.param({"name": "diffusion_unet", "widths": [8, 8], "layers": 1, "groups": 4}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_builder_makes_the_same_network_from_its_spec(network, conditional):
    if network["name"] == "diffusion_unet":
        pytest.importorskip("diffusers")
    torch.manual_seed(0)
    made = registry.build(network | {"conditional": conditional}, input_shape=(1, 8, 8), num_classes=3).eval()
    for parameter in made.parameters():  # the last layer begins at zero
        nn.init.normal_(parameter, std=0.1)
    again = registry.build(registry.spec(made)).eval()
    again.load_state_dict(made.state_dict())
    noisy, steps, labels = torch.randn(3, 1, 8, 8), torch.tensor([0, 500, 999]), torch.tensor([0, 1, 2])
    assert torch.equal(made(noisy, steps, labels), again(noisy, steps, labels))
    assert registry.spec(again) == registry.spec(made)
    moved = made(noisy, steps, labels.flip(0))
    assert torch.equal(made(noisy, steps, labels), moved) is not conditional
    assert not torch.equal(made(noisy, steps.flip(0), labels), made(noisy, steps, labels))
    assert torch.allclose(made(noisy[:1], steps[:1], labels[:1]), made(noisy, steps, labels)[:1], atol=1e-5)


@pytest.mark.parametrize("settings", [{"widths": []}, {"widths": [8, 8, 8, 8, 8]}, {"widths": [10]}])
def test_sizes_that_do_not_fit_are_refused(settings):
    with pytest.raises(HauberkError, match="do not fit images"):
        diffusion_unet((1, 8, 8), 3, **settings)


def test_images_that_are_too_large_for_dense_layers_are_refused():
    with pytest.raises(HauberkError, match="too large"):
        diffusion_mlp((3, 32, 32), 10)


def test_training_starts_from_no_noise():
    found = diffusion_mlp((1, 8, 8), 3)(torch.randn(2, 1, 8, 8), torch.tensor([1, 9]), torch.tensor([0, 2]))
    assert not bool(found.any())
