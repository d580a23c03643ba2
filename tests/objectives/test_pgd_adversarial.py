import pytest
import torch
from torch.nn import functional

from hauberk import registry
from hauberk.attacks.pgd import PGD
from hauberk.objectives.pgd_adversarial import PGDAdversarial
from hauberk.threats import L2, Linf

EPS = 0.1


def robust_loss(linear, batch, dual):
    """Mean of softplus(-(y f - eps ||w||_dual)), the exact inner maximum of a linear binary classifier."""
    f = batch.images.flatten(1) @ linear.weight + linear.bias
    signed = torch.where(batch.labels == 1, f, -f)
    return functional.softplus(-(signed - EPS * torch.linalg.vector_norm(linear.weight, ord=dual))).mean()


@pytest.mark.parametrize(("threat", "dual"), [(Linf(EPS), 1), (L2(EPS), 2)])
def test_loss_and_gradient_are_the_closed_form_of_a_linear_model(linear, inner_batch, context, threat, dual):
    objective = PGDAdversarial(PGD(threat, steps=10, step_size=3 * EPS))
    loss = objective(linear, inner_batch, context)
    found = torch.autograd.grad(loss.total, list(linear.parameters()))
    expected = robust_loss(linear, inner_batch, dual)
    wanted = torch.autograd.grad(expected, list(linear.parameters()))
    torch.testing.assert_close(loss.total, expected, rtol=1e-6, atol=0)
    for own, true in zip(found, wanted, strict=True):
        torch.testing.assert_close(own, true, rtol=1e-5, atol=1e-7)


def test_half_clean_is_the_mean_of_both_losses(linear, inner_batch, context):
    attack = PGD(Linf(EPS), steps=5, step_size=3 * EPS)
    loss = PGDAdversarial(attack, clean_fraction=0.25)(linear, inner_batch, context)
    clean = functional.cross_entropy(linear(inner_batch.images), inner_batch.labels)
    torch.testing.assert_close(loss.total, 0.75 * robust_loss(linear, inner_batch, 1) + 0.25 * clean)
    torch.testing.assert_close(loss.terms["ce_clean"], clean.detach())


def test_the_attack_leaves_the_model_as_it_was(network, batch, context):
    statistics = network[1].running_mean.clone()
    modes = [m.training for m in network.modules()]
    calls = []
    network.register_forward_pre_hook(lambda module, _: calls.append((module.training, module[0].weight.requires_grad)))
    PGDAdversarial(PGD(Linf(EPS), steps=4))(network, batch, context).total.backward()
    assert calls == [(False, False)] * 4 + [(True, True)]  # four attack steps, then one forward of training
    assert [m.training for m in network.modules()] == modes
    assert not torch.equal(network[1].running_mean, statistics)
    assert int(network[1].num_batches_tracked) == 1
    assert all(p.grad is not None for p in network.parameters())


def test_smoothing_enters_both_terms(network, batch, context):
    network.eval()
    attack = PGD(Linf(0.0), steps=1, step_size=0.1)  # no budget: both terms are the clean one
    found = PGDAdversarial(attack, clean_fraction=0.5, label_smoothing=0.2)(network, batch, context).total
    expected = functional.cross_entropy(network(batch.images), batch.labels, label_smoothing=0.2)
    torch.testing.assert_close(found, expected)


def test_it_is_its_spec():
    objective = PGDAdversarial(PGD(Linf(8 / 255), steps=7, step_size=2 / 255), clean_fraction=0.5)
    assert registry.build(registry.spec(objective), kind="objective") == objective
