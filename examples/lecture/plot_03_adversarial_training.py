r"""
Adversarial training, and customised adversarial training
=========================================================

Adversarial training (AT) trains on attacked examples. The lecture writes it as a min-max problem:

.. math::

    \underset{\theta}{\text{minimize}} \quad
    \mathbb{E}_{(x,y) \sim \mathcal{D}} \Bigl[\max_{\delta \in \Omega} \mathcal{L}(\theta, x + \delta, y)\Bigr],
    \qquad \Omega = \{\delta : \|\delta\|_p \le \epsilon\} .

The attack solves the inner problem, and the optimiser takes a step on the outer one. The lecture's figure shows what
the choice of :math:`\epsilon` does to a decision boundary in the plane. This page trains the four networks of that
figure: standard training, AT with a small :math:`\epsilon`, AT with a large :math:`\epsilon`, and customised
adversarial training (CAT), which finds an :math:`\epsilon_i` for each sample.
"""

from functools import partial

import torch
from torch import Tensor, nn

from hauberk import plots
from hauberk.attacks import FMN, PGD
from hauberk.batch import Batch
from hauberk.evaluation.metrics import robust_accuracy_curve
from hauberk.objectives.base import Context, Objective
from hauberk.objectives.customised_adversarial import CustomisedAdversarial
from hauberk.objectives.pgd_adversarial import PGDAdversarial
from hauberk.objectives.standard import Standard
from hauberk.threats import L2

torch.set_num_threads(1)

# %%
# Two classes and two outposts
# ----------------------------
#
# Most points of the two classes are far apart. Each class also has a small group near the other class: the intrinsic
# robustness of its points is lower. Hauberk's classifiers take images of shape (B, C, H, W) with values in [0, 1], so
# a point of the plane is an image of two pixels.

generator = torch.Generator().manual_seed(0)


def uniform(count: int, left: float, right: float, bottom: float, top: float) -> Tensor:
    """Random points of a rectangle."""
    share = torch.rand(count, 2, generator=generator)
    return torch.tensor([left, bottom]) + share * torch.tensor([right - left, top - bottom])


lower = torch.cat([uniform(50, 0.02, 0.98, 0.05, 0.3), uniform(8, 0.1, 0.25, 0.5, 0.58)])
upper = torch.cat([uniform(50, 0.02, 0.98, 0.7, 0.95), uniform(8, 0.75, 0.9, 0.42, 0.5)])
points, labels = torch.cat([lower, upper]), torch.arange(2).repeat_interleave(58)
batch = Batch(points.reshape(-1, 1, 1, 2), labels, torch.arange(len(labels)))

# %%
# The four networks
# -----------------
#
# Architecture, starting weights and number of steps are the same, and only the objective differs. An objective of
# Hauberk takes a model, a batch and a context (random numbers, progress and memory), and returns the loss.
#
# CAT attacks each sample within a budget of its own. A sample that withstands its attack gains :math:`\eta`, up to
# :math:`\epsilon_{max}`. With ``falls`` a sample that is fooled loses :math:`\eta`, which is not in the paper: without
# it nearly every budget reaches :math:`\epsilon_{max}` after many visits. The label gets softer with the budget: its
# weight is :math:`1 - c\,\epsilon_i`, and the rest is drawn at random.


