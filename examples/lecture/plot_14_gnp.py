r"""Keeping the norm of gradients: GroupSort and Bjorck
=====================================================

A network whose layers all have norm 1 is 1-Lipschitz, and may still be useless: every layer may shrink what passes.
The lecture (slides *Certified Deterministic Defenses (1)*) therefore asks two things of 1-Lipschitz networks:

* activations that keep norms, GroupSort or FullSort in the place of ReLU,
* weights whose singular values are all close to 1, by Bjorck's iteration
  :math:`X_{k+1} = \tfrac12 X_k (3 I - X_k^\top X_k)`.

Then :math:`\|\nabla_x (u^\top f(x))\|_2` does not fade on its way back through the layers.  Hauberk has the layers
``MaxMin``, ``GroupSort``, ``FullSort`` and ``BjorckLinear``.

Sources: Anil et al. 2019; Björck & Bowie 1971; Serrurier et al. 2021 for the loss at the end.
"""

# %%
# What sorting does
# -----------------
# GroupSort sorts the channels of a group.  Groups of two are MaxMin, one group of all is FullSort.  Sorting permutes
# its input, so that its Jacobian is a permutation matrix and norms stay.  ReLU sets the negative half to 0.

import torch
from torch import Tensor, nn
from torch.func import jacrev

from hauberk import plots
from hauberk.batch import Batch
from hauberk.certificates import LipschitzCertificate
from hauberk.layers.activations import FullSort, GroupSort, MaxMin
from hauberk.layers.bjorck import Bjorck, BjorckLinear
from hauberk.layers.lipschitz import walk
from hauberk.layers.spectral import normalise_spectral
from hauberk.objectives.base import Context
from hauberk.objectives.hkr import HKR

torch.set_num_threads(1)
torch.manual_seed(0)
features = torch.randn(1, 4)
rows = []
for name, layer in (("input", nn.Identity()), ("ReLU", nn.ReLU()), ("MaxMin", MaxMin()), ("FullSort", FullSort())):
    rows += [{"channel": str(k + 1), "value": float(v), "after": name} for k, v in enumerate(layer(features)[0])]
for sorting in (MaxMin(), GroupSort(2), FullSort()):
    jacobian = jacrev(sorting)(features).reshape(4, 4)
    assert torch.equal(jacobian @ jacobian.T, torch.eye(4))  # a permutation
    assert torch.allclose(sorting(features).norm(), features.norm())
relu = jacrev(nn.ReLU())(features).reshape(4, 4)
print(f"singular values of the Jacobian of ReLU: {torch.linalg.svdvals(relu).int().tolist()}")
assert float(torch.linalg.svdvals(relu).min()) == 0.0
plots.figure(plots.bars(rows, "channel", "value", "after"))

# %%
# Bjorck's iteration
# ------------------
# One step leaves the singular vectors and carries a singular value :math:`s` to :math:`\tfrac12 s (3 - s^2)`.  The
# iteration therefore ends at the nearest matrix with orthonormal rows or columns, :math:`U V^\top` for
# :math:`M = U S V^\top`.
#
# **Erratum.** The slide does not say that the matrix must be scaled first.  A singular value above :math:`\sqrt 3`
# changes its sign, and one above :math:`\sqrt 5` grows without end.  Hauberk divides by an upper bound of the norm, so
# that all singular values start and stay in :math:`[0, 1]`: the layer is a contraction after any number of steps, and
# a singular value of 0 stays 0.  What is certified is the norm of the matrix that the iteration has reached.

torch.manual_seed(1)
free = torch.randn(6, 6, dtype=torch.float64)
by_hand = torch.linalg.svdvals(Bjorck(0)(free))  # scaled, no step yet
rows = []
for steps in range(13):
    ours = torch.linalg.svdvals(Bjorck(steps)(free))
    assert torch.allclose(ours.sort().values, by_hand.sort().values, atol=1e-9)
    assert float(ours.max()) <= 1 + 1e-12
    rows += [{"steps": steps, "singular value": float(s), "which": f"s{k + 1}"} for k, s in enumerate(by_hand)]
    by_hand = 0.5 * by_hand * (3 - by_hand**2)
