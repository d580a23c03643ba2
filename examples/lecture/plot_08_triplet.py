r"""
Triplet loss: distances between features
========================================

Triplet loss adversarial training (TLA) looks at the features :math:`h = f_\theta^{(k)}(x)` of three images: an attacked
image :math:`x_a` (the anchor), the image that it was made from :math:`x_p` (the positive), and a clean image of another
class :math:`x_n` (the negative). The anchor shall be nearer to the positive than to the negative, by a margin
:math:`\alpha`:

.. math:: \mathcal{L}_{reg}(x_p, x_a, x_n, \theta) = \max\bigl(D(h_p, h_a) - D(h_n, h_a) + \alpha,\ 0\bigr), \qquad
    D(u, v) = 1 - \frac{|\langle u, v \rangle|}{\|u\|_2 \|v\|_2} .

The lecture adds the lengths of the three features, times :math:`\lambda`. This page draws the loss in the plane, checks
Hauberk's value by hand, and measures what the regulariser does to the features of attacked digits.
"""

import copy

import torch
from torch import Tensor, nn

from hauberk import plots
from hauberk.attacks import PGD
from hauberk.batch import Batch
from hauberk.data import load
from hauberk.defences.activations import last_features
from hauberk.objectives.base import Context, Objective
from hauberk.objectives.pgd_adversarial import PGDAdversarial
from hauberk.objectives.terms import Terms
from hauberk.objectives.triplet import Triplet, nearest_negatives, similarities
from hauberk.randomness import PerSample
from hauberk.threats import Linf

torch.set_num_threads(1)

# %%
# The loss over the plane
# -----------------------
#
# The positive has the features (1, 0.2) and the negative (0.2, 1). Each point of a panel is an anchor, and its colour
# is the loss. The left panel has the printed distance, and the right one :math:`D(u, v) = 1 - \cos(u, v)`, which is
# Hauberk's default.

positive, negative = torch.tensor([[1.0, 0.2]]), torch.tensor([[0.2, 1.0]])
ALPHA = 0.3


def loss_of(anchors: Tensor, absolute: bool) -> Tensor:
    """The triplet loss of each anchor, (N,)."""
    near, far = (1.0 - similarities(anchors, other, absolute)[:, 0] for other in (positive, negative))
    return (near - far + ALPHA).relu()


box = (-1.5, 1.5, -1.5, 1.5)
printed = plots.landscape(
    lambda where: loss_of(where, True), box, ends=(0, 2), title="printed, with the absolute value"
)
usual = plots.landscape(lambda where: loss_of(where, False), box, ends=(0, 2), title="Hauberk's default")
plots.figure(printed, usual)

# %%
# Erratum. The distance is printed with the absolute value of the inner product. Then two opposite feature vectors have
# the distance 0, and the anchor at :math:`-h_p` has no loss. After a ReLU no feature is negative, and both distances
# are the same. For other features the absolute value is wrong; ``absolute=True`` is the printed form.

opposite = -positive
as_printed, as_default = float(loss_of(opposite, True)), float(loss_of(opposite, False))
print(f"loss of the anchor -h_p: printed {as_printed:.3f}, default {as_default:.3f}")
assert as_printed == 0.0
assert as_default > ALPHA
positive_features = torch.rand(50, 2, generator=torch.Generator().manual_seed(0))
torch.testing.assert_close(loss_of(positive_features, True), loss_of(positive_features, False))

# %%
# The value, by hand
# ------------------
#
# The negative is the nearest clean image of another class in the batch. The features are those before the last layer.

data = load("digits")
digits = (3, 5, 8)


def three_digits(batch: Batch) -> Batch:
    """The images of three digits, as classes 0, 1 and 2."""
    chosen = (batch.labels[:, None] == torch.tensor(digits)).any(1)
    classes = (batch.labels[chosen][:, None] == torch.tensor(digits)).long().argmax(1)
    return Batch(batch.images[chosen], classes, batch.ids[chosen])


train_set, test_set = three_digits(data.train.batch()), three_digits(data.test.batch())
threat = Linf(0.1)
attack = PGD(threat, steps=5)


