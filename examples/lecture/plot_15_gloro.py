r"""GloRo nets: a class that says "not proved"
===========================================

The lecture's second deterministic defence (slides *Certified Deterministic Defenses (2)*) gives a network one more
class, :math:`\bot`.  A point is answered with :math:`\bot` where another class may win within :math:`\epsilon`.
Denote by :math:`K_i` a Lipschitz constant of logit :math:`f_i`.  The lecture's logit of :math:`\bot` is, for
:math:`y = \arg\max_j f_\theta(x)_j`,

.. math:: y_\bot = \max_{i \neq y} \{f_\theta(x)_i + (K_i + K_y)\,\epsilon\}.

Hauberk has the training as the objective ``gloro``, the classifier with :math:`\bot` as the defence ``bottom_class``,
and top-k robustness as the certificate ``top_k``.  This page draws them in the plane.

Sources: Leino et al. 2021; Leino & Fredrikson 2021.
"""

# %%
# Three classes in the plane
# --------------------------
# An image here is a point of the unit square, and three classes lie around the corners of a triangle.  The network
# has plain layers, whose Lipschitz constants are bounded by the product of their norms.

from functools import partial

import torch
from torch import Tensor, nn

from hauberk import plots
from hauberk.batch import Batch
from hauberk.certificates import LipschitzCertificate
from hauberk.certificates.class_sets import TopK
from hauberk.defences.bottom_class import BottomClass
from hauberk.evaluation.metrics import accuracy, certified_accuracy
from hauberk.layers.activations import MaxMin
from hauberk.layers.lipschitz import walk
from hauberk.objectives.base import Context, Objective
from hauberk.objectives.gloro import GloRo, bottom_logit, margins
from hauberk.objectives.standard import Standard
from hauberk.randomness import Key

torch.set_num_threads(1)
BOX = (0.0, 1.0, 0.0, 1.0)
SHAPE = (1, 1, 2)  # of an image: one channel, one row, two columns


def sample(seed: int, each: int) -> Batch:
    """Points of three classes, as images of one channel, one row and two columns."""
    centres = torch.tensor([[0.22, 0.25], [0.78, 0.25], [0.5, 0.78]])
    labels = torch.arange(3).repeat_interleave(each)
    noise = torch.randn(len(labels), 2, generator=torch.Generator().manual_seed(seed))
    points = (centres[labels] + 0.09 * noise).clamp(0, 1)
    return Batch(points.reshape(-1, 1, 1, 2), labels, torch.arange(len(labels)))


