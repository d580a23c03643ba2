r"""MACER: training for the certified radius
==========================================

Training under noise (page *Randomized smoothing*) fits the base classifier, and hopes for a large radius.  MACER
(slides *Certified Probabilistic Defenses (2)*) makes the radius part of the loss, without attacks:

.. math:: \mathcal L(x, y, \theta) = \frac1N \sum_{i=1}^N \mathcal L_{cls}(x + \eta_i, y, \theta)
          + \frac{\lambda\sigma}{2} \max(\gamma - \hat R(x, g_\theta), 0)\,\Big|_{g_\theta(x) = y}

where :math:`\hat R` is a soft radius that can be differentiated.  Hauberk has it as the objective ``macer``.

Source: Zhai et al. 2020, Algorithm 1.
"""

# %%
# The soft radius, by hand
# ------------------------
# For logits :math:`z_j = f_\theta(x + \eta_j)` of :math:`m` noisy copies and an inverse temperature :math:`\beta`,
#
# .. math:: \hat p = \frac1m \sum_{j=1}^m \mathrm{softmax}(\beta z_j), \qquad
#           \xi = \Phi^{-1}(\hat p_y) - \Phi^{-1}(\max_{k \ne y} \hat p_k), \qquad \hat R = \frac{\sigma}{2}\,\xi .
#
# The larger :math:`\beta`, the nearer :math:`\hat p` comes to the shares of hard votes.  The code computes
# :math:`\xi` with scipy and compares it with the library's.

import numpy as np
import torch
from scipy import special, stats
from torch import nn

from hauberk import plots
from hauberk.certificates import SmoothingCertificate
from hauberk.data import load
from hauberk.evaluation.metrics import average_certified_radius, certified_accuracy
from hauberk.noises import Gaussian
from hauberk.objectives.base import Context, Objective
from hauberk.objectives.gaussian_augmentation import GaussianAugmentation
from hauberk.objectives.macer import MACER

torch.set_num_threads(1)
SIGMA = 0.5
macer = MACER(Gaussian(SIGMA), copies=16, weight=4.0, gamma=8.0, temperature=16.0)

torch.manual_seed(0)
logits = torch.randn(6, 8, 3, dtype=torch.float64) * 0.1  # 6 images, 8 copies, 3 classes
labels = logits.mean(1).argmax(1)
shares = special.softmax(16.0 * logits.numpy(), axis=2).mean(1)
own = shares[np.arange(6), labels.numpy()]
rival = np.where(np.eye(3, dtype=bool)[labels.numpy()], -1.0, shares).max(1)
by_hand = (stats.norm.ppf(own) - stats.norm.ppf(rival))[own > rival]
ours, kept = macer.gaps(logits, labels)
print("xi by hand:", np.round(by_hand, 4), " by Hauberk:", np.round(ours.numpy(), 4))
assert np.allclose(ours.numpy(), by_hand, atol=1e-6)
assert bool((kept.numpy() == (own > rival)).all())

# %%
# Two slips on the slide
# ----------------------
# **Erratum.** The slide prints the mean of the losses of the copies.  The paper takes the loss of the mean,
# :math:`-\log \frac1m \sum_j \mathrm{softmax}(z_j)_y`, since it is the smoothed classifier that is to be right.  By
# Jensen's inequality it is never larger.  The slide also takes the hinge of :math:`\hat R`, which holds
# :math:`\sigma/2` already, so that the factor comes twice.  The hinge of the paper is that of :math:`\xi`:
#
# .. math:: \lambda\,\frac{\sigma}{2}\,\max(\gamma - \xi, 0) .
#
# The figure shows both hinges for :math:`\sigma = 0.5`, :math:`\lambda = 4` and :math:`\gamma = 8`.  The slide's has a
# quarter of the slope, and ends at :math:`\xi = 32` only, which probabilities in floating point do not reach.

