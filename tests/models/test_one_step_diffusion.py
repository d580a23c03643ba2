"""A diffusion UNet as a denoiser: the step by hand, a Gaussian world where it is a Wiener filter, what is refused."""

import json
import math
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from hauberk import registry
from hauberk.certificates import SmoothingCertificate
from hauberk.classifier import predictor_name
from hauberk.conformance import LinearOracle, check_classifier
from hauberk.defences.denoised import denoised
from hauberk.errors import HauberkError
from hauberk.models import small_cnn
from hauberk.models.one_step_diffusion import OneStepDiffusion, one_step_diffusion
from hauberk.noises import Gaussian
from hauberk.runs import Run

SIGMA = 0.25
BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
TABLE = (1.0 - BETAS).cumprod(0)  # the schedule of Ho et al. 2020


class Oracle(nn.Module):
    r"""Predicts the noise as well as can be for images :math:`x \sim N(m, s^2)` in [-1, 1], with a UNet's interface.

    At step t, :math:`E[\epsilon \mid x_t] = \sqrt{1-a}\,(x_t - \sqrt a\,m) / (a s^2 + 1 - a)` with alpha-bar a.
    """

    def __init__(self, mean: float, spread: float, table: Tensor = TABLE, learned: bool = False) -> None:
        super().__init__()
        self.mean, self.spread, self.table, self.learned, self.asked = mean, spread, table, learned, []

    def forward(self, sample: Tensor, timestep: int, class_labels: None = None, return_dict: bool = True):
        a = float(self.table[timestep])
        self.asked.append((timestep, sample))
        noise = math.sqrt(1 - a) * (sample - math.sqrt(a) * self.mean) / (a * self.spread**2 + 1 - a)
        found = torch.cat([noise, torch.full_like(noise, torch.nan)], 1) if self.learned else noise
        return SimpleNamespace(sample=found) if return_dict else (found,)


def wiener(noisy: Tensor, mean: float, spread: float, noise: float) -> Tensor:
    """The posterior mean of :math:`x \\sim N(m, s^2)` under noise, in pixels of [0, 1]."""
    centre, variance = (mean + 1) / 2, (spread / 2) ** 2
    return centre + variance / (variance + noise**2) * (noisy - centre)


NOISY = 0.5 + 0.3 * torch.randn(3, 2, 5, 4, generator=torch.Generator().manual_seed(0))


# --- the step and the scale ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.001, 0.12, 0.25, 0.5, 1.0, 5.0])
def test_the_step_is_the_first_whose_noise_is_twice_sigma(sigma):
    found = OneStepDiffusion(Oracle(0.0, 1.0), TABLE, sigma)
    a, step = 1.0, -1
    while math.sqrt(1 - a) / math.sqrt(a) < 2 * sigma:
        step += 1
        a *= 1.0 - float(BETAS[step])
    assert found.step == step
    assert found.schedule_sigma == pytest.approx(math.sqrt(1 / a - 1) / 2)
    assert found.schedule_sigma >= sigma
    if sigma > 0.1:
        assert found.schedule_sigma < 1.02 * sigma


@pytest.mark.parametrize("learned", [False, True])
def test_the_unet_sees_the_scaled_noisy_image_and_in_a_gaussian_world_it_is_wiener_s_filter(learned):
    unet = Oracle(0.1, 0.3, learned=learned)
    found = OneStepDiffusion(unet, TABLE, SIGMA).eval()
    clean = found(NOISY)
    ((step, sample),) = unet.asked
    assert (step, float(TABLE[step])) == (found.step, pytest.approx(found.scale**2))
    assert torch.allclose(sample, math.sqrt(float(TABLE[step])) * (2 * NOISY - 1), atol=1e-6)
    assert torch.allclose(clean, wiener(NOISY, 0.1, 0.3, found.schedule_sigma).clamp(0, 1), atol=1e-5)
    assert torch.equal(clean, found(NOISY))  # nothing is drawn


def test_at_the_noise_of_a_step_there_is_no_gap():
    sigma = OneStepDiffusion(Oracle(0.0, 0.4), TABLE, SIGMA).schedule_sigma
    exact = OneStepDiffusion(Oracle(0.0, 0.4), TABLE, sigma)
    assert exact.schedule_sigma == sigma
    assert torch.allclose(exact(NOISY), wiener(NOISY, 0.0, 0.4, sigma).clamp(0, 1), atol=1e-5)


def test_the_result_is_clipped_to_pixels():
    found = OneStepDiffusion(Oracle(0.0, 100.0), TABLE, SIGMA)(torch.tensor([[[[-3.0, 0.5, 4.0]]]]))
    assert torch.allclose(found, torch.tensor([[[[0.0, 0.5, 1.0]]]]), atol=1e-3)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf, 80.0])
def test_noise_beyond_the_schedule_is_refused(sigma):
    with pytest.raises(HauberkError, match="at most 78"):
        OneStepDiffusion(Oracle(0.0, 1.0), TABLE, sigma)


@pytest.mark.parametrize("table", [TABLE.flip(0), 1.1 * TABLE, TABLE - 0.5, TABLE[:0], TABLE[None], TABLE * math.nan])
def test_what_is_no_table_of_alpha_bar_is_refused(table):
    with pytest.raises(HauberkError, match="the table of alpha-bar"):
        OneStepDiffusion(Oracle(0.0, 1.0), table, SIGMA)


