r"""MMCert: an input of several modalities
========================================

The lecture's last certificate (slides *Certified Defenses - Extending to Multi-modal inputs*) is for inputs of
:math:`T` modalities, :math:`M = (m_1, \dots, m_T)`, with :math:`n_i` elements each.  An attacker changes, adds or
deletes at most :math:`r_i` elements of modality :math:`i`, of all modalities at once.  The defence votes over random
sub-samples :math:`Z = (z_1, \dots, z_T)` of :math:`k_i` elements each.  Hauberk has the sub-samples as the random step
``ablation`` and the certificate as ``mmcert``.

Source: Wang et al. 2024.
"""

# %%
# Two sensors
# -----------
# As in ``examples/two_modalities.py``, the first modality holds the grey values of a digit of 8 x 8 pixels, and the
# second one its gradient, across and down, as two sensors would give them.  Each modality has 64 elements.  A
# sub-sample keeps 12 of each and sets the others to 0.

import math
from dataclasses import replace
from fractions import Fraction
from typing import get_args

import torch
from torch import nn

from hauberk import plots, statistics
from hauberk.batch import Batch
from hauberk.certificates import MMCert
from hauberk.certificates.mmcert import Kind, Modality, least_margin, lecture_certified, most_edits
from hauberk.data import load
from hauberk.evaluation.metrics import certified_accuracy
from hauberk.noises import RandomStep
from hauberk.randomness import Shared

torch.set_num_threads(1)
KEPT, ALPHA, N = 12, 0.001, 1000
certificate = MMCert("channels", size=(8, 8), parts=(1, 2), kept=(KEPT, KEPT), n0=100, n=N, alpha=ALPHA)


def sensed(batch: Batch) -> Batch:
    """Grey values and gradients, (B, 3, 8, 8), from 0.1 to 1: what a sub-sample leaves out is 0."""
    grey = batch.images
    across, down = torch.full_like(grey, 0.5), torch.full_like(grey, 0.5)
    across[..., 1:-1] += (grey[..., 2:] - grey[..., :-2]) / 2
    down[..., 1:-1, :] += (grey[..., 2:, :] - grey[..., :-2, :]) / 2
    return replace(batch, images=0.1 + 0.9 * torch.cat([grey, across, down], 1))


digits = load("digits")
train, test = sensed(digits.train.batch()), sensed(digits.test.batch(slice(0, 100)))
draws = torch.Generator().manual_seed(0)
sub_samples = certificate.step.noisy(test.images[:3], Shared(draws, 3))
seen = (sub_samples > 0).flatten(2).sum(2)
assert seen.tolist() == [[KEPT] * 3] * 3  # the two channels of the second modality are kept together
shown = torch.stack([test.images[:3, :2], sub_samples[:, :2]], 1).flatten(0, 2)[:, None]
names = [f"{what}{kind}" for _ in range(3) for kind in ("", ", sub-sample") for what in ("grey", "across")]
plots.figure(plots.pictures(shown, names, columns=4, size=120))

# %%
# The condition, by hand
# ----------------------
# Let :math:`n'_i` be the number of elements after the attack, and :math:`e_i` the number of those that were there
# before and still are.  There are
#
# .. math:: D = \prod_i \binom{n_i}{k_i}, \qquad D' = \prod_i \binom{n'_i}{k_i}, \qquad E = \prod_i \binom{e_i}{k_i}
#
# sub-samples before, after, and both times.  With the bounds :math:`\underline{p_A}` and :math:`\overline{p_B}` the
# lecture's condition reads
#
# .. math:: \frac{D}{D'} \Big(\underline{p_A} - \delta_l - 1 + \frac{E}{D}\Big)
#           \ge \frac{D}{D'} (\overline{p_B} + \delta_u) + 1 - \frac{E}{D'} .
#
# The numbers :math:`\delta_l, \delta_u` round the bounds to whole numbers of sub-samples.
#
# **Erratum.** Three things on the slides differ from what is proved.  The binomials of the first fraction have
# :math:`k'_i` for :math:`k_i`.  The slide sets :math:`e_i = n_i - r_i`, which is right for changes and deletions; where
# elements are added, all old ones remain, and :math:`e_i = n_i`.  And :math:`\ge` must be :math:`>`: at a tie the vote
# may go to the rival.  Also, what is certified is the vote and not :math:`f_\theta`.
#
# The code takes the condition in exact integers, and compares it with the library's for all three kinds of attacks.


def by_hand(p_a: Fraction, n: int, k: int, r: int, kind: str) -> bool:
    """The condition for two modalities of n elements, with the rivals at 1 - p_A."""
    after = {"change": n, "add": n + r, "delete": n - r}[kind]
    untouched = n if kind == "add" else n - r
    before, later, both = math.comb(n, k) ** 2, math.comb(after, k) ** 2, math.comb(untouched, k) ** 2
    a = math.ceil(before * p_a)
    b = before - a
    return max(0, a - before + both) > min(b, both) + later - both


