"""A diffusion model's UNet as a denoiser, in one step (Carlini et al. 2023)."""

from __future__ import annotations

import importlib
import inspect
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hauberk import reading, unpacking
from hauberk.capabilities import Denoises, Traits
from hauberk.errors import HauberkError, reason
from hauberk.models.building import with_spec

WEIGHTS, CONFIG, SCHEDULE = "diffusion_pytorch_model.safetensors", "config.json", "scheduler_config.json"
# of a scheduler's settings those that its table and the meaning of the UNet's answer depend on
SCHEDULED = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
             "rescale_betas_zero_snr", "prediction_type")  # fmt: skip


class OneStepDiffusion(nn.Module, Denoises):
    r"""The clean image that a noise-predicting UNet estimates from a noisy one, in a single step.

    .. math:: D(y) = \tfrac12\big(\mathrm{clip}_{[-1,1]}(u - \rho_t\,\epsilon(\sqrt{\bar\alpha_t}\,u,\ t)) + 1\big),
              \quad u = 2y - 1, \quad \rho_t = \sqrt{(1-\bar\alpha_t)/\bar\alpha_t}

    A diffusion model works on pixels in [-1, 1], where noise of sigma has :math:`2\sigma`, and expects at step t an
    image :math:`\sqrt{\bar\alpha_t}\,x + \sqrt{1-\bar\alpha_t}\,\epsilon`, whose noise is :math:`\rho_t` times the
    image.  So t is the first step with :math:`\rho_t \ge 2\sigma`, and the noisy image that is there already is scaled.

    No noise is drawn here.  D is a fixed function of the noisy image, so that the certificate at sigma is exact; that
    the UNet expects :math:`\rho_t`, a little more noise than there is, only costs accuracy.  The authors' code instead
    draws noise of :math:`\rho_t` in the place of :math:`2\sigma`, and so certifies with a sigma that is a little too
    small.  A smoothing with ``schedule_sigma`` has no gap at all.

    Args:
        unet: called as ``unet(images, t, return_dict=False)[0]``, which returns noise (B, C, H, W); of 2C channels, a
            UNet with learned variances, the first C are taken.
        alpha_bars: :math:`\bar\alpha_t` of each step, in (0, 1], falling; shape (T,).
        sigma: standard deviation of the noise in pixel units, pixels in [0, 1].

    Raises:
        HauberkError: if the table is none, or ends before there is so much noise.

    Source: Carlini et al. 2023, Section 3.2 and Algorithm 1.
    """

    traits = Traits()

    def __init__(self, unet: nn.Module, alpha_bars: Tensor, sigma: float) -> None:
        super().__init__()
        table = falling_table(alpha_bars)
        ratios = ((1.0 - table) / table).sqrt()
        enough = ratios >= 2.0 * sigma
        if not (0.0 < sigma < math.inf and bool(enough.any())):
            raise HauberkError(
                f"expected a sigma above 0 and at most {float(ratios[-1]) / 2.0:.4g}, where the diffusion model's "
                f"noise ends, got {sigma}", "for example 0.25, in pixel units",
            )  # fmt: skip
        self.unet, self.sigma = unet, sigma
        self.step = int(enough.nonzero()[0])
        self.ratio, self.scale = float(ratios[self.step]), float(table[self.step].sqrt())

    @property
    def schedule_sigma(self) -> float:
        r""":math:`\rho_t / 2`, the sigma whose noise is exactly that of the step; at least ``sigma``."""
        return self.ratio / 2.0

    def forward(self, images: Tensor) -> Tensor:
        """Noisy images (B, C, H, W), not clipped, to denoised ones in [0, 1]."""
        centred = 2.0 * images - 1.0
        clean = centred - self.ratio * noise_in(self.unet, self.scale * centred, self.step)
        return (clean.clamp(-1.0, 1.0) + 1.0) / 2.0


def falling_table(alpha_bars: Tensor) -> Tensor:
    r"""The table of :math:`\bar\alpha_t` in float64.

    Raises:
        HauberkError: if it does not fall from at most 1 to above 0.
    """
    table = alpha_bars.double()
    falling = table.dim() == 1 and len(table) > 0 and bool((table[1:] < table[:-1]).all())
    if not (falling and bool(((table > 0.0) & (table <= 1.0)).all())):
        raise HauberkError(
            "the table of alpha-bar must fall, starting at most at 1 and staying above 0",
            "give the running products of 1 - beta, such as a scheduler's alphas_cumprod",
        )
    return table


def noise_in(unet: nn.Module, images: Tensor, step: int) -> Tensor:
    """The noise that a UNet predicts for images (B, C, H, W); of one with learned variances the first C channels."""
    noise: Tensor = unet(images, step, return_dict=False)[0]
    channels = images.shape[1]
    return noise[:, :channels] if noise.shape[1] == 2 * channels else noise


