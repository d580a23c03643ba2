"""Sample a trained diffusion model into a file of images with their provenance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hauberk.capabilities import Generates
from hauberk.data import Dataset, load
from hauberk.data.generated import write
from hauberk.data.generation import Check, replaced, traces
from hauberk.data.provenance import Provenance
from hauberk.devices import Device, place, resolved
from hauberk.errors import HauberkError
from hauberk.pulse import beat
from hauberk.randomness import PerSample
from hauberk.runs import Run

TILE = 64  # images that are sampled at once


@dataclass(frozen=True)
class Sampler:
    """How a diffusion model is sampled.

    Args:
        steps: of DDIM.
        eta: 0 is deterministic, 1 is ancestral sampling.
        seed: of the noise.
        device: where the model is.
    """

    steps: int = 50
    eta: float = 0.0
    seed: int = 0
    device: Device = "auto"


def generate(
    run: Run, out: Path, images: int, sampler: Sampler = Sampler(), judge: nn.Module | None = None
) -> Provenance:
    """Sample the diffusion model of a run by DDIM, and write images, classes and provenance to an ``.npz`` file.

    The j-th image depends only on seed and j, and with a conditional model it is of class j mod K; an unconditional
    one gives images without labels.  The file is read by the data set ``generated``, which refuses it for data whose
    validation or test images the model has learnt from.

    Args:
        run: of a diffusion model.
        out: the file to write.
        images: how many.
        sampler: how.
        judge: a classifier that has learnt from real images; its agreement with the labels is counted, and decides
            nothing here.

    Returns:
        what is known of the images, as they stand in the file.

    Raises:
        HauberkError: if the run holds no diffusion model, or a sample is a validation or test image.
    """
    model = run.load_model()
    if not isinstance(model, Generates):
        raise HauberkError(f"{run.path} holds no diffusion model", "train one: hauberk train ddpm_digits")
    if out.suffix != ".npz":
        raise HauberkError(f"expected a file ending in .npz, got {out}", f"for example -o {out.with_suffix('.npz')}")
    of = load(run.model_config["facts"]["dataset"])
    seen = [of.train, *(load(other["data"]).train for other in run.recipe.get("extra", ()))]
    place(model, sampler.device)
    labels = torch.arange(images) % of.num_classes if model.conditional else None
    pixels = sampled(model, images, sampler)
    settings = {"predictor": run.info["predictor"], "data": of.name,
                "seed": sampler.seed, "steps": sampler.steps, "eta": sampler.eta}  # fmt: skip
    known = Provenance("ddpm", "train", conditional=model.conditional, settings=settings)
    looked = _looked_at(of, pixels, labels, known, judge)
    write(out, pixels, labels, known, np.unique(np.concatenate([traces(split) for split in seen])))
    return looked


def sampled(model: Generates, images: int, sampler: Sampler) -> Tensor:
    """Images as bytes, uint8, shape (N, C, H, W); an image does not depend on the number of images."""
    where, shape = resolved(sampler.device), model.input_shape
    found = []
    for first in range(0, images, TILE):
        ids = range(first, first + TILE)  # a whole tile always, so that the last images are rounded as all others are
        labels = torch.tensor(ids, device=where) % model.num_classes if model.conditional else None
        start = PerSample(sampler.seed, ids, "ddim start").normal(*shape).to(where)
        noise = partial(_noise, sampler.seed, ids, shape, where)
        drawn = model.sample(start, labels, sampler.steps, sampler.eta, noise)
        found.append((255.0 * drawn).round().to("cpu", torch.uint8))
        beat(len(ids) * sampler.steps)
    return torch.cat(found)[:images]


def _noise(seed: int, ids: range, shape: tuple[int, ...], where: torch.device, step: int) -> Tensor:
    return PerSample(seed, ids, f"ddim {step}").normal(*shape).to(where)


def _looked_at(
    of: Dataset, pixels: Tensor, labels: Tensor | None, known: Provenance, judge: nn.Module | None
) -> Provenance:
    """What the images themselves say; without labels those of the judge stand in, if there is one."""
    if labels is None and judge is not None:
        found = replaced(of, pixels, None, known, Check(labeller=judge)).provenance
    else:
        given = torch.zeros(len(pixels), dtype=torch.int64) if labels is None else labels
        found = replaced(of, pixels, given, known, Check(judge=judge, least=0.0)).provenance
    assert found is not None  # noqa: S101 - replaced has put it there
    return found