def train(objective: Objective, steps: int = 500) -> nn.Module:
    """Train a network of two hidden layers on all points, and return it in eval mode."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    context = Context(torch.Generator().manual_seed(0))
    for step in range(steps):
        context.progress = step / steps
        optimizer.zero_grad()
        torch.autograd.backward(objective(model, batch, context).total)
        optimizer.step()
    return model.eval()


SMALL, LARGE = 0.05, 0.2
small, large = PGD(L2(SMALL), steps=10), PGD(L2(LARGE), steps=10)
names = ["(a) standard", f"(b) AT, epsilon = {SMALL}", f"(c) AT, epsilon = {LARGE}", f"(d) CAT, epsilon_max = {LARGE}"]
standard, low, high, custom = nets = [
    train(Standard()),
    train(PGDAdversarial(small)),
    train(PGDAdversarial(large)),
    train(CustomisedAdversarial(large, eta=0.004, smoothing=4.0, falls=True)),
]

# %%
# The figure of the lecture
# -------------------------


def classify(model: nn.Module, where: Tensor) -> Tensor:
    """The class of each point of the plane."""
    with torch.no_grad():
        found: Tensor = model(where.reshape(-1, 1, 1, 2)).argmax(1)
    return found


box = (0.0, 1.0, 0.0, 1.0)
panels = [
    plots.regions(partial(classify, net), box, points, labels, title=name)
    for name, net in zip(names, nets, strict=True)
]
plots.figure(*panels)

# %%
# What the panels show
# --------------------
#
# The attack FMN looks for the nearest misclassified point of each sample, so it measures how far the boundary is. One
# run gives the robust accuracy at every budget:
# :math:`\mathrm{RA}(\epsilon) = \frac1N \sum_i c_i\,[d_i > \epsilon]`, with :math:`c_i` whether the sample is
# classified right and :math:`d_i` the distance.

budgets = [0.005 * step for step in range(81)]
rows, clean, at_large = [], [], []
for name, net in zip(names, nets, strict=True):
    result = FMN(L2(0.4), steps=50)(net, batch)
    right = (result.clean_prediction == labels).numpy()
    curve = robust_accuracy_curve(right, result.nearest.numpy(), budgets)
    rows += [{"epsilon": e, "robust accuracy": r.value, "net": name} for e, r in zip(budgets, curve, strict=True)]
    clean.append(curve[0].value)
    at_large.append(curve[budgets.index(LARGE)].value)
    print(f"{name:26} accuracy {clean[-1]:.3f}   robust accuracy at {LARGE}: {at_large[-1]:.3f}")

plots.figure(plots.curves(rows, "epsilon", "robust accuracy", "net", percent=True))

# %%
# * Panel (b): a low fixed :math:`\epsilon` asks for a small distance only. The boundary is close to that of standard
#   training, and it passes near many examples.
# * Panel (c): with a high fixed :math:`\epsilon` the balls around the outposts overlap the balls around the other
#   class. The network gives the outposts up, and loses accuracy.
# * Panel (d): CAT classifies every point of this set right, and more points than in (b) are farther than
#   :math:`\epsilon_{max}` from the boundary. Its price is a small distance at the outposts.

assert clean[0] == clean[1] == clean[3] == 1.0
assert clean[2] < 1.0
assert at_large[3] > at_large[1]

# %%
# Where the lecture is imprecise
# ------------------------------
#
# Erratum. The lecture defines the budget of a sample as the least :math:`\epsilon` for which
# :math:`\max_{x' \in \mathcal{B}(x_i, \epsilon)} f_\theta(x') \neq y_i`. A class has no maximum, and what is meant is
#
# .. math:: \epsilon_i = \min\{\epsilon : \exists\, x' \in \mathcal{B}(x_i, \epsilon),\ f_\theta(x') \neq y_i\} .
#
# Erratum. The lecture does not say how :math:`\epsilon_i` changes, and leaves out the soft labels, which are a part of
# the method. In Algorithm 1 of the paper a budget grows where the sample withstands the attack.
# ``CustomisedAdversarial`` does so. The released code of the authors does the opposite: it keeps the increment where
# the attack succeeded.
#
# Erratum. The lecture writes :math:`y \in \mathbb{R}`; a label is a class, :math:`y \in \{1, \dots, K\}`. Its
# algorithm attacks the training set once in an epoch and trains on :math:`\mathcal{D}_{adv} \cup \mathcal{D}`. Madry et
# al. (2018) attack each batch anew and train on the attacked batch alone, which is Hauberk's ``pgd_adversarial``.
# ``clean_fraction=0.5`` adds the clean batch, and ``epochwise_adversarial`` attacks once in an epoch.
#
# Sources: Madry et al. 2018, *Towards Deep Learning Models Resistant to Adversarial Attacks*; Cheng et al. 2020, *CAT:
# Customized Adversarial Training for Improved Robustness*.
