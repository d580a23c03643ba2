r"""
TRADES: natural error, boundary error, and their trade-off
==========================================================

TRADES starts from an identity. An attacked sample counts as an error for one of two reasons: the network is wrong
without any attack (natural error), or it is right and an attack within :math:`\epsilon` breaks it (boundary error):

.. math:: \mathcal{R}_{rob} = \mathcal{R}_{nat} + \mathcal{R}_{bdy} .

Training then adds a surrogate of the boundary error to the cross-entropy. The lecture prints the regulariser as

.. math:: \mathcal{L}_{reg}(x, y, \theta) =
    \max_{x',\ |x' - x| \leq \epsilon} \mathcal{L}_{CE}\bigl(f_{\theta}(x'), f_{\theta}(x)\bigr) .

The paper and Hauberk's :class:`~hauberk.objectives.trades.TRADES` use the Kullback-Leibler divergence of the outputs
:math:`p`:

.. math:: \mathrm{CE}(f_\theta(x), y) +
    \beta \max_{\|x' - x\|_p \le \epsilon} \mathrm{KL}\bigl(p(x) \,\|\, p(x')\bigr) .

This page draws the lecture's figure, measures the three errors, and compares the two regularisers.
"""

from functools import partial

import torch
from sklearn.datasets import make_moons
from torch import Tensor, nn

from hauberk import plots
from hauberk.attacks import APGD, PGD
from hauberk.batch import Batch
from hauberk.evaluation import metrics
from hauberk.objectives.base import Context, Objective
from hauberk.objectives.standard import Standard
from hauberk.objectives.trades import TRADES, divergence
from hauberk.threats import L2

torch.set_num_threads(1)


def moons(count: int, seed: int) -> Batch:
    """Two noisy half-moons inside the unit square, each point as an image of two pixels."""
    where, side = make_moons(count, noise=0.15, random_state=seed)
    scaled = torch.from_numpy(where).float() * 0.22 + torch.tensor([0.39, 0.44])
    return Batch(scaled.clamp(0, 1).reshape(-1, 1, 1, 2), torch.from_numpy(side).long(), torch.arange(count))


train_set, test_set = moons(120, seed=0), moons(400, seed=1)

# %%
# Standard training and TRADES
# ----------------------------
#
# The training set is small and noisy. The attack inside TRADES raises the divergence itself (``loss="kl"``).

EPS = 0.06