def one_step_diffusion(
    sigma: float,
    folder: str | None = None,
    unet: Mapping[str, Any] | None = None,
    scheduler: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build the one-step denoiser of a ``diffusers`` UNet, from a folder with its weights or only from its settings.

    The folder is a pipeline's or a UNet's, as ``save_pretrained`` writes it.  Its weights are read from a safetensors
    file, no code of it runs, and nothing is downloaded.  The spec holds the settings, so that a run that was made with
    it is loaded where the folder is not.

    Args:
        sigma: standard deviation of the noise in pixel units.
        folder: with ``config.json``, ``diffusion_pytorch_model.safetensors`` and ``scheduler_config.json``, the first
            two in a folder ``unet`` and the last in ``scheduler`` where it is a pipeline's.
        unet: settings of an untrained ``UNet2DModel``, in the place of a folder.
        scheduler: settings of its schedule.

    Returns:
        a denoiser of images of the UNet's channels; ``spec`` holds this call without the folder.

    Raises:
        HauberkError: if diffusers is not installed, the folder is incomplete, or the UNet does not predict noise.
    """
    network, table, told = unet_and_table(folder, unet, scheduler)
    return with_spec(OneStepDiffusion(network, table, sigma), "one_step_diffusion", sigma=sigma, **told)


def unet_and_table(
    folder: str | None, unet: Mapping[str, Any] | None, scheduler: Mapping[str, Any] | None
) -> tuple[nn.Module, Tensor, dict[str, Any]]:
    r"""A UNet that predicts noise, the table of :math:`\bar\alpha_t`, and the settings of both; see above."""
    if (folder is None) == (unet is None) or (unet is None) != (scheduler is None):
        raise HauberkError(
            "expected either a folder or the settings of a UNet and of its scheduler", "give only the folder"
        )
    weights: Mapping[str, Tensor] = {}
    if folder is not None:
        unet, scheduler, weights = _read(Path(folder))
    told = _plain({"unet": unet, "scheduler": scheduler})
    network = _made(told["unet"], told["scheduler"])
    if weights:
        network.load_state_dict(weights)
    return network, diffusers().DDPMScheduler(**told["scheduler"]).alphas_cumprod, told


def diffusers() -> Any:
    """The package ``diffusers``, an extra.

    Raises:
        HauberkError: if it is not installed.
    """
    try:
        return importlib.import_module("diffusers")
    except ImportError as error:
        raise HauberkError("a diffusion model needs diffusers", "pip install 'hauberk[diffusion]'") from error


def _made(settings: Mapping[str, Any], schedule: Mapping[str, Any]) -> nn.Module:
    """The UNet of these settings, if it predicts noise and asks for nothing beside an image and a step."""
    kind, version = diffusers().UNet2DModel, diffusers().__version__
    unknown = [key for key in settings if key not in inspect.signature(kind.__init__).parameters]
    if unknown:
        raise HauberkError(f"the UNet of diffusers {version} has no {unknown[0]!r}", "install a later diffusers")
    if settings.get("class_embed_type") or settings.get("num_class_embeds"):
        raise HauberkError("the UNet needs a class label", "use the UNet of an unconditional diffusion model")
    predicted = schedule.get("prediction_type", "epsilon")
    if predicted != "epsilon":
        raise HauberkError(
            f"the UNet predicts {predicted!r}, and not the noise", "use a UNet with prediction_type: epsilon"
        )
    network: nn.Module = kind(**settings)
    return network


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor]]:
    """The settings of a folder's UNet and of its scheduler, and the UNet's weights."""
    own = folder / "unet" if (folder / "unet").is_dir() else folder
    table = folder / "scheduler" / SCHEDULE if (folder / "scheduler").is_dir() else folder / SCHEDULE
    missing = sorted(str(path) for path in (own / CONFIG, own / WEIGHTS, table) if not path.is_file())
    if missing:
        raise HauberkError(
            f"{folder} is not the folder of a diffusion model: it lacks {missing[0]}",
            "write it with diffusers: DDPMPipeline.from_pretrained(...).save_pretrained(folder), as safetensors",
        )
    found = [reading.json_value(reading.text(path), str(path)) for path in (own / CONFIG, table)]
    for value, path in zip(found, (own / CONFIG, table), strict=True):
        reading.check_json(value, {}, path)
    kind = found[0].get("_class_name", "UNet2DModel")
    if kind != "UNet2DModel":
        raise HauberkError(f"{own} holds a {kind}", "expected a UNet2DModel, which takes only an image and a step")
    unpacking.check_safetensors(own / WEIGHTS)
    try:
        network, said = diffusers().UNet2DModel.from_pretrained(
            str(own), use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise HauberkError(f"diffusers cannot load {own}: {reason(error)}", "save it again with diffusers") from error
    wrong = [name for names in said.values() for name in names]
    if wrong:
        raise HauberkError(
            f"the weights in {own} do not fit its {CONFIG}: {wrong[0]}", f"use the weights and the {CONFIG} of one UNet"
        )
    settings = {key: value for key, value in dict(network.config).items() if not key.startswith("_")}
    schedule = {key: found[1][key] for key in SCHEDULED if key in found[1]}
    return settings, schedule, network.state_dict()


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(settings))
    return found
