r"""
Consistency: two attacked views of one image
============================================

Consistency regularisation makes two augmentations :math:`T_1(x)` and :math:`T_2(x)` of an image, attacks each of them,
and asks for the same output on both. The outputs are sharpened by a temperature :math:`\tau`, and the Jensen-Shannon
divergence compares them:

.. math:: \mathcal{L}_{reg} = \mathrm{JS}\bigl(\hat f_\theta(T_1(x) + \delta_1, \tau) \,\|\,
    \hat f_\theta(T_2(x) + \delta_2, \tau)\bigr), \qquad
    \hat f_\theta(x, \tau) = \mathrm{Softmax}\bigl(f_\theta(x) / \tau\bigr) .

This page draws the divergence and the temperature, shows attacked augmentations, checks Hauberk's value by hand, and
measures what the regulariser does.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from hauberk import plots
from hauberk.attacks import PGD
from hauberk.batch import Batch
from hauberk.data import load
from hauberk.data.augment import Augmentation
from hauberk.objectives.base import Context
from hauberk.objectives.consistency import Consistency, jensen_shannon
from hauberk.threats import Linf

torch.set_num_threads(1)

# %%
# The divergence
# --------------
#
# With the mean :math:`m = (p + q) / 2` the divergence is :math:`\frac12 \mathrm{KL}(p \| m) + \frac12
# \mathrm{KL}(q \| m)`. It is symmetric, zero only where both outputs are the same, and at most :math:`\log 2`. The left
# panel has two outputs with two classes: :math:`p_1` goes to the right and :math:`q_1` goes up.


def pair(where: Tensor) -> Tensor:
    """The divergence of two outputs, given by the probabilities of their first class."""
    chances = torch.stack([where, 1.0 - where], 2).log()
    return jensen_shannon(chances[:, 0], chances[:, 1])


draws = torch.Generator().manual_seed(0)
first, second = torch.randn(2, 6, 4, generator=draws)
p, q = first.softmax(1), second.softmax(1)
m = (p + q) / 2
by_hand = 0.5 * (p * (p / m).log()).sum(1) + 0.5 * (q * (q / m).log()).sum(1)
torch.testing.assert_close(by_hand, jensen_shannon(first, second))
torch.testing.assert_close(jensen_shannon(first, second), jensen_shannon(second, first))
assert float(jensen_shannon(first, first).abs().max()) < 1e-6
assert bool((by_hand < math.log(2.0)).all())
print(f"six divergences, by hand and by the library: {[round(float(value), 4) for value in by_hand]}")

# %%
# The temperature
# ---------------
#
# Adversarial training leaves outputs of low confidence. A temperature below 1 sharpens them. The right panel shows the
# largest probability of an output with the logits (1, 0, 0, 0).

logits = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
sharpness = [
    {"temperature": tau, "largest probability": float((logits / tau).softmax(1).max())}
    for tau in [0.1 + 0.05 * step for step in range(59)]
]
assert all(a["largest probability"] > b["largest probability"] for a, b in pairwise(sharpness))
plots.figure(
    plots.landscape(pair, (0, 1, 0, 1), ends=(0, math.log(2.0)), axes=("p", "q"), title="JS divergence"),
    plots.curves(sharpness, "temperature", "largest probability", title="sharpening", percent=True),
)

# %%
# Erratum
# -------
#
# Erratum. The lecture prints :math:`T_1(x) + \delta_1` as both arguments of the divergence. The divergence of an output
# with itself is zero for every network, so the printed regulariser does nothing. The second argument is
# :math:`T_2(x) + \delta_2`, another augmentation with its own attack, as in the lecture's figure.
#
# Attacked augmentation
# ---------------------
#
# In training ``context.view()`` gives a fresh augmentation. Here an augmentation shifts the digit by up to one pixel.

data = load("digits")
train_set, test_set = data.train.batch(slice(0, 300)), data.test.batch()
threat = Linf(0.1)
attack = PGD(threat, steps=5)
shift = Augmentation(crop=1)


def train(weight: float, temperature: float = 0.5, steps: int = 250) -> nn.Module:
    """Adversarial training on two views, with the regulariser times a weight; the model in eval mode."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    objective = Consistency(attack, weight=weight, temperature=temperature)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        rows = torch.randint(len(train_set), (64,), generator=generator)
        whole = train_set.images[rows]

        def view(images: Tensor = whole) -> Tensor:
            return shift(images, generator, 0.0)

        batch = Batch(view(), train_set.labels[rows], train_set.ids[rows])
        context = Context(generator, progress=step / steps, augment=view)
        optimizer.zero_grad()
        torch.autograd.backward(objective(model, batch, context).total)
        optimizer.step()
    return model.eval()


