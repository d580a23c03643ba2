"""Adversarial logit pairing: the closed form of a linear model, its special case, and its gradient."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional

from hauberk import registry
from hauberk.attacks.pgd import PGD
from hauberk.batch import Batch
from hauberk.conformance import check_objective
from hauberk.objectives.alp import ALP
from hauberk.objectives.base import Context
from hauberk.objectives.pgd_adversarial import PGDAdversarial
from hauberk.threats import L2, Linf

EPS = 0.1
ATTACK = PGD(Linf(EPS), steps=3)


def fresh() -> Context:
    return Context(torch.Generator().manual_seed(7))


@pytest.mark.parametrize("objective", [ALP(ATTACK), ALP(ATTACK, weight=2.0, clean_fraction=0.0)], ids=["half", "none"])
def test_the_contract(objective):
    check_objective(objective)


@pytest.mark.parametrize("share", [0.0, 0.25])
@pytest.mark.parametrize(("threat", "dual"), [(Linf(EPS), 1), (L2(EPS), 2)])
def test_loss_and_gradient_are_the_closed_form_of_a_linear_model(linear, inner_batch, context, threat, dual, share):
    """Every attack on logits (0, f) moves f by eps ||w||_dual, so the pairing is half of its square."""
    attack = PGD(threat, steps=10, step_size=3 * EPS)
    loss = ALP(attack, weight=0.7, clean_fraction=share)(linear, inner_batch, context)
    found = torch.autograd.grad(loss.total, list(linear.parameters()))

    f = inner_batch.images.flatten(1) @ linear.weight + linear.bias
    signed = torch.where(inner_batch.labels == 1, f, -f)
    moved = EPS * torch.linalg.vector_norm(linear.weight, ord=dual)
    adversarial, clean = functional.softplus(moved - signed).mean(), functional.softplus(-signed).mean()
    expected = (1 - share) * adversarial + share * clean + 0.7 * moved.square() / 2
    wanted = torch.autograd.grad(expected, list(linear.parameters()))

    torch.testing.assert_close(loss.total, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(loss.terms["pairing"], (moved.square() / 2).detach(), rtol=1e-6, atol=0)
    for own, true in zip(found, wanted, strict=True):
        torch.testing.assert_close(own, true, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_without_weight_it_is_adversarial_training_to_the_last_bit(network, batch, share):
    twin = copy.deepcopy(network)  # batch norm's statistics move with each pass
    losses = [
        ALP(ATTACK, 0.0, share, 0.1)(network, batch, fresh()),
        PGDAdversarial(ATTACK, share, 0.1)(twin, batch, fresh()),
    ]
    gradients = [
        torch.autograd.grad(loss.total, list(net.parameters()))
        for loss, net in zip(losses, (network, twin), strict=True)
    ]
    assert losses[0].terms == losses[1].terms
    assert torch.equal(losses[0].total, losses[1].total)
    assert all(torch.equal(own, other) for own, other in zip(*gradients, strict=True))


def test_the_gradient_is_that_of_central_differences_through_both_logits(network, batch):
    """At fixed attacked images, with the formula in numpy; four classes, batch norm over attacked and clean images."""
    network.double()
    batch = Batch(batch.images.double(), batch.labels, batch.ids)
    points = fresh().attacked(ATTACK, network, batch)
    assert not torch.equal(points, batch.images)

    def formula() -> float:
        with torch.no_grad():
            attacked, clean = np.split(network(torch.cat([points, batch.images])).numpy(), 2)
        rows = np.arange(len(batch))
        ce = [(np.log(np.exp(z).sum(1)) - z[rows, batch.labels.numpy()]).mean() for z in (attacked, clean)]
        return float((ce[0] + ce[1]) / 2 + 3.0 * ((attacked - clean) ** 2).sum(1).mean() / 4)

    total = ALP(ATTACK, weight=3.0)(network, batch, fresh()).total
    assert total.item() == pytest.approx(formula(), rel=1e-12)
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(total, parameters)
    generator, step = torch.Generator().manual_seed(10), 1e-5
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        values = []
        for size in (step, -2 * step):
            parameter.data += size * direction
            values.append(formula())
        parameter.data += step * direction
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(float((gradient * direction).sum()), abs=1e-6)


def test_it_is_its_spec():
    objective = ALP(ATTACK, weight=1.0, clean_fraction=0.25)
    assert registry.build(registry.spec(objective), kind="objective") == objective