left, _, right = torch.linalg.svd(free)
nearest = float(torch.linalg.matrix_norm(Bjorck(30)(free) - left @ right))
print(f"after 30 steps the distance to U V^T is {nearest:.1e}")
assert nearest < 1e-9
s = 2.5
for _ in range(6):
    s = 0.5 * s * (3 - s**2)
print(f"without scaling, s = 2.5 is {s:.1e} after 6 steps")
assert abs(s) > 1e6
plots.figure(plots.curves(rows, "steps", "singular value", "which"))

# %%
# Gradients on their way back
# ---------------------------
# Four networks of 20 layers and 64 units, at their random start.  All of them are 1-Lipschitz.  The figure shows the
# norm of the gradient of a random sum of the last features, for each layer on its way back, as a mean over 100 inputs.
# Only the network with both keeps it.

DEPTH, WIDTH = 20, 64


def deep(orthogonal: bool, sort: bool) -> nn.Sequential:
    """Orthogonal layers, or plain ones that are divided by their norm; MaxMin or ReLU between them."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(DEPTH):
        layers += [BjorckLinear(WIDTH, WIDTH) if orthogonal else nn.Linear(WIDTH, WIDTH)]
        layers += [MaxMin() if sort else nn.ReLU()]
    net = nn.Sequential(*layers)
    if not orthogonal:
        normalise_spectral(net, 1.0)
    return net.eval()


def norms_on_the_way(net: nn.Sequential) -> list[float]:
    """The mean norm of the gradient before each layer, from the last to the first."""
    inputs = torch.randn(100, WIDTH, generator=torch.Generator().manual_seed(2)).requires_grad_()
    direction = nn.functional.normalize(torch.randn(WIDTH, generator=torch.Generator().manual_seed(3)), dim=0)
    passed = [inputs]
    for k in range(0, len(net), 2):
        passed.append(net[k + 1](net[k](passed[-1])))
    gradients = torch.autograd.grad((passed[-1] @ direction).sum(), passed)
    return [float(g.norm(dim=1).mean()) for g in reversed(gradients)]


rows, reached = [], {}
for orthogonal in (True, False):
    for sort in (True, False):
        name = f"{'Bjorck' if orthogonal else 'spectral'} and {'MaxMin' if sort else 'ReLU'}"
        net = deep(orthogonal, sort)
        assert walk(net, (WIDTH,)).total().value <= 1.001
        way = norms_on_the_way(net)
        reached[name] = way[-1]
        rows += [{"layers passed": k, "norm of the gradient": value, "network": name} for k, value in enumerate(way)]
for name, value in reached.items():
    print(f"{name:20} norm of the gradient after {DEPTH} layers: {value:.6f}")
assert abs(reached["Bjorck and MaxMin"] - 1.0) < 1e-3
assert max(value for name, value in reached.items() if name != "Bjorck and MaxMin") < 0.1
plots.figure(plots.curves(rows, "layers passed", "norm of the gradient", "network"))

# %%
# What it is good for
# -------------------
# A 1-Lipschitz function that a network of ReLU with layers of norm 1 cannot reach is :math:`|x|`.  Its slope is 1 in
# absolute value everywhere, so that no layer may lose any norm.  The same training fits it with MaxMin.


def fit(activation: type[nn.Module], steps: int = 400) -> Tensor:
    """What a 1-Lipschitz network of orthogonal layers learns of |x| on [-1, 1]."""
    torch.manual_seed(0)
    net = nn.Sequential(
        BjorckLinear(1, 16), activation(), BjorckLinear(16, 16), activation(), BjorckLinear(16, 1)
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    x = torch.linspace(-1, 1, 101)[:, None]
    for _ in range(steps):
        loss = (net(x) - x.abs()).square().mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    fitted: Tensor = net(x).detach()[:, 0]
    return fitted


x = torch.linspace(-1, 1, 101)
lines = {"|x|": x.abs(), "MaxMin": fit(MaxMin), "ReLU": fit(nn.ReLU)}
errors = {name: float((line - x.abs()).abs().max()) for name, line in lines.items()}
print(", ".join(f"{name}: largest error {error:.3f}" for name, error in errors.items() if name != "|x|"))
assert errors["MaxMin"] < 0.05 < 0.2 < errors["ReLU"]
rows = [{"x": float(a), "f(x)": float(b), "net": name} for name, y in lines.items() for a, b in zip(x, y, strict=True)]
plots.figure(plots.curves(rows, "x", "f(x)", "net"))

# %%
# A loss for 1-Lipschitz networks
# -------------------------------
# The paper that the lecture names first trains with the hinge Kantorovich-Rubinstein loss, here the objective ``hkr``.
# For labels :math:`y = \pm 1` and a 1-Lipschitz score :math:`f`,
#
# .. math:: \alpha\,\mathbb E\big[\max(\tfrac m2 - y f(x), 0)\big]
#           - (1 - \alpha)\,\big(\mathbb E[f(x) \mid y = 1] - \mathbb E[f(x) \mid y = -1]\big).
#
# The second term is the optimal transport distance of the two classes.  Since no change of :math:`\delta` moves the
# score by more than :math:`\|\delta\|_2`, the absolute value :math:`|f(x)|` is a certified radius.  The code compares
# it with the certificate ``lipschitz``.


def moons(seed: int, each: int) -> Batch:
    """Two half circles, as images of one channel, one row and two columns."""
    generator = torch.Generator().manual_seed(seed)
    angle = torch.pi * torch.rand(each, generator=generator)
    upper = torch.stack([0.38 + 0.25 * angle.cos(), 0.45 + 0.25 * angle.sin()], 1)
    lower = torch.stack([0.62 - 0.25 * angle.cos(), 0.55 - 0.25 * angle.sin()], 1)
    points = torch.cat([upper, lower]) + 0.02 * torch.randn(2 * each, 2, generator=generator)
    labels = torch.arange(2).repeat_interleave(each)
    return Batch(points.clamp(0, 1).reshape(-1, 1, 1, 2), labels, torch.arange(2 * each))


torch.manual_seed(0)
net = nn.Sequential(
    nn.Flatten(), BjorckLinear(2, 64), MaxMin(), BjorckLinear(64, 64), MaxMin(), BjorckLinear(64, 64), MaxMin(),
    BjorckLinear(64, 2),
)  # fmt: skip
optimizer, train, draws = torch.optim.Adam(net.parameters(), lr=5e-3), moons(0, 200), torch.Generator()
for step in range(500):
    loss = HKR(alpha=0.98, margin=0.12)(net, train, Context(draws, progress=step / 500)).total
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()
net.eval()
test = moons(1, 150)
bounds = walk(net, (1, 1, 2)).pairwise()


def score(points: Tensor) -> Tensor:
    """f = (z_1 - z_0) / K_01, which is 1-Lipschitz."""
    with torch.no_grad():
        logits = net(points.reshape(-1, 1, 1, 2))
    f: Tensor = (logits[:, 1] - logits[:, 0]) / float(bounds[0, 1])
    return f


found = LipschitzCertificate()(net, test, seed=0)
right = found.prediction == test.labels
radius = torch.as_tensor(found.radius, dtype=torch.float32)
assert torch.allclose(score(test.images).abs(), radius, atol=1e-4)
print(f"accuracy {float(right.float().mean()):.3f}, mean certified radius {float(radius[right].mean()):.3f}")
BOX = (0.0, 1.0, 0.0, 1.0)
plots.figure(
    plots.regions(lambda points: (score(points) > 0).long(), BOX, test.images.flatten(1), test.labels, title="classes"),
    plots.landscape(lambda points: score(points).abs(), BOX, title="certified radius |f|"),
)
