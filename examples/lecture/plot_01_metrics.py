r"""
How robustness is measured: equations 1 to 6
============================================

An attack :math:`\mathcal{A}` turns a sample :math:`(x, y)` into an adversarial sample :math:`x'` of the network
:math:`f_\theta`. The lecture defines six numbers. Three depend on an attack, and three do not:

======================================  ===========================================================================
Attack success rate (1)                 :math:`\text{ASR} = \mathbb{E}\,[\mathbb{1}\{f_\theta(x') \neq y\}]`
Robust accuracy (2)                     :math:`\text{RA} = 1 - \text{ASR}`
Average perturbation (3)                :math:`\mathbb{E}\,[\|x - x'\| \cdot \mathbb{1}\{f_\theta(x') \neq y\}]`
Certified robust accuracy (4)           :math:`\text{CRA}_\epsilon = \mathbb{E}\,[\mathbb{1}\{f_\theta(x+z) = y,\
                                        \forall z, \|z\|_p \leq \epsilon\}]`
Certified radius (5)                    :math:`\text{CR}(x, y) = \sup\{\epsilon \geq 0 \mid f_\theta(x+z) = y,\
                                        \forall z, \|z\|_p \leq \epsilon\}`
Average certified radius (6)            :math:`\text{ACR} = \mathbb{E}\,[\text{CR}(x, y) \cdot
                                        \mathbb{1}\{f_\theta(x) = y\}]`
======================================  ===========================================================================

This page computes each of them on one batch, by hand and by ``hauberk.evaluation.metrics``. The samples are points of
the plane, so that a fine grid gives the true radius too, and every point obeys

.. math:: \text{certified radius} \le \text{true radius} \le \text{size of any successful attack} .
"""

from functools import partial

import torch
from sklearn.datasets import make_moons
from torch import Tensor, nn

from hauberk import plots
from hauberk.attacks import FMN, PGD
from hauberk.batch import Batch
from hauberk.certificates import LipschitzCertificate
from hauberk.evaluation import metrics
from hauberk.threats import L2

torch.set_num_threads(1)


def agree(name: str, by_hand: float, by_library: float) -> None:
    """Print a number that both ways give, and stop the page if they differ."""
    print(f"{name:44} by hand {by_hand:.6f}   library {by_library:.6f}")
    assert abs(by_hand - by_library) < 1e-6


# %%
# One batch and one network
# -------------------------
#
# Each of the 80 samples is an image of two pixels in [0, 1]. The network has one hidden layer. Weight decay keeps its
# Lipschitz constant small, so that the certificate below says something.

where, side = make_moons(80, noise=0.25, random_state=0)
points = torch.from_numpy(where).float() * 0.2 + torch.tensor([0.4, 0.45])
labels = torch.from_numpy(side).long()
batch = Batch(points.clamp(0, 1).reshape(-1, 1, 1, 2), labels, torch.arange(80))

torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.5)
for _ in range(600):
    optimizer.zero_grad()
    torch.autograd.backward(nn.functional.cross_entropy(model(batch.images), labels))
    optimizer.step()
model.eval()


def classify(net: nn.Module, plane: Tensor) -> Tensor:
    """The class of each point of the plane."""
    with torch.no_grad():
        found: Tensor = net(plane.reshape(-1, 1, 1, 2)).argmax(1)
    return found


box = (0.0, 1.0, 0.0, 1.0)
correct = classify(model, batch.images) == labels
print(f"{int(correct.sum())} of {len(labels)} samples are classified right")
plots.figure(plots.regions(partial(classify, model), box, points, labels, title="the network and its batch"))

# %%
# Equations 1 to 3 depend on the attack
# -------------------------------------
#
# PGD searches the Euclidean ball of radius 0.06. An image that is wrong without any attack stays as it is.

EPS = 0.06
attacked = PGD(L2(EPS), steps=20)(model, batch)
survived = classify(model, attacked.adversarial) == labels
distance = (attacked.adversarial - batch.images).flatten(1).double().norm(dim=1)

c, s, d = correct.numpy(), survived.numpy(), distance.numpy()
asr = float((~survived).double().mean())
agree("(1) ASR as printed", asr, metrics.attack_success_rate_lecture(s).value)
agree("(2) RA", 1.0 - asr, metrics.robust_accuracy(c, s).value)
printed = float((distance * ~survived).mean())
agree("(3) average perturbation as printed", printed, metrics.mean_perturbation_lecture(s, d).value)

# %%
# Erratum. Equation 1 counts samples that are wrong without any attack as successes of the attack: an attack that does
# nothing has a success rate above zero. The usual rate divides by the samples that were right,
# :math:`\sum_i c_i (1 - s_i) / \sum_i c_i`. Hauberk calls it ``attack_success_rate``, and calls one
# minus equation 2 ``robust_error``. With the usual rate, RA = clean accuracy (1 - ASR).