def network() -> nn.Module:
    """A network with two features before its last layer."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2), nn.Linear(2, 3))


few = Batch(train_set.images[:12], train_set.labels[:12], train_set.ids[:12])
untrained = network()
terms = Triplet(attack, margin=ALPHA)(untrained, few, Context(torch.Generator().manual_seed(0))).terms

same_draws = Context(torch.Generator().manual_seed(0))
anchors = last_features(untrained, same_draws.attacked(attack, untrained, few)).detach()
clean = last_features(untrained, few.images).detach()
hinges = []
for row, (anchor, label) in enumerate(zip(anchors, few.labels.tolist(), strict=True)):
    distance = [1.0 - float(anchor @ other / (anchor.norm() * other.norm())) for other in clean]
    nearest = min(d for d, other in zip(distance, few.labels.tolist(), strict=True) if other != label)
    hinges.append(max(distance[row] - nearest + ALPHA, 0.0))
by_hand = sum(hinges) / len(hinges)
print(f"triplet loss: by hand {by_hand:.6f}, library {float(terms['triplet']):.6f}")
assert abs(by_hand - float(terms["triplet"])) < 1e-5

# %%
# Features before and after
# -------------------------
#
# As in the paper, the network is first trained by AT. Two copies go on from there, one with AT alone and one with the
# regulariser too. Each panel shows the features of the test images, clean and attacked.


def go_on(model: nn.Module, objective: Objective, steps: int) -> nn.Module:
    """Train a copy of the model for some steps, and return it in eval mode."""
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    context = Context(torch.Generator().manual_seed(0))
    for _ in range(steps):
        rows = torch.randint(len(train_set), (64,), generator=context.generator)
        batch = Batch(train_set.images[rows], train_set.labels[rows], train_set.ids[rows])
        optimizer.zero_grad()
        torch.autograd.backward(objective(model, batch, context).total)
        optimizer.step()
    return model.eval()


adversarial = PGDAdversarial(attack)
tla = Terms(base=adversarial, terms=(Triplet(attack, weight=2.0, margin=ALPHA),))
start = go_on(network(), adversarial, 150)
nets = {"AT": go_on(start, adversarial, 150), "AT + triplet": go_on(start, tla, 150)}

panels, rows = [], []
satisfied, farther = {}, {}
for name, model in nets.items():
    found = PGD(threat, steps=20).perturb(model, test_set.images, test_set.labels, PerSample(0, test_set.ids, "page"))
    with torch.no_grad():
        clean, anchors = last_features(model, test_set.images), last_features(model, found)
    drawn = [
        {"feature 1": a, "feature 2": b, "of": f"{digits[label]} {kind}"}
        for label in range(3)
        for kind, features in (("clean", clean), ("attacked", anchors))
        for a, b in features[test_set.labels == label].tolist()
    ]
    panels.append(plots.scatter(drawn, "feature 1", "feature 2", "of", title=name))
    near = similarities(anchors, clean)
    place = nearest_negatives(near, test_set.labels).place
    to_positive, to_negative = 1.0 - near.diag(), 1.0 - near.gather(1, place[:, None])[:, 0]
    satisfied[name] = float((to_negative >= to_positive + ALPHA).float().mean())
    rows += [{"net": name, "distance": float(to_positive.mean()), "to": "the positive"}]
    farther[name] = float(to_negative.mean())
    rows += [{"net": name, "distance": farther[name], "to": "the nearest negative"}]
    print(f"{name:12} D to the positive {to_positive.mean():.3f}, to the nearest negative {to_negative.mean():.3f}")
    print(f"{'':12} share that keeps the margin {satisfied[name]:.2f}")
plots.figure(*panels)

# %%
# The distances of the attacked test images to their own clean image and to the nearest clean image of another class:

plots.figure(plots.bars(rows, "net", "distance", "to"))

# %%
# With the regulariser the nearest negative is farther away, and more of the attacked images keep the margin.

assert farther["AT + triplet"] > farther["AT"]
assert satisfied["AT + triplet"] > satisfied["AT"] + 0.1

# %%
# Why the lengths are penalised
# -----------------------------
#
# Erratum. The lecture adds the lengths :math:`\|h\|_2` because features may have very different magnitudes. The
# distance :math:`D` does not depend on them. Its slope does: it is proportional to :math:`1 / \|h\|_2`, so that short
# features get large steps and long ones small steps. The term makes long features shorter.

anchor = torch.tensor([[0.4, 0.9]])
scaled = []
for scale in (0.1, 1.0, 10.0):
    leaf = (scale * anchor).requires_grad_(True)
    length = 1.0 - similarities(leaf, positive)[0, 0]
    (slope,) = torch.autograd.grad(length, leaf)
    scaled.append((float(length.detach()), float(slope.norm())))
    print(f"length {float(leaf.detach().norm()):6.3f}   distance {scaled[-1][0]:.4f}   slope {scaled[-1][1]:.4f}")
assert all(abs(distance - scaled[0][0]) < 1e-5 for distance, _ in scaled)
assert abs(scaled[0][1] / scaled[2][1] - 100.0) < 0.1

# %%
# Erratum. The lecture's :math:`\mathcal{L}_{cls}` is the standard loss for every regulariser. In the paper of TLA it
# is the cross-entropy on attacked images, which the base ``pgd_adversarial`` stands for.
#
# Source: Mao et al. 2019, *Metric Learning for Adversarial Robustness*, equations 4 to 6. The authors look for the
# negative among ten batches, and take a second positive of the same class (``second_positive``).
