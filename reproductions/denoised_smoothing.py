"""Denoised smoothing (Salman et al. 2020) on digits: what a denoiser adds to a classifier that never saw noise.

    python reproductions/denoised_smoothing.py     # a few minutes on one core; writes results/denoised_smoothing.json

Three classifiers are smoothed with the same noise and certified on the same 100 test images: the standard net alone,
the same net behind a denoiser, and a net of the same shape that was trained on noise (``gaussian_augmentation``).  For
each image the file holds the certified radius, and -1 where it abstains or certifies another class than the label's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hauberk import recipes
from hauberk.batch import Batch
from hauberk.certificates import SmoothingCertificate
from hauberk.data import load
from hauberk.noises import Gaussian
from hauberk.runs import Run, environment
from hauberk.verbs.samples import evaluation_batch
from hauberk.verbs.train import train

SIGMAS, IMAGES, N0, N, ALPHA = (0.25, 0.5), 100, 100, 1000, 0.001
RADII = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)


def run_of(name: str, folder: Path, *settings: str) -> Run:
    """A recipe's run, trained where it is not yet there."""
    label = "-".join([name, *(s.rpartition("=")[2] for s in settings[:1])])
    return train(recipes.read(name, settings), folder / label)


def models(folder: Path, sigma: float) -> dict[str, torch.nn.Module]:
    """The three base classifiers by name."""
    standard = run_of("demo_standard", folder)
    same = (f"wrap.sigma={sigma}",)
    behind = run_of("denoised_digits", folder, *same, f"model.sigma={sigma}", f"model.base.path={standard.path}")
    noisy = run_of("demo_smoothed", folder, *same, f"objective.sigma={sigma}")
    return {
        "standard": standard.load_model(), "denoised": behind.load_model().get_submodule("base"),
        "gaussian_augmentation": noisy.load_model().get_submodule("base"),
    }  # fmt: skip


def judged(model: torch.nn.Module, batch: Batch, sigma: float) -> dict[str, Any]:
    """Radii, certified accuracies, average certified radius, and clean accuracy without noise."""
    found = SmoothingCertificate(Gaussian(sigma), n0=N0, n=N, alpha=ALPHA)(model, batch)
    right = (found.prediction == batch.labels).numpy()
    radii = np.where(right, found.radius.numpy(), -1.0)
    with torch.no_grad():
        clean = float((model(batch.images).argmax(1) == batch.labels).double().mean())
    return {
        "clean_without_noise": round(clean, 4), "acr": round(float(np.maximum(radii, 0.0).mean()), 4),
        "certified": {f"{r:g}": float((radii >= r).mean()) for r in RADII},
        "radii": [round(float(r), 4) for r in radii],
    }  # fmt: skip


def main() -> None:
    """Train, certify, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/denoised_smoothing"))
    parser.add_argument("--out", type=Path, default=Path("results/denoised_smoothing.json"))
    arguments = parser.parse_args()
    batch = evaluation_batch(load({"name": "digits"}), "test", IMAGES, "hashed")
    found: dict[str, Any] = {
        str(sigma): {name: judged(model, batch, sigma) for name, model in models(arguments.runs, sigma).items()}
        for sigma in SIGMAS
    }
    ids = [int(i) for i in batch.ids]
    said = {"images": IMAGES, "n0": N0, "n": N, "alpha": ALPHA, "ids": ids, "environment": environment()}
    arguments.out.write_text(json.dumps(said | {"sigma": found}) + "\n")
    for sigma, rows in found.items():
        for name, row in rows.items():
            print(sigma, name, row["clean_without_noise"], row["acr"], row["certified"])


if __name__ == "__main__":
    main()