success = int((correct & ~survived).sum()) / int(correct.sum())
agree("usual ASR, of the samples that were right", success, metrics.attack_success_rate(c, s).value)
agree("clean accuracy (1 - usual ASR) = RA", float(correct.double().mean()) * (1.0 - success), 1.0 - asr)
nothing = metrics.attack_success_rate_lecture(c).value
print(
    f"an attack that does nothing: printed ASR {nothing:.3f}, usual ASR {metrics.attack_success_rate(c, c).value:.3f}"
)
assert nothing > 0.0

# %%
# Erratum. Equation 3 divides by all samples, so a better defence can have a smaller average perturbation. In this
# example the attack breaks all four samples of the first network at distance 0.1, and one of the second at distance
# 0.3. ``mean_perturbation`` divides by the number of successes. Use it with attacks that look for the nearest error: an
# attack with a budget ends near its budget, and its distance says nothing. The norm belongs to the number, too.

right = [True] * 4
poor, strong = ([False] * 4, [0.1] * 4), ([False, True, True, True], [0.3, 0.0, 0.0, 0.0])
for name, (left, lengths) in {"weak": poor, "strong": strong}.items():
    as_printed = metrics.mean_perturbation_lecture(left, lengths).value
    conditional = metrics.mean_perturbation(right, left, lengths).value
    print(f"{name:6} defence: as printed {as_printed:.3f}, over the successes {conditional:.3f}")
assert metrics.mean_perturbation_lecture(*strong).value < metrics.mean_perturbation_lecture(*poor).value
assert metrics.mean_perturbation(right, *strong).value > metrics.mean_perturbation(right, *poor).value

# %%
# Equations 4 to 6 do not depend on an attack
# -------------------------------------------
#
# A Lipschitz certificate proves a radius for each sample. It reads no labels, so a sample counts if its certified class
# is also the right one.

certificate = LipschitzCertificate(norm="l2")(model, batch)
radius = torch.where(certificate.prediction == labels, certificate.radius, 0.0)
r = certificate.radius.numpy()
agree(
    f"(4) CRA at {EPS}", float((correct & (radius >= EPS)).double().mean()), metrics.certified_accuracy(c, r, EPS).value
)
agree("(6) ACR", float(radius.mean()), metrics.average_certified_radius(c, r).value)

# %%
# Erratum. The set in equation 5 is empty where :math:`f_\theta(x) \neq y`, and then it has no supremum. The radius of
# such a sample is 0, and with this convention the indicator of equation 6 changes nothing. For most networks nobody can
# compute the supremum. A certificate gives a lower bound of it, and Hauberk's ``certified_radius`` means this bound.
# ACR is a mean over all samples: a mean over the right ones would grow when a network gives up difficult samples.

# %%
# Certified, true, attacked
# -------------------------
#
# In the plane the supremum of equation 5 can be found: it is the distance to the nearest point of another class. A grid
# of 700 x 700 points gives it to about 0.001, the distance between two of its points. Two attacks give upper bounds:
# PGD with 12 large steps, and FMN, which searches for the nearest error.

STEPS = 700
cells = plots.grid(box, STEPS)
classes = classify(model, cells)
true = torch.zeros(len(labels), dtype=torch.float64)
for label in (0, 1):
    mine = (labels == label) & correct
    true[mine] = torch.cdist(points[mine].double(), cells[classes != label].double()).amin(1)
nearest = FMN(L2(1.0), steps=60)(model, batch).nearest
coarse = PGD(L2(0.3), steps=12, random_start=False)(model, batch).nearest

slack = 0.75 / STEPS  # half a diagonal of a cell, and a little more
assert bool((radius <= true).all())
assert bool((true <= nearest + slack).all() and (true <= coarse + slack).all())
for row in range(4):
    print(f"sample {row}: certified {radius[row]:.3f} <= true {true[row]:.3f} <= attacked {coarse[row]:.3f}")

# %%
# The same order holds for the curves: certified accuracy is a lower bound of the true robust accuracy, and the accuracy
# that is left after an attack is an upper bound. FMN finds the true curve, to the width of its line. PGD with large
# steps leaves an upper bound that is too high.

budgets = [0.0025 * step for step in range(81)]
sources = {"PGD, 12 steps": coarse, "FMN, 60 steps": nearest, "true, by the grid": true, "certified": radius}
assert float((nearest - true).abs().mean()) < 0.002
assert float((coarse - true).clamp_max(1.0).mean()) > 0.02
rows = [
    {"epsilon": budget, "robust accuracy": float((correct & (length > budget)).double().mean()), "of": name}
    for name, length in sources.items()
    for budget in budgets
]
plots.figure(plots.curves(rows, "epsilon", "robust accuracy", "of", percent=True))