def train(objective: Objective, steps: int = 400) -> nn.Sequential:
    """A small network, trained on the whole training set at each step."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 32), MaxMin(), nn.Linear(32, 32), MaxMin(), nn.Linear(32, 3))
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    batch, draws = sample(0, 100), torch.Generator().manual_seed(0)
    for step in range(steps):
        loss = objective(net, batch, Context(draws, progress=step / steps)).total
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return net.eval()


def images(points: Tensor) -> Tensor:
    """Points of the plane, (N, 2), as images."""
    return points.reshape(-1, 1, 1, 2)


# %%
# Training
# --------
# The objective adds :math:`y_\bot` to the logits and takes the cross-entropy of all of them, at :math:`\epsilon = 0.1`.
# The constants are computed once a step from the present weights (``lipschitz="walk"``).  That answers the lecture's
# question whether the bound can be made cheaper: it belongs to the weights, so that one computation serves a batch.

EPS = 0.1
standard, robust = train(Standard()), train(GloRo(eps=EPS, lipschitz="walk"))
test = sample(1, 60)
rows = []
for name, net in (("standard", standard), ("GloRo", robust)):
    found = LipschitzCertificate()(net, test, seed=0)
    right, radii = (found.prediction == test.labels).numpy(), found.radius.numpy()
    print(f"{name:9} accuracy {accuracy(right).value:.3f}, certified at 0.1: ", end="")
    print(f"{certified_accuracy(right, radii, EPS).value:.3f}, Lipschitz {walk(net, SHAPE).total().value:.1f}")
    for r in torch.linspace(0, 0.3, 61).tolist():
        rows.append({"radius": r, "certified accuracy": certified_accuracy(right, radii, r).value, "net": name})

at_eps = {row["net"]: row["certified accuracy"] for row in rows if abs(row["radius"] - EPS) < 1e-6}
assert at_eps["GloRo"] > at_eps["standard"]
plots.figure(plots.curves(rows, "radius", "certified accuracy", "net", percent=True, steps=True))

# %%
# The band between two classes
# ----------------------------
# This is the lecture's figure.  Grey points are answered with :math:`\bot`.  The band grows with :math:`\epsilon`, and
# every border between two classes lies inside it.  Global robustness says that two points with different classes, none
# of them :math:`\bot`, are never within :math:`\epsilon` of each other.  By the triangle inequality they are even
# :math:`2\epsilon` apart, which the code asserts on all pairs of points of a grid.


def decided(points: Tensor, eps: float = EPS) -> Tensor:
    """The class of each point, and -1 for bottom."""
    key = Key(0, 0, tuple(range(len(points))), "page")  # random models draw from it; this one is not random
    return BottomClass(robust, eps, "l2").eval().decide(images(points), key)


def least_distance(eps: float) -> float:
    """The least distance of two points of a grid that are decided as different classes."""
    points = plots.grid(BOX, 50)
    classes = decided(points, eps)
    points, classes = points[classes >= 0], classes[classes >= 0]
    apart = torch.cdist(points, points)
    return float(apart[classes[:, None] != classes[None, :]].min())


panels, shares = [], []
for eps in (0.02, 0.05, 0.1):
    assert least_distance(eps) > 2 * eps
    shares.append(float((decided(plots.grid(BOX, 100), eps) < 0).float().mean()))
    print(f"eps {eps:.2f}: bottom on {shares[-1]:.1%} of the square, classes at least {least_distance(eps):.3f} apart")
    panels.append(
        plots.regions(
            partial(decided, eps=eps), BOX, test.images.flatten(1), test.labels, title=f"eps = {eps}", size=220
        )
    )
assert shares == sorted(shares)
plots.figure(*panels)

# %%
# The logit of bottom, by hand
# ----------------------------
# The picture of the lecture has two worst cases: the predicted class falls by :math:`\epsilon K_1`, and the next one
# rises by :math:`\epsilon K_2`.  The difference of the two logits has a Lipschitz constant of its own, :math:`K_{yi}`,
# and the certificate needs no more than that.  For two rows :math:`w_y, w_i` of the last layer and the constant
# :math:`L` of all layers before it,
#
# .. math:: K_{yi} = L\,\|w_y - w_i\|_2 \;\le\; L\,\|w_y\|_2 + L\,\|w_i\|_2 = K_y + K_i.
#
# **Erratum.** The slide's :math:`K_i + K_y` is valid, but it is larger than the pairwise constant wherever two rows do
# not point in opposite directions.  For orthonormal rows it is 2 in the place of :math:`\sqrt 2`.  Hauberk takes
# :math:`K_{yi}`, as the paper does.  The code below writes both formulas out, compares the second one with the
# library's, and finds that the slide's band is the wider one.

bounds = walk(robust, SHAPE)
single, pairwise = bounds.logits().float(), bounds.pairwise().float()
with torch.no_grad():
    logits = robust(test.images)
top = logits.argmax(1)
others = torch.ones_like(logits).scatter(1, top[:, None], 0.0).log()  # -inf for the predicted class, 0 for the others
slide = (logits + (single[top][:, None] + single) * EPS + others).amax(1)
paper = (logits + pairwise[top] * EPS + others).amax(1)
assert torch.allclose(paper, bottom_logit(logits, pairwise, EPS), atol=1e-4)
assert bool((slide >= paper).all())


def by_sum(points: Tensor, eps: float = EPS) -> Tensor:
    """The class of each point with the slide's constants, and -1 for bottom."""
    with torch.no_grad():
        z = robust(images(points))
    sums = single[:, None] + single[None, :]
    return torch.where(bottom_logit(z, sums, eps) < z.amax(1), z.argmax(1), -1)


area = {"the slide's, K_i + K_y": by_sum(plots.grid(BOX, 100)), "pairwise, K_yi": decided(plots.grid(BOX, 100))}
for name, classes in area.items():
    print(f"{name:24} bottom on {float((classes < 0).float().mean()):.1%} of the square")
assert (by_sum(plots.grid(BOX, 100)) < 0).sum() > (decided(plots.grid(BOX, 100)) < 0).sum()
plots.figure(
    plots.regions(by_sum, BOX, title="the slide's constants, K_i + K_y"),
    plots.regions(decided, BOX, title="pairwise constants, K_yi"),
)

