"""The curve of robust accuracy against the amount of generated data, from one generator and seed to the next.

    python reproductions/generated_data.py digits            # minutes on one core
    python reproductions/generated_data.py lip_digits        # the same of a certified net
    python reproductions/generated_data.py cifar10           # its diffusion model wants an accelerator
    python reproductions/generated_data.py cifar10_5000      # CIFAR-10 with 5,000 real images, on a CPU
    python reproductions/predictor_table.py results/generated_data/digits
    python reproductions/generated_data.py compare digits    # what generated images change, image by image

Every training takes as many optimiser steps as the one without generated images, half of every batch is generated, and
a source counts only if the classifier that has learnt from real images agrees with 80 % of its labels.  The source
``unseen`` is what no generator can be better than: other images of the same camera, which the training does not have.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import hauberk
from hauberk import recipes, registry
from hauberk.data.files import data_root
from hauberk.errors import HauberkError
from hauberk.recipes import Recipe
from hauberk.report.bundle import write_bundle
from hauberk.runs import Run
from hauberk.statistics import mean_interval
from hauberk.verbs.generate import Sampler, generate
from hauberk.verbs.train import train
from predictor_table import predictors, row_of

SHARE = 0.5
REAL = 5000
RUNS = Path("runs")


@dataclass(frozen=True)
class Curve:
    """What is trained on one data set.

    Args:
        data: spec of the data set.
        recipe: with generated images in half of every batch; its epochs are those of a training with them.
        judge: recipe of the classifier that is asked about labels.
        ddpm: recipe of the diffusion model.
        sources: what is drawn, each with its amounts.
        settings: of the recipe.
        seeds: of the training.
    """

    data: dict[str, Any]
    recipe: str
    judge: str
    ddpm: str
    sources: tuple[tuple[str, int], ...]
    settings: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)


CURVES = {
    "digits": Curve({"name": "digits"}, "generated_digits", "demo_standard", "ddpm_digits",
                    (("none", 0), ("ddpm", 1000), ("ddpm", 10_000), ("gaussian", 10_000))),
    "lip_digits": Curve({"name": "digits"}, "generated_lip_digits", "demo_standard", "ddpm_digits",
                        (("gaussian", 10_000), ("ddpm", 10_000), ("none", 0))),
    "cifar10": Curve({"name": "cifar10"}, "generated_cifar10_small", "standard_cifar10_small", "ddpm_cifar10_small",
                     (("none", 0), ("ddpm", 10_000), ("ddpm", 50_000), ("gaussian", 50_000))),
    "cifar10_5000": Curve(
        {"name": "npz", "file": "cifar10_5000.npz", "layout": "NCHW"}, "generated_cifar10_small",
        "standard_cifar10_small", "", (("none", 0), ("unseen", 40_000), ("unseen", 5_000), ("gaussian", 40_000)),
        settings=(
            "model.widths=[32, 64, 128]", "model.strides=[2, 2, 2]", "training.epochs=30", "training.precision=float32",
            "training.ema=0.99", "evaluation.diagnoses=[]",
            'evaluation.attacks=[{name: autoattack, threat: "linf:8/255", version: fast}]',
        ),
        seeds=(0,),
    ),
}  # fmt: skip


def described(source: str, amount: int, curve: Curve) -> dict[str, Any]:
    """The description of a source."""
    common = {"of": curve.data, "images": amount, "judge": {"name": "run", "path": str(RUNS / curve.judge)}}
    if source == "gaussian":
        return {"name": "gaussian_generator", **common}
    if source == "unseen":
        told = {"generator": "photographs", "conditional": True, "trained_on": "other", "layout": "NCHW"}
        return {"name": "generated", "file": "cifar10_unseen.npz", **told, **common}
    return {"name": "generated", "file": f"{curve.ddpm}.npz", **common}


def recipe_of(source: str, amount: int, seed: int, curve: Curve) -> Recipe:
    """The recipe of one point: without generated images as many epochs more as give the same number of steps."""
    plain = recipes.read(curve.recipe, curve.settings).plain() | {"data": curve.data}
    training = dict(plain["training"])
    if source == "none":
        training["epochs"] = round(training["epochs"] / (1.0 - SHARE))
        extra: list[dict[str, Any]] = []
    else:
        extra = [{"data": described(source, amount, curve), "share": SHARE}]
    name = f"{source}_{amount}-seed{seed}"
    return recipes.parse(plain | {"name": name, "seed": seed, "extra": extra, "training": training | {"threads": 1}})


def prepared(curve: Curve) -> None:
    """The judge, and the files of images, where they are not there yet."""
    if curve.data["name"] == "npz" and not (data_root(None) / curve.data["file"]).exists():
        split_cifar10()
    judge = train(recipes.read(curve.judge, ("training.threads=1",)), RUNS / curve.judge).load_model()
    most = max((amount for source, amount in curve.sources if source == "ddpm"), default=0)
    path = data_root(None) / f"{curve.ddpm}.npz"
    if most and not path.exists():
        run = train(recipes.read(curve.ddpm), RUNS / curve.ddpm)
        path.parent.mkdir(parents=True, exist_ok=True)
        print(*generate(run, path, most, Sampler(), judge).sentences(str(path)), sep="\n")


def split_cifar10() -> None:
    """A part of CIFAR-10's training images as a data set of its own, and the others as what a generator would make."""
    whole = registry.build({"name": "cifar10"}, "dataset")
    train, val, test = ((s.images.numpy(), s.labels.numpy()) for s in (whole.train, whole.val, whole.test))
    order = np.random.default_rng(0).permutation(len(train[0]))
    (x, y), (more, rest) = ((train[0][rows], train[1][rows]) for rows in (order[:REAL], order[REAL:]))
    root = data_root(None)
    np.savez(root / "cifar10_5000.npz", x_train=x, y_train=y, x_val=val[0], y_val=val[1], x_test=test[0],
             y_test=test[1], classes=np.array(whole.classes))  # fmt: skip
    np.savez(root / "cifar10_unseen.npz", image=more, label=rest)


