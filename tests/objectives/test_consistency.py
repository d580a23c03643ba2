"""Consistency regularisation: its formula by hand, two views with attacks of their own, one forward pass."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from hauberk.attacks.pgd import PGD
from hauberk.batch import Batch
from hauberk.conformance import check_objective
from hauberk.errors import HauberkError
from hauberk.objectives.base import Context
from hauberk.objectives.consistency import Consistency, jensen_shannon
from hauberk.threats import L2, Linf


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_the_formula_by_hand():
    """No budget: the logits are the pixels of the two views."""
    first, second = (torch.rand(5, 1, 1, 4, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    labels = torch.arange(5) % 4
    context = Context(torch.Generator(), augment=lambda: second)
    objective = Consistency(PGD(Linf(0.0), steps=1), weight=0.7, temperature=0.25)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4, bias=False))
    model[1].weight.data.copy_(torch.eye(4))
    found = objective(model, Batch(first, labels, torch.arange(5)), context)
    z = [v.flatten(1).double().numpy() for v in (first, second)]
    ce = np.mean([-np.log(softmax(v)[range(5), labels]) for v in z])
    p, q = (softmax(v / 0.25) for v in z)
    m = (p + q) / 2
    js = (p * np.log(p / m) + q * np.log(q / m)).sum(1).mean() / 2
    assert float(found.terms["ce_adversarial"]) == pytest.approx(ce, rel=1e-5)
    assert float(found.terms["divergence"]) == pytest.approx(js, rel=1e-4)
    assert float(found.total.detach()) == pytest.approx(ce + 0.7 * js, rel=1e-5)


def test_the_divergence_is_finite_at_its_ends():
    apart = torch.tensor([[300.0, 0.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    found = jensen_shannon(apart, torch.tensor([[0.0, 300.0, 0.0], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([math.log(2.0), 0.0]))
    found.sum().backward()
    assert bool(apart.grad.isfinite().all())


def test_the_divergence_is_symmetric_and_zero_for_equal_outputs_alone():
    first, second = (3 * torch.randn(200, 5, generator=torch.Generator().manual_seed(k)).double() for k in (2, 3))
    found = jensen_shannon(first, second)
    torch.testing.assert_close(found, jensen_shannon(second, first))
    assert float(found.min()) > 0.0 and float(found.max()) <= math.log(2.0)
    shifted = jensen_shannon(first, first + 7.0)  # the same probabilities
    torch.testing.assert_close(shifted, torch.zeros(200).double(), atol=1e-12, rtol=0)
    flat = jensen_shannon(first / 1e6, second / 1e6)  # as the temperature grows
    torch.testing.assert_close(flat, torch.zeros(200).double(), atol=1e-11, rtol=0)


def test_both_views_are_attacked_and_told_in_one_pass(network, batch):
    other, seen = batch.images.flip(3), []
    network.register_forward_pre_hook(lambda module, given: seen.append((module.training, given[0].detach())))
    context = Context(torch.Generator().manual_seed(7), augment=lambda: other)
    Consistency(PGD(Linf(0.1), steps=2))(network, batch, context)
    assert [training for training, _ in seen] == [False] * 4 + [True]
    moved = seen[-1][1] - torch.cat([batch.images, other])
    assert moved.shape[0] == 32
    assert 0.05 < float(moved.abs().max()) <= 0.1 + 1e-6
    assert not torch.equal(moved[:16].flip(3), moved[16:])


def test_gradients_flow_into_both_views():
    first = torch.tensor([[1.0, 0.0]], requires_grad=True)
    second = torch.tensor([[0.0, 0.5]], requires_grad=True)
    jensen_shannon(first, second).sum().backward()
    assert float(first.grad.abs().max()) > 0.01 and float(second.grad.abs().max()) > 0.01


def test_a_context_without_views_is_refused(network, batch):
    with pytest.raises(HauberkError, match="second view"):
        Consistency(PGD(Linf(0.1), steps=1))(network, batch, Context(torch.Generator()))


@pytest.mark.parametrize("threat", [Linf(0.05), L2(0.2)], ids=str)
def test_the_contract(threat):
    check_objective(Consistency(PGD(threat, steps=2)))
