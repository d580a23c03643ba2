r"""
Curvature: the loss surface before and after
============================================

Adversarial training makes the loss surface around an image flatter. Curvature regularisation (CURE) makes the surface
flat without an attack, and the network gets more robust. The regulariser compares two slopes of the loss at the
distance :math:`h` along one direction :math:`z`:

.. math:: \mathcal{L}_{reg}(x, y, \theta) =
    \|\nabla \mathcal{L}_{cls}(x + hz, y, \theta) - \nabla \mathcal{L}_{cls}(x, y, \theta)\|_2^2
    \approx h^2\, \|H z\|_2^2 ,

where :math:`H` is the Hessian of the loss in the image. This page takes one network for digits, goes on with its
training in two ways (AT and CURE), and draws the loss surface around a test digit before and after.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from hauberk import plots
from hauberk.attacks import APGD, PGD
from hauberk.batch import Batch
from hauberk.data import load
from hauberk.evaluation.hessian import hessian_eigenvalues
from hauberk.objectives.base import Context, Objective
from hauberk.objectives.curvature import Curvature, bends, directions, slopes
from hauberk.objectives.pgd_adversarial import PGDAdversarial
from hauberk.objectives.standard import Standard
from hauberk.objectives.terms import Terms
from hauberk.randomness import PerSample
from hauberk.threats import Linf

torch.set_num_threads(1)

# %%
# One network, trained on in two ways
# -----------------------------------
#
# ``Terms`` adds regularisers to a base loss: CURE is ``standard`` plus ``Curvature``. Its ``h`` rises from 0 to 0.3 in
# the first quarter of the training.

data = load("digits")
train_set, test_set = data.train.batch(), data.test.batch(slice(0, 200))


def go_on(model: nn.Module, objective: Objective, steps: int) -> nn.Module:
    """Train a copy of the model for some steps, and return it in eval mode."""
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    context = Context(torch.Generator().manual_seed(0))
    order = torch.Generator().manual_seed(1)
    for step in range(steps):
        context.progress = step / steps
        rows = torch.randint(len(train_set), (128,), generator=order)
        batch = Batch(train_set.images[rows], train_set.labels[rows], train_set.ids[rows])
        optimizer.zero_grad()
        torch.autograd.backward(objective(model, batch, context).total)
        optimizer.step()
    return model.eval()


torch.manual_seed(0)
first = nn.Sequential(nn.Flatten(), nn.Linear(64, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, 10))
original = go_on(first, Standard(), 250)
nets = {
    "original": original,
    "fine-tuned by AT": go_on(original, PGDAdversarial(PGD(Linf(0.1), steps=5)), 200),
    "fine-tuned by CURE": go_on(original, Terms(base=Standard(), terms=(Curvature(weight=4.0),)), 200),
}

# %%
# The loss surface around a digit
# -------------------------------
#
# The first axis is the sign of the gradient of the loss, scaled to unit length, and the second is a random direction at
# a right angle to it. The origin is the image. All three panels have the same colours: blue is a low loss, and red is a
# high loss.

digit = data.test.batch(slice(3, 4))


def surface(model: nn.Module, reach: float = 1.0, cells: int = 61) -> Tensor:
    """The loss over the plane of the two directions, rows from below."""

    def losses(images: Tensor) -> Tensor:
        return functional.cross_entropy(model(images), digit.labels.expand(len(images)), reduction="none")

    randomness = PerSample(0, digit.ids, "surface")
    across = directions("sign", slopes(losses, digit.images), randomness)
    up = directions("gaussian", across, randomness)
    up = up - (up * across).sum() * across
    places = plots.grid((-reach, reach, -reach, reach), cells)[:, :, None, None, None]
    with torch.no_grad():
        return losses(digit.images + places[:, 0] * across + places[:, 1] * up / up.norm()).reshape(cells, cells)


surfaces = {name: surface(model) for name, model in nets.items()}
ends = (0.0, float(surfaces["original"].max()))
axes = ("gradient's sign", "random")
plots.figure(*[plots.landscape(s, (-1, 1, -1, 1), ends=ends, axes=axes, title=name) for name, s in surfaces.items()])

# %%
# Bend and eigenvalues
# --------------------
#
# ``bends`` is the regulariser without its weight, here for each of 200 test digits. ``hessian_eigenvalues`` gives the
# largest eigenvalue of the Hessian at an image. Both means fall, and robust accuracy rises.

EPS, H = 0.1, 0.3
rows = []
measured = []
for name, model in nets.items():

    def losses(images: Tensor, model: nn.Module = model) -> Tensor:
        return functional.cross_entropy(model(images), test_set.labels, reduction="none")

    bend = float(bends(losses, test_set.images, "sign", H, PerSample(0, test_set.ids, "bend")).detach().mean())
    largest = float(hessian_eigenvalues(model, test_set, steps=10)[:, 0].mean())
    attacked = APGD(Linf(EPS), steps=20)(model, test_set)
    clean = float((attacked.clean_prediction == test_set.labels).float().mean())
    robust = float((~attacked.success).float().mean())
    measured.append((bend, largest, robust))
    rows += [{"net": name, "share": clean, "of": "clean accuracy"}, {"net": name, "share": robust, "of": "after APGD"}]
    print(f"{name:20} bend {bend:9.3f}   eigenvalue {largest:7.2f}   clean {clean:.3f}   after APGD {robust:.3f}")

before, after_at, after_cure = measured
assert after_at[0] < before[0] and after_cure[0] < before[0]
assert after_at[1] < before[1] and after_cure[1] < before[1]
assert after_at[2] > before[2] and after_cure[2] > before[2]

plots.figure(plots.bars(rows, "net", "share", "of", percent=True))

# %%
# For a quadratic loss :math:`\frac12 x^\top A x` the approximation is exact: the bend is :math:`h^2 \|A z\|_2^2`.

draws = torch.Generator().manual_seed(0)
half = torch.randn(4, 4, generator=draws)
matrix = half + half.T
point = torch.rand(1, 1, 1, 4, generator=draws)


def quadratic(images: Tensor) -> Tensor:
    """Half of x'Ax for each image."""
    flat = images.flatten(1)
    return 0.5 * (flat @ matrix * flat).sum(1)