def measured(name: str, curve: Curve) -> None:
    """Train, attack, certify and bundle every point, seed by seed."""
    for seed in curve.seeds:
        for source, amount in curve.sources:
            recipe = recipe_of(source, amount, seed, curve)
            out = Path("results") / "generated_data" / name / recipe.name
            if out.exists():
                continue
            try:
                run = train(recipe, RUNS / "generated_data" / name / recipe.name)
            except HauberkError as error:  # a judge that does not agree
                print(f"{recipe.name}: {error}")
                continue
            judged(run, recipe)
            write_bundle(Run.open(run.path), out)
            print(recipe.name, run.info["timings"], flush=True)


def judged(run: Run, recipe: Recipe) -> None:
    """Attack and certify as the recipe says."""
    plan = recipe.evaluation
    attacks = [registry.build(spec, "attack") for spec in plan.attacks]
    certificates = [registry.build(spec, "certificate") for spec in plan.certificates]
    hauberk.attack(hauberk.subject(run.path), attacks, plan)
    if certificates:
        hauberk.certify(hauberk.subject(run.path), certificates, plan)


def compared(folder: Path) -> dict[str, Any]:
    """Accuracy under attack against that without generated images, in points: the mean over seeds, image by image."""
    rows: dict[str, dict[str, NDArray[np.float64]]] = {}
    agreement: dict[str, float] = {}
    for path in sorted(folder.glob("*-seed*")):
        source, _, seed = path.name.rpartition("-seed")
        (parts,) = predictors(path).values()
        row = row_of(parts)[1]
        rows.setdefault(source, {})[seed] = row[next(name for name in row if name.startswith("l"))]
        for told in Run.open(path).info.get("generated", []):
            agreement[source] = round(100.0 * told["agreement"], 1)
    found: dict[str, Any] = {}
    for source in sorted(set(rows) - {"none_0"}):
        apart = np.stack([rows[source][seed] - rows["none_0"][seed] for seed in sorted(rows[source])])
        all_seeds = mean_interval(apart.mean(0))
        found[source] = {
            "agreement": agreement[source],
            "difference": [round(100.0 * v, 1) for v in (all_seeds.value, all_seeds.low, all_seeds.high)],
            "seeds": [round(100.0 * float(v), 1) for v in apart.mean(1)],
        }
    return found


if __name__ == "__main__":
    if sys.argv[1] == "compare":
        place = Path("results") / "generated_data" / sys.argv[2]
        (place / "differences.json").write_text(json.dumps(compared(place), indent=1) + "\n")
        raise SystemExit
    torch.set_num_threads(1)
    chosen = CURVES[sys.argv[1]]
    prepared(chosen)
    measured(sys.argv[1], chosen)