plain, consistent = train(0.0), train(5.0)

views = [shift(test_set.images, torch.Generator().manual_seed(seed), 0.0) for seed in (3, 4)]


def attacked_views(model: nn.Module) -> list[Tensor]:
    """Both views of the test images, each attacked by itself."""
    context = Context(torch.Generator().manual_seed(0))
    stronger = PGD(threat, steps=20)
    return [context.attacked(stronger, model, Batch(view, test_set.labels, test_set.ids)) for view in views]


one = slice(5, 6)
moved = [image[one] for image in attacked_views(plain)]
shown = torch.cat([test_set.images[one], views[0][one], moved[0], views[1][one], moved[1]])
plots.figure(plots.pictures(shown, ["x", "T1(x)", "T1(x) + d1", "T2(x)", "T2(x) + d2"], size=110))

# %%
# The value, by hand
# ------------------
#
# The terms of one call of the objective, and the same from its parts with the same random numbers:

batch = Batch(views[0][:20], test_set.labels[:20], test_set.ids[:20])
context = Context(torch.Generator().manual_seed(0), augment=lambda: views[1][:20])
terms = Consistency(attack, temperature=0.5)(plain, batch, context).terms

context = Context(torch.Generator().manual_seed(0))
both = [context.attacked(attack, plain, Batch(view[:20], batch.labels, batch.ids)) for view in views]
with torch.no_grad():
    p, q = ((plain(images) / 0.5).softmax(1).double() for images in both)
m = (p + q) / 2
by_hand = float((0.5 * (p * (p / m).log()).sum(1) + 0.5 * (q * (q / m).log()).sum(1)).mean())
print(f"regulariser: by hand {by_hand:.6f}, library {float(terms['divergence']):.6f}")
assert abs(by_hand - float(terms["divergence"])) < 1e-5

# %%
# What it does
# ------------
#
# Each point is a test image: the probability of its label at the first and at the second attacked view. On the diagonal
# both views get the same answer. The left network is trained on two attacked views without the regulariser.

panels, apart, same = [], {}, {}
for name, model in {"without": plain, "with the regulariser": consistent}.items():
    moved = attacked_views(model)
    with torch.no_grad():
        outputs = [model(images) for images in moved]
    chances = [logits.softmax(1).gather(1, test_set.labels[:, None])[:, 0].tolist() for logits in outputs]
    pairs = [{"first view": a, "second view": b} for a, b in zip(*chances, strict=True)]
    panels.append(plots.scatter(pairs, "first view", "second view", title=name, size=260))
    apart[name] = float(jensen_shannon(outputs[0] / 0.5, outputs[1] / 0.5).mean())
    same[name] = float((outputs[0].argmax(1) == outputs[1].argmax(1)).float().mean())
    right = float((outputs[0].argmax(1) == test_set.labels).float().mean())
    print(f"{name:22} mean divergence {apart[name]:.3f}   same class {same[name]:.3f}   right at a view {right:.3f}")
plots.figure(*panels)

# %%
# With the regulariser the outputs of the two views are nearer to each other, also on images that were not trained on.

assert apart["with the regulariser"] < 0.8 * apart["without"]

# %%
# Erratum. The lecture's :math:`\mathcal{L}_{cls}` is the standard loss for every regulariser. Here it is the
# cross-entropy on both attacked views. A step has twice the passes of AT on the same batch.
#
# Source: Tack et al. 2022, *Consistency Regularization for Adversarial Robustness*. The authors augment by crop, flip,
# AutoAugment and black squares; Hauberk has no AutoAugment.