own_shares = special.softmax(logits.numpy(), axis=2)[np.arange(6), :, labels.numpy()]
loss_of_mean, mean_of_losses = -np.log(own_shares.mean(1)), -np.log(own_shares).mean(1)
assert (loss_of_mean <= mean_of_losses).all()
xi = np.linspace(0, 10, 101)
paper = macer.weight * SIGMA / 2 * np.maximum(macer.gamma - xi, 0)
slide = macer.weight * SIGMA / 2 * np.maximum(macer.gamma - SIGMA / 2 * xi, 0)
assert np.isclose((slide[1] - slide[0]) / (paper[1] - paper[0]), SIGMA / 2)
rows = [
    {"xi": float(a), "penalty": float(b), "hinge": name}
    for name, line in (("the paper's, of xi", paper), ("the slide's, of the radius", slide))
    for a, b in zip(xi, line, strict=True)
]
plots.figure(plots.curves(rows, "xi", "penalty", "hinge"))

# %%
# Training with and without it
# ----------------------------
# Two equal nets see digits under noise of :math:`\sigma = 0.5`, for equally many steps.  One minimises the
# cross-entropy under noise, the other MACER.  Rows that the smoothed net has wrong get no hinge.

digits = load("digits")
test = digits.test.batch(slice(0, 150))


def train(objective: Objective, steps: int = 500) -> nn.Sequential:
    """A net of one hidden layer."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    everything, draws = digits.train.batch(), torch.Generator().manual_seed(0)
    for step in range(steps):
        part = everything.select(torch.randint(len(everything), (64,), generator=draws))
        loss = objective(net, part, Context(draws, progress=step / steps)).total
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return net.eval()


certificate = SmoothingCertificate(Gaussian(SIGMA), n0=100, n=1000, alpha=0.001)
rows, acr, radii = [], {}, {}
for name, objective in (("noise alone", GaussianAugmentation(Gaussian(SIGMA))), ("MACER", macer)):
    net = train(objective)
    found = certificate(net, test, seed=0)
    right, radii[name] = (found.prediction == test.labels).numpy(), found.radius.numpy()
    acr[name] = average_certified_radius(right, radii[name]).value
    print(f"{name:12} average certified radius {acr[name]:.3f}, ", end="")
    print(f"certified at 0: {certified_accuracy(right, radii[name], 0.0).value:.3f}")
    for r in np.linspace(0, 1.3, 131).tolist():
        share = certified_accuracy(right, radii[name], r).value
        rows.append({"radius": r, "certified accuracy": share, "training": name})
assert acr["MACER"] > acr["noise alone"]
plots.figure(plots.curves(rows, "radius", "certified accuracy", "training", percent=True, steps=True))

# %%
# The soft radius is not a certificate
# ------------------------------------
# The soft radius of few copies follows the certified one, but it proves nothing: it is an estimate without a level, and
# it may be larger.  The figure shows both for the test images that the smoothed net of MACER has right.

with torch.no_grad():
    noise = torch.randn(len(test), 64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    copies = (test.images[:, None] + SIGMA * noise).flatten(0, 1)
    seen = net(copies).reshape(len(test), 64, 10)
shares = special.softmax(16.0 * seen.double().numpy(), axis=2).mean(1)
own = shares[np.arange(len(test)), test.labels.numpy()]
rival = np.where(np.eye(10, dtype=bool)[test.labels.numpy()], -1.0, shares).max(1)
soft = SIGMA / 2 * (stats.norm.ppf(own) - stats.norm.ppf(rival))
shown = right & (own > rival) & np.isfinite(soft) & (soft < SIGMA * 4)
correlation = float(np.corrcoef(soft[shown], radii["MACER"][shown])[0, 1])
above = float((soft[shown] > radii["MACER"][shown]).mean())
print(f"correlation {correlation:.2f}; the soft radius is above the certified one on {above:.0%} of the images")
assert correlation > 0.5
assert above > 0
rows = [
    {"certified radius": float(a), "soft radius": float(b)}
    for a, b in zip(radii["MACER"][shown], soft[shown], strict=True)
]
plots.figure(plots.scatter(rows, "certified radius", "soft radius"))