def train(objective: Objective, steps: int = 400) -> nn.Module:
    """Train a network of two hidden layers on the training set, and return it in eval mode."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    context = Context(torch.Generator().manual_seed(0))
    for _ in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(objective(model, train_set, context).total)
        optimizer.step()
    return model.eval()


inner = PGD(L2(EPS), loss="kl", steps=7)
nets = {
    "standard training": train(Standard()),
    "TRADES, beta = 1": train(TRADES(inner, beta=1.0)),
    "TRADES, beta = 6": train(TRADES(inner, beta=6.0)),
}


def classify(model: nn.Module, where: Tensor) -> Tensor:
    """The class of each point of the plane."""
    with torch.no_grad():
        found: Tensor = model(where.reshape(-1, 1, 1, 2)).argmax(1)
    return found


box = (0.0, 1.0, 0.0, 1.0)
shown = train_set.images.reshape(-1, 2)
plots.figure(
    *[plots.regions(partial(classify, net), box, shown, train_set.labels, title=name) for name, net in nets.items()]
)

# %%
# The three errors, measured
# --------------------------
#
# The attack APGD looks for an error around each of 400 test points. ``metrics`` turns the outcomes into the three
# errors. The identity holds point by point, so it holds for the measured numbers exactly. An attack may miss an error,
# so the measured :math:`\mathcal{R}_{bdy}` and :math:`\mathcal{R}_{rob}` are lower bounds of the true ones.

rows = []
errors = {}
for name, net in nets.items():
    result = APGD(L2(EPS), steps=20)(net, test_set)
    right, survived = (result.clean_prediction == test_set.labels).numpy(), (~result.success).numpy()
    natural = 1.0 - metrics.accuracy(right).value
    boundary = metrics.boundary_error(right, survived).value
    robust = metrics.robust_error(right, survived).value
    assert abs(robust - (natural + boundary)) < 1e-12
    errors[name] = natural, boundary, robust
    rows += [{"net": name, "error": natural, "kind": "natural"}, {"net": name, "error": boundary, "kind": "boundary"}]
    rows += [{"net": name, "error": robust, "kind": "robust"}]
    print(f"{name:18} R_nat {natural:.3f} + R_bdy {boundary:.3f} = R_rob {robust:.3f}")

plots.figure(plots.bars(rows, "net", "error", "kind", percent=True))

# %%
# TRADES lowers the boundary error, and raises the natural error. On this data :math:`\beta = 1` has the least robust
# error: from there to :math:`\beta = 6` the natural error rises by more than the boundary error falls.

standard, little, much = errors.values()
assert standard[0] < little[0] < much[0]
assert standard[1] > little[1] > much[1]
assert little[2] < much[2] < standard[2]

# %%
# Cross-entropy or divergence
# ---------------------------
#
# Erratum. The lecture prints the cross-entropy of the two outputs in the place of their divergence, and a norm without
# its :math:`p`. The cross-entropy is the divergence plus the entropy of the clean output:
#
# .. math:: \mathrm{CE}\bigl(p(x'), p(x)\bigr) = \mathrm{KL}\bigl(p(x) \,\|\, p(x')\bigr) + H\bigl(p(x)\bigr) .
#
# The entropy does not depend on :math:`x'`, so both forms have the same attack. Their gradients in the parameters
# differ by that of the entropy: the printed form also makes the clean outputs more certain. ``divergence="ce"`` is the
# printed form. With ``detach_target=True`` no gradient passes through :math:`p(x)`, and both forms train alike.

draws = torch.Generator().manual_seed(0)
clean = torch.randn(5, 3, generator=draws, requires_grad=True)
attacked = torch.randn(5, 3, generator=draws, requires_grad=True)
p, q = clean.softmax(1), attacked.softmax(1)
kl, ce = divergence("kl", clean, attacked), divergence("ce", clean, attacked)
entropy = -(p * p.log()).sum(1)
torch.testing.assert_close(kl, (p * (p / q).log()).sum(1))
torch.testing.assert_close(ce, kl + entropy)

in_attacked = [torch.autograd.grad(d.sum(), attacked, retain_graph=True)[0] for d in (kl, ce)]
in_clean = [torch.autograd.grad(d.sum(), clean, retain_graph=True)[0] for d in (kl, ce)]
print(f"largest difference of the gradients in f(x'): {(in_attacked[0] - in_attacked[1]).abs().max():.1e}")
print(f"largest difference of the gradients in f(x) : {(in_clean[0] - in_clean[1]).abs().max():.1e}")
torch.testing.assert_close(in_attacked[0], in_attacked[1])
torch.testing.assert_close(in_clean[1] - in_clean[0], torch.autograd.grad(entropy.sum(), clean)[0])

# %%
# A network that is trained with the printed form has clean outputs of lower entropy.


def mean_entropy(model: nn.Module) -> float:
    """The mean entropy of the outputs at the training points, in nats."""
    with torch.no_grad():
        log_p = model(train_set.images).log_softmax(1)
    return float(-(log_p.exp() * log_p).sum(1).mean())


printed = train(TRADES(inner, beta=6.0, divergence="ce"))
print(f"mean entropy, KL: {mean_entropy(nets['TRADES, beta = 6']):.3f} nats")
print(f"mean entropy, CE: {mean_entropy(printed):.3f} nats")
assert mean_entropy(printed) < mean_entropy(nets["TRADES, beta = 6"])

# %%
# Source: Zhang et al. 2019, *Theoretically Principled Trade-off between Robustness and Accuracy*, equations 1, 3 and 5.