compared = 0
for kind in get_args(Kind):
    for r in range(6):
        for share in (0.6, 0.8, 0.95, 0.999):
            p_a = Fraction(share)
            edited = [Modality(64, KEPT, r, kind)] * 2
            assert by_hand(p_a, 64, KEPT, r, kind) == (least_margin(p_a, 1 - p_a, edited) > 0)
            compared += 1
print(f"{compared} conditions agree")

# %%
# A tie shows why the sign must be strict.  With 4 elements of which 1 is kept, and 3 of 4 sub-samples for class A, one
# change can make it 2 against 2.  The printed condition accepts this.

tie = [Modality(4, 1, 1, "change")]
print(f"at a tie: the slide's condition {lecture_certified(Fraction(3, 4), Fraction(1, 4), tie)}, ", end="")
print(f"margin left {least_margin(Fraction(3, 4), Fraction(1, 4), tie)}")
assert lecture_certified(Fraction(3, 4), Fraction(1, 4), tie)
assert least_margin(Fraction(3, 4), Fraction(1, 4), tie) == 0

# %%
# How many edits a vote withstands
# --------------------------------
# The figure shows the largest :math:`r` for both modalities at once against :math:`\underline{p_A}`, for the three
# kinds of attacks.  Changes are the worst: an added element can be left out by a sub-sample, and a deleted one brings
# nothing new.

rows, reach = [], {}
for kind in get_args(Kind):
    for step in range(50, 100):
        p_a = Fraction(step, 100)
        reach[kind, step] = max(0, most_edits(p_a, 1 - p_a, [Modality(64, KEPT, 0, kind)] * 2))
        rows.append({"p_A": step / 100, "edits of each modality": reach[kind, step], "attack": kind})
assert all(reach["change", s] <= min(reach["add", s], reach["delete", s]) for s in range(50, 100))
plots.figure(plots.curves(rows, "p_A", "edits of each modality", "attack"))

# %%
# Certified accuracy
# ------------------
# The base net meets a fresh sub-sample of every image at every step of its training.  Then 1000 sub-samples vote on
# each test image, and the bound of Clopper and Pearson goes into the condition.  By hand, for one image:
# :math:`\underline{p_A}` from the votes, then the largest :math:`r`.


def train_on(step: RandomStep) -> nn.Module:
    """A small net that meets a fresh sub-sample of every image at every step."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(192, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for _ in range(40):
        for part in torch.split(torch.randperm(len(train), generator=generator), 64):
            batch = train.select(part)
            seen = step.noisy(batch.images, Shared(generator, len(batch)))
            loss = nn.functional.cross_entropy(net(seen), batch.labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return net.eval()


model = train_on(certificate.step)
found = certificate(model, test, seed=0)
radii = found.radius.numpy()
image = int(found.radius.argmax())
counts = found.rows[image]["counts"]
chosen = max(range(10), key=found.rows[image]["counts0"].__getitem__)
p_a = Fraction(statistics.clopper_pearson_lower(counts[chosen], N, ALPHA))
edits = most_edits(p_a, 1 - p_a, [Modality(64, KEPT)] * 2)
print(f"{counts[chosen]} of {N} votes: p_A >= {float(p_a):.4f}, {edits} by hand, {radii[image]:.0f} by Hauberk")
assert edits == int(radii[image])

# %%
# This is the certified accuracy over the number of elements that are changed in each modality.  All of the attacker's
# edits of both modalities are covered at once.  A vote over larger sub-samples is more accurate, and withstands less:
# with 24 of 64 elements, six sub-samples in ten meet a changed element, so that not even an undivided vote is certified
# for one change of each modality.

many = replace(certificate, kept=(24, 24))
assert most_edits(Fraction(1), Fraction(0), [Modality(64, 24)] * 2) == 0
rows, shares = [], {}
for name, (proof, net) in {"12 kept": (certificate, model), "24 kept": (many, train_on(many.step))}.items():
    found = proof(net, test, seed=0)
    right, radii = (found.prediction == test.labels).numpy(), found.radius.numpy()
    shares[name] = [certified_accuracy(right, radii, r).value for r in range(4)]
    print(f"{name:8} certified accuracy for r = 0 to 3:", ", ".join(f"{share:.2f}" for share in shares[name]))
    assert shares[name] == sorted(shares[name], reverse=True)
    rows += [
        {"edits of each modality": f"r = {r}", "certified accuracy": share, "sub-sample": name}
        for r, share in enumerate(shares[name][:3])
    ]
assert shares["24 kept"][0] > shares["12 kept"][0]
assert shares["12 kept"][1] > shares["24 kept"][1] == 0
plots.figure(plots.bars(rows, "edits of each modality", "certified accuracy", "sub-sample", percent=True))

# %%
# Segmentation needs one guarantee for each pixel.  Hauberk certifies it with Holm's correction over the pixels of an
# image (``hauberk.certificates.segmentation``, see ``docs/multimodal.md``).
