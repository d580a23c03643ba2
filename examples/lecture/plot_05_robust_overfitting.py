r"""
Robust overfitting, and what helps
==================================

Adversarial training has a problem that standard training has less often: after some epochs the robust accuracy on new
images falls, while that on the training images goes on to rise. The lecture calls it robust overfitting. This page
shows it on few digits, and compares what helps: early stopping, averages of the weights (SWA, EMA), adversarial weight
perturbation (AWP), and generated data, for which the lecture writes

.. math:: \mathcal{D}_{aug} = \mathcal{D}_{fake} \cup \mathcal{D}, \qquad
    \mathcal{D}_{fake} = \{(g_i(z \mid y_j), y_j) \mid g_i \in \mathcal{G},\ z \sim \mathcal{N}(0, I)\} .
"""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from hauberk import plots
from hauberk.attacks import APGD, PGD
from hauberk.data import load
from hauberk.data.gaussian_generator import gaussian_generator
from hauberk.data.source import Part
from hauberk.objectives.pgd_adversarial import PGDAdversarial
from hauberk.runs import Run
from hauberk.threats import Linf
from hauberk.training.config import Training
from hauberk.training.loop import fit

torch.set_num_threads(1)

# %%
# Few digits, some with a wrong label
# -----------------------------------
#
# The training set has 200 digits. Three in ten have a wrong label, which makes the effect visible on so few images.
# Validation and test images keep their labels.

data = load("digits")
train_split = data.train.select(slice(0, 200))
labels = train_split.labels.clone()
wrong = torch.randperm(200, generator=torch.Generator().manual_seed(0))[:60]
labels[wrong] = (labels[wrong] + 1 + wrong % 9) % 10
data = replace(data, train=replace(train_split, labels=labels))
test_set = data.test.batch()

# %%
# Accuracy after each epoch
# -------------------------
#
# ``fit`` is Hauberk's training loop. With ``gap_images`` it measures the robust accuracy of training images beside that
# of the validation images. It returns the weights with the best robust accuracy on the validation images, and never
# reads the test images.

attack = PGD(Linf(0.1), steps=5)
config = Training(
    epochs=80,
    batch_size=40,
    optimizer="adamw",
    lr=0.005,
    schedule="constant",
    weight_decay=0.0,
    threads=1,
    validate_every=4,
    validation_attack=attack,
    gap_images=200,
)
unwatched = replace(config, validate_every=0, gap_images=0)


def train(settings: Training, *extra: Part) -> tuple[nn.Module, list[dict[str, float]]]:
    """Adversarial training from the same starting weights: the model, and a row of numbers for each epoch."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )
    with TemporaryDirectory() as folder:
        run = Run(Path(folder))
        return fit(model, PGDAdversarial(attack), data, settings, run, extra=extra), run.metrics()


best, epochs = train(config)
names = {"training_robust_accuracy": "training images", "validation_robust_accuracy": "validation images"}
rows = [
    {"epoch": row["epoch"], "robust accuracy": row[key], "of": name}
    for row in epochs
    for key, name in names.items()
    if key in row
]
plots.figure(plots.curves(rows, "epoch", "robust accuracy", "of", percent=True))

# %%
# The validation curve has its highest point early and falls from there, while the training curve rises to the end.

held_out = [row["validation_robust_accuracy"] for row in epochs if "validation_robust_accuracy" in row]
seen = [row["training_robust_accuracy"] for row in epochs if "training_robust_accuracy" in row]
assert max(held_out) > held_out[-1] + 0.1
assert seen[-1] > seen[held_out.index(max(held_out))] + 0.1

# %%
# What helps
# ----------
#
# * **Early stopping** keeps the weights of the epoch with the best robust accuracy on the validation images.
# * **EMA** is a moving average of the weights over the steps, and **SWA** the mean of the weights after late epochs.
# * **AWP** takes each step at the worst weights nearby, :math:`\theta + v` with :math:`\|v_l\| = \gamma \|\theta_l\|`
#   for each layer.
# * **Generated data**: seven in ten images of each batch are drawn from a Gaussian of each class. The Gaussians were
#   fitted to the same 200 digits. The number of optimiser steps is the same.

fake = gaussian_generator(data, 2000)
generated = Part("gaussian", fake.train, 0.7, fake.provenance)
models = {
    "last epoch": train(unwatched)[0],
    "early stopping": best,
    "EMA": train(replace(unwatched, ema=0.99))[0],
    "SWA": train(replace(unwatched, swa=0.2))[0],
    "AWP": train(replace(unwatched, awp=0.04))[0],
    "generated data": train(replace(unwatched, steps_per_epoch=5), generated)[0],
}

rows = []
robust = {}
for name, model in models.items():
    result = APGD(Linf(0.1), steps=20)(model, test_set)
    clean = float((result.clean_prediction == test_set.labels).float().mean())
    robust[name] = float((~result.success).float().mean())
    rows += [{"model": name, "share": clean, "of": "clean accuracy"}]
    rows += [{"model": name, "share": robust[name], "of": "after APGD"}]
    print(f"{name:16} clean {clean:.3f}   after APGD {robust[name]:.3f}")

plots.figure(plots.bars(rows, "model", "share", "of", percent=True))

# %%
# Each of them has more robust accuracy on the test images than the last epoch of plain adversarial training. The order
# among them belongs to this small example.

assert all(value > robust["last epoch"] for name, value in robust.items() if name != "last epoch")

# %%
# Where the lecture is imprecise
# ------------------------------
#
# Erratum. The lecture says that generated data replaces adversarial training samples. Its own formula is a union, and
# the papers mix the two in each batch: 30 % real and 70 % generated images, all of them attacked. Its
# :math:`z \sim \mathcal{N}(0, 1)` is a vector, :math:`z \sim \mathcal{N}(0, I)`.
#
# The lecture explains robust overfitting by the noise of the attack, which the network gets used to. This is a
# hypothesis. What can be measured is the gap between the two curves, which ``fit`` writes as ``robust_gap``. The best
# epochs in the tables of Rice et al. are chosen on the test images. Hauberk chooses on held-out images.
#
# Sources: Rice et al. 2020, *Overfitting in adversarially robust deep learning*; Wu et al. 2020, *Adversarial Weight
# Perturbation Helps Robust Generalization*; Izmailov et al. 2018 (SWA); Rebuffi et al. 2021, *Fixing Data
# Augmentation to Improve Adversarial Robustness*; Gowal et al. 2021, *Improving Robustness using Generated Data* (of
# the Gaussian).
