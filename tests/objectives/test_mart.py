"""MART: its two terms in numpy, the limit of two classes, and stable logarithms."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hauberk.attacks.pgd import PGD
from hauberk.batch import Batch
from hauberk.conformance import check_objective
from hauberk.objectives.base import Context
from hauberk.objectives.mart import MART, boosted_cross_entropy
from hauberk.threats import L2, Linf


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_the_formula_by_hand(network, batch):
    """On the points that the attack finds, whose answers numpy takes as they are."""
    seen = []
    network.register_forward_hook(lambda module, _, out: seen.append(out.detach()) if module.training else None)
    found = MART(PGD(Linf(0.1), steps=2), weight=3.0)(network, batch, Context(torch.Generator().manual_seed(1)))
    p, q = (softmax(logits.double().numpy()) for logits in seen)  # clean, attacked
    rows, y = np.arange(16), batch.labels.numpy()
    rival = np.array([max(q[i, k] for k in range(4) if k != y[i]) for i in rows])
    bce = np.mean(-np.log(q[rows, y]) - np.log(1 - rival))
    kl = np.mean((1 - p[rows, y]) * (p * np.log(p / q)).sum(1))
    assert len(seen) == 2
    assert float(found.terms["bce"]) == pytest.approx(bce, rel=1e-5)
    assert float(found.terms["divergence"]) == pytest.approx(kl, rel=1e-4)
    assert float(found.total.detach()) == pytest.approx(bce + 3 * kl, rel=1e-5)


def test_two_classes_count_the_cross_entropy_twice():
    logits, labels = torch.randn(20, 2, generator=torch.Generator().manual_seed(1)).double(), torch.arange(20) % 2
    wanted = 2 * functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(boosted_cross_entropy(logits, labels), wanted)


def test_a_sure_answer_has_finite_loss_and_slope_on_both_sides():
    logits = torch.tensor([[200.0, 0.0, 0.0], [0.0, 200.0, 0.0]], requires_grad=True)
    found = boosted_cross_entropy(logits, torch.tensor([0, 0]))
    assert float(found[0].detach()) == 0.0
    torch.testing.assert_close(found[1].detach(), torch.tensor(400.0 - math.log(2.0)))  # -log p_y and -log 2 p_y
    found.sum().backward()
    assert bool(logits.grad.isfinite().all())


def test_the_rival_is_never_the_label():
    logits, labels = torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([0])
    p = logits.softmax(1)[0]
    torch.testing.assert_close(boosted_cross_entropy(logits, labels)[0], -p[0].log() - (1 - p[1]).log())


def test_gradients_flow_into_the_weight_and_both_outputs():
    """Without an attack the divergence and its slope vanish, and the slope of the weight times it as well."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    batch = Batch(torch.rand(6, 1, 2, 2), torch.arange(6) % 3, torch.arange(6))
    still = MART(PGD(Linf(0.0), steps=1))(model, batch, Context(torch.Generator()))
    bce = boosted_cross_entropy(model(batch.images), batch.labels).mean()
    torch.testing.assert_close(still.total, bce)
    for a, b in zip(*(torch.autograd.grad(t, list(model.parameters())) for t in (still.total, bce)), strict=True):
        torch.testing.assert_close(a, b)


def test_the_weights_gradient_is_that_of_the_whole_product(network, batch):
    network, images = network.double().eval(), batch.images.double()
    points, y = (images + 0.05).clamp(0, 1), batch.labels

    class Shift(PGD):
        def search(self, query, randomness):
            return points

    wide = Batch(images, y, batch.ids)
    found = MART(Shift(Linf(0.1), steps=1), weight=2.0)(network, wide, Context(torch.Generator())).total
    p, q = network(images).softmax(1), network(points).softmax(1)
    kl = (p * (p.log() - q.log())).sum(1)
    weighted = (1 - p.gather(1, y[:, None])[:, 0]) * kl
    total = boosted_cross_entropy(network(points), y).mean() + 2.0 * weighted.mean()
    for a, b in zip(*(torch.autograd.grad(t, list(network.parameters())) for t in (found, total)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("threat", [Linf(0.05), L2(0.2)], ids=str)
def test_the_contract(threat):
    check_objective(MART(PGD(threat, steps=2)))