z = directions("sign", slopes(quadratic, point), PerSample(0, torch.tensor([0]), "z"))
by_hand = H**2 * float((matrix @ z.flatten()).square().sum())
by_library = float(bends(quadratic, point, "sign", H, PerSample(0, torch.tensor([0]), "z")).detach())
print(f"bend of a quadratic loss: by hand {by_hand:.6f}, library {by_library:.6f}")
assert abs(by_hand - by_library) < 1e-4

# %%
# The printed direction
# ---------------------
#
# Erratum. The lecture divides the gradient by the norm of the loss,
# :math:`z = \nabla_x \mathcal{L}_{cls} / \|\mathcal{L}_{cls}\|_2`. The loss is a number, and the result has no unit
# length, so that :math:`h` is no distance. The denominator must be the norm of the gradient. The lengths of the printed
# :math:`z` over the test digits whose loss is not almost 0:


def standard_losses(images: Tensor) -> Tensor:
    """The loss of each test image under the original network."""
    return functional.cross_entropy(original(images), test_set.labels, reduction="none")


gradient = slopes(standard_losses, test_set.images).detach()
loss = standard_losses(test_set.images).detach()
printed = (gradient.flatten(1).norm(dim=1) / loss)[loss > 1e-4]
unit = directions("grad", gradient, PerSample(0, test_set.ids, "unit")).flatten(1).norm(dim=1)
print(f"length of the printed z: from {printed.min():.2f} to {printed.max():.2f}")
print(f"length of Hauberk's z:   from {unit.min():.2f} to {unit.max():.2f}")
assert bool(torch.isclose(unit, torch.ones(())).all())
assert float(printed.max()) > 3 * float(printed.min()) > 3

# %%
# The paper takes :math:`z = \mathrm{sign}(\nabla \mathcal{L}) / \|\mathrm{sign}(\nabla \mathcal{L})\|_2`, which is
# ``direction="sign"``, the default. ``"grad"`` is what the lecture means. ``"gaussian"`` is its second choice
# :math:`z \sim \mathcal{N}(0, I)`, scaled to unit length: without the scale its length is about :math:`\sqrt d`.
#
# Erratum. The lecture says that the idea is to penalise large eigenvalues of the Hessian. The regulariser sees
# :math:`\|Hz\|` for one :math:`z` only: it makes the surface flat along that direction, and an eigenvalue of another
# direction may stay large.
#
# Source: Moosavi-Dezfooli et al. 2019, *Robustness via Curvature Regularization, and Vice Versa*, equation 5.