def test_behind_it_a_linear_classifier_is_certified_below_its_true_radius():
    """With a wide clip-free world the filter is a scaling around the mean, which moves no boundary through it."""
    oracle = LinearOracle.random((1, 4, 4))
    denoiser = OneStepDiffusion(Oracle(0.0, 0.3), TABLE, SIGMA)
    denoiser.spec = {"name": "own", "source": "worlds:build"}
    oracle.spec = {"name": "own", "source": "worlds:linear"}
    model = denoised(oracle, denoiser).eval()
    assert model.sigma == SIGMA
    with torch.no_grad():
        oracle.layers[1].bias.copy_(-0.5 * oracle.layers[1].weight.sum(1))  # the boundary goes through the mean
    batch = oracle.at_distance(0.3, "l2", rows=4)
    found = SmoothingCertificate(Gaussian(SIGMA), n0=20, n=1000, alpha=1e-3)(model, batch)
    assert bool((found.radius <= 0.3).all())
    assert bool((found.radius > 0.2).all())


# --- diffusers itself -------------------------------------------------------------------------------------------


TINY = {
    "sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": [8, 8], "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "norm_num_groups": 4, "attention_head_dim": 4,
}  # fmt: skip
SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


def test_without_diffusers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(HauberkError, match="needs diffusers") as caught:
        one_step_diffusion(SIGMA, unet=TINY, scheduler=SCHEDULE)
    assert "hauberk[diffusion]" in caught.value.hint


@pytest.mark.parametrize("given", [{}, {"folder": "x", "unet": TINY}, {"unet": TINY}, {"scheduler": SCHEDULE}])
def test_a_folder_or_settings_and_not_half_of_each(given):
    with pytest.raises(HauberkError, match="either a folder or the settings"):
        one_step_diffusion(SIGMA, **given)


@pytest.fixture
def folder(tmp_path):
    """A tiny UNet with random weights, as ``save_pretrained`` writes it."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    diffusers.UNet2DModel(**TINY).save_pretrained(tmp_path / "ddpm")
    diffusers.DDPMScheduler(**SCHEDULE).save_pretrained(tmp_path / "ddpm")
    return tmp_path / "ddpm"


def cnn() -> nn.Module:
    return small_cnn((1, 8, 8), 3, (0.5,), (0.2,), widths=(4,), strides=(1,)).eval()


def test_a_folder_is_read_and_a_run_of_it_needs_no_folder(folder, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    denoiser = registry.build({"name": "one_step_diffusion", "folder": str(folder), "sigma": SIGMA})
    model = denoised(cnn(), denoiser).eval()
    table = diffusers.DDPMScheduler.from_pretrained(folder).alphas_cumprod
    torch.testing.assert_close(table.double(), TABLE, rtol=1e-5, atol=1e-7)
    unet = diffusers.UNet2DModel.from_pretrained(folder, low_cpu_mem_usage=False).eval()
    noisy = NOISY[:, :1].repeat(1, 1, 2, 2)[:, :, :8, :8]
    found = model.denoiser(noisy)
    a = float(table[model.denoiser.step])
    noise = unet(a**0.5 * (2 * noisy - 1), model.denoiser.step).sample
    assert torch.allclose(found, ((2 * noisy - 1 - (1 / a - 1) ** 0.5 * noise).clamp(-1, 1) + 1) / 2, atol=1e-5)
    check_classifier(model, (1, 8, 8))
    run = Run.create(tmp_path / "run", {"name": "x", "data": {"name": "digits"}})
    run.save_model(model, {})
    for path in folder.iterdir():
        path.unlink()
    again = run.load_model()
    assert torch.equal(again(noisy), model(noisy))
    assert predictor_name(again) == predictor_name(model)
    assert str(folder) not in json.dumps(registry.spec(again))


def edited(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "scheduler_config.json").unlink(), "there is no .*scheduler_config.json"),
        (lambda f: (f / "diffusion_pytorch_model.safetensors").unlink(), "there is no .*safetensors"),
        (lambda f: (f / "diffusion_pytorch_model.safetensors").write_bytes(b"\xff" * 99), "truncated"),
        (lambda f: edited(f / "scheduler_config.json", prediction_type="v_prediction"), "predicts 'v_prediction'"),
        (lambda f: edited(f / "config.json", _class_name="UNet2DConditionModel"), "holds a UNet2DConditionModel"),
        (lambda f: edited(f / "config.json", layers_per_block=2), "do not fit its config.json"),
        (lambda f: edited(f / "config.json", block_out_channels=[8, 12]), "cannot load"),
        (lambda f: (f / "config.json").write_text("[]"), "expected keys with values"),
    ],
)
def test_a_folder_that_is_none_is_refused(folder, spoil, said):
    spoil(folder)
    with pytest.raises(HauberkError, match=said):
        one_step_diffusion(SIGMA, str(folder))


def test_settings_that_this_version_does_not_know_and_classes_are_refused():
    pytest.importorskip("diffusers")
    with pytest.raises(HauberkError, match="has no 'twists'"):
        one_step_diffusion(SIGMA, unet=TINY | {"twists": 3}, scheduler=SCHEDULE)
    with pytest.raises(HauberkError, match="needs a class label"):
        one_step_diffusion(SIGMA, unet=TINY | {"num_class_embeds": 3}, scheduler=SCHEDULE)


def test_a_pipeline_s_folders_are_found(folder):
    (folder / "unet").mkdir()
    (folder / "scheduler").mkdir()
    for name, place in (("config.json", "unet"), ("diffusion_pytorch_model.safetensors", "unet"),
                        ("scheduler_config.json", "scheduler")):  # fmt: skip
        (folder / name).rename(folder / place / name)
    assert one_step_diffusion(SIGMA, str(folder)).step == OneStepDiffusion(nn.Identity(), TABLE, SIGMA).step
