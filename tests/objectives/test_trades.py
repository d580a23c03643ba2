import pytest
import torch
from torch.nn import functional

from hauberk import registry
from hauberk.attacks.pgd import PGD
from hauberk.errors import HauberkError
from hauberk.objectives.base import Context
from hauberk.objectives.trades import TRADES, divergence
from hauberk.randomness import Shared
from hauberk.threats import Linf

BETA = 6.0
ATTACK = PGD(Linf(0.1), loss="kl", steps=5)


def gradients(objective, network, batch):
    network.zero_grad()
    loss = objective(network, batch, Context(torch.Generator().manual_seed(3)))
    return torch.autograd.grad(loss.total, list(network.parameters()))


def entropy(logits):
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1).mean()


def test_regulariser_is_zero_without_a_budget(network, batch, context):
    loss = TRADES(PGD(Linf(0.0), loss="kl", steps=3, step_size=0.1))(network, batch, context)
    assert float(loss.terms["divergence"]) == 0.0
    assert torch.equal(loss.total, functional.cross_entropy(network(batch.images), batch.labels))


def test_divergence_of_two_classes_by_hand():
    p, q = torch.tensor([0.8, 0.2], dtype=torch.float64), torch.tensor([0.5, 0.5], dtype=torch.float64)
    kl = 0.8 * torch.log(p[0] / q[0]) + 0.2 * torch.log(p[1] / q[1])
    torch.testing.assert_close(divergence("kl", p.log()[None], q.log()[None])[0], kl)
    torch.testing.assert_close(divergence("ce", p.log()[None], q.log()[None])[0], torch.tensor(2.0).log().double())


def test_kl_and_cross_entropy_give_the_same_attack_trajectory(network, batch):
    """PGD by hand on either divergence, and the attack itself, visit the same points."""
    network.eval()
    clean = network(batch.images).detach()
    start = Linf(0.1).random_point(batch.images, Shared(torch.Generator().manual_seed(4), len(batch)))
    ends = {}
    for name in ("kl", "ce"):
        x = start
        for _ in range(ATTACK.steps):
            leaf = x.clone().requires_grad_(True)
            (g,) = torch.autograd.grad(divergence(name, clean, network(leaf)).sum(), leaf)
            # away from zero gradients rounding cannot turn a sign
            x = Linf(0.1).project(x + 2.5 * 0.1 / 5 * torch.where(g.abs() > 1e-7, g, 0).sign(), batch.images)
        ends[name] = x
    assert torch.equal(ends["kl"], ends["ce"])
    found = ATTACK.perturb(network, batch.images, batch.labels, Shared(torch.Generator().manual_seed(4), len(batch)))
    torch.testing.assert_close(found, ends["kl"])


def test_theta_gradients_differ_by_that_of_the_entropy(network, batch):
    network.double()
    batch = type(batch)(batch.images.double(), batch.labels, batch.ids)
    network[1].momentum = 0.0  # running statistics stay, so that every call attacks the same eval-mode network
    kl = gradients(TRADES(ATTACK, BETA), network, batch)
    ce = gradients(TRADES(ATTACK, BETA, divergence="ce"), network, batch)
    wanted = torch.autograd.grad(BETA * entropy(network(batch.images)), list(network.parameters()))
    assert max(float(w.abs().max()) for w in wanted) > 1e-3
    for a, b, w in zip(kl, ce, wanted, strict=True):
        torch.testing.assert_close(b - a, w, rtol=1e-6, atol=1e-12)


def test_theta_gradients_are_equal_when_the_target_is_detached(network, batch):
    network[1].momentum = 0.0
    kl = gradients(TRADES(ATTACK, BETA, detach_target=True), network, batch)
    ce = gradients(TRADES(ATTACK, BETA, divergence="ce", detach_target=True), network, batch)
    for a, b in zip(kl, ce, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_exactly_two_forwards_in_train_mode(network, batch, context):
    modes = []
    network.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    TRADES(ATTACK)(network, batch, context).total.backward()
    assert modes == [False] * (ATTACK.steps + 1) + [True, True]  # one more in the attack: the clean reference
    assert int(network[1].num_batches_tracked) == 2


def test_total_is_the_sum_of_its_terms(network, batch, context):
    loss = TRADES(ATTACK, beta=3.0)(network, batch, context)
    torch.testing.assert_close(loss.total, loss.terms["ce"] + 3.0 * loss.terms["divergence"])
    assert float(loss.terms["divergence"]) > 0


def test_an_attack_on_another_loss_is_refused():
    with pytest.raises(HauberkError, match="kl"):
        registry.build({"name": "trades", "attack": {"name": "pgd", "threat": "linf:8/255"}})


def test_it_is_its_spec():
    objective = TRADES(ATTACK, beta=3.0, divergence="ce", detach_target=True, label_smoothing=0.1)
    assert registry.build(registry.spec(objective), kind="objective") == objective