# %%
# What accuracy means
# -------------------
# The slide says that the final accuracy of a GloRo net is the share of points that are globally robust.
#
# **Erratum.** It is the share of the *test points* that are right and certified at the :math:`\epsilon` of training.
# Nothing is said of other points: no net certifies every :math:`x`, because the band around its borders is not empty.
# The slide's last remark is right: every point has a largest certified :math:`\epsilon`, which is its radius
# :math:`R(x) = \min_{i \ne y} (f_y - f_i) / K_{yi}`.  The code computes it by hand and compares it with the
# certificate, and with the classifier that has :math:`\bot`.

gaps = (logits.gather(1, top[:, None]) - logits) / pairwise[top]
by_hand = gaps.scatter(1, top[:, None], torch.inf).amin(1)
certified = LipschitzCertificate()(robust, test, seed=0).radius
assert torch.allclose(by_hand, torch.as_tensor(certified, dtype=torch.float32), atol=1e-4)
accepted = (decided(test.images.flatten(1)) == test.labels).float().mean()
print(f"accuracy of the classifier with bottom: {float(accepted):.3f}; certified at 0.1: {at_eps['GloRo']:.3f}")
assert abs(float(accepted) - at_eps["GloRo"]) < 0.02  # the classifier leaves a thousandth of each gap to rounding


def radius(points: Tensor) -> Tensor:
    """The largest certified eps of each point."""
    with torch.no_grad():
        z = robust(images(points))
    best = z.argmax(1)
    apart: Tensor = (z.gather(1, best[:, None]) - z) / pairwise[best]
    return apart.scatter(1, best[:, None], torch.inf).amin(1)


plots.figure(plots.landscape(radius, BOX, title="largest certified eps at each point", size=300))

# %%
# Top-2 robustness
# ----------------
# The generalisation asks that the *set* :math:`F^2` of the two largest logits stays what it is:
#
# .. math:: m_2 = \min_{j \in F^2} \Big[f_j - \max_{i \notin F^2} (f_i + \epsilon K_{ji})\Big] > 0.
#
# The two figures of the lecture are bars of logits.  At the first point the third logit can overcome the second one,
# although the predicted class is proved; at the second point it cannot.  Each bar is drawn at the point, and at the
# least and the largest value that it can reach within :math:`\epsilon` by its own constant.

EPS2 = 0.05
ahead = margins(logits, pairwise, EPS2, 2)  # m_1 and m_2 of every test point
unstable = int(torch.where(ahead[:, 0] > 0, ahead[:, 1], torch.inf).argmin())  # top-1 robust, least m_2
stable = int(ahead.amin(1).argmax())
assert ahead[unstable, 0] > 0 > ahead[unstable, 1]
assert ahead[stable, 1] > 0
z = logits[[unstable, stable]]
batch = test.select(torch.tensor([unstable, stable]))
proved = TopK(k=2)(robust, batch, seed=0).radius
print("radius of the set of two:", ", ".join(f"{float(r):.3f}" for r in proved))
assert proved[0] < EPS2 < proved[1]
panels = []
for k, title in enumerate(("not top-2 robust", "top-2 robust")):
    reach = (EPS2 * single).tolist()
    bars = []
    for j in z[k].argsort(descending=True).tolist():
        bars.append({"logit": f"f{j + 1}", "value": float(z[k, j]), "when": "at the point"})
        bars.append({"logit": f"f{j + 1}", "value": float(z[k, j]) - reach[j], "when": "at least, within eps"})
        bars.append({"logit": f"f{j + 1}", "value": float(z[k, j]) + reach[j], "when": "at most, within eps"})
    panels.append(plots.bars(bars, "logit", "value", "when", title=title))
plots.figure(*panels, columns=1)

# %%
# In the plane each set of two classes has a region of its own, and the grey band of top-2 robustness runs along other
# borders than that of top-1 robustness: between two classes the set of both is the same on either side.


def top_two(points: Tensor) -> Tensor:
    """The class that is not among the two largest logits, and -1 where the set is not proved."""
    with torch.no_grad():
        found = robust(images(points))
    return torch.where(margins(found, pairwise, EPS2, 2)[:, 1] > 0, found.argmin(1), -1)


middle = torch.tensor([[0.5, 0.22]])  # on the border of the two lower classes
assert decided(middle, EPS2)[0] == -1
assert top_two(middle)[0] >= 0
plots.figure(
    plots.regions(partial(decided, eps=EPS2), BOX, title="top-1, eps = 0.05: the class"),
    plots.regions(top_two, BOX, title="top-2, eps = 0.05: the class left out"),
)
