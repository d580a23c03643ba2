"""IAAT: budgets in closed form on a linear model, memory by sample id, and a resume to the last bit."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hauberk import registry
from hauberk.attacks.pgd import PGD
from hauberk.batch import Batch
from hauberk.classifier import weights_hash
from hauberk.conformance import check_objective
from hauberk.data.dataset import Dataset
from hauberk.data.split import Split
from hauberk.objectives.base import Context
from hauberk.objectives.iaat import IAAT, MEMORY
from hauberk.randomness import Shared
from hauberk.runs import Run
from hauberk.threats import L1, L2, Linf
from hauberk.training.config import Training
from hauberk.training.loop import fit

EPS, GAMMA, BETA = 0.02, 0.01, 0.25
THREATS = [(Linf(EPS), 1), (L2(EPS), 2), (L1(EPS), np.inf)]


def settings(threat, **others):
    """A step as large as any ball, so that PGD ends at the worst point of a linear model."""
    return IAAT(threat, **{"steps": 3, "warmup": 0, "gamma": GAMMA, "beta": BETA, "least_step": 1.0} | others)


def distances(linear, batch, dual):
    """Signed distance of each image from the decision boundary."""
    f = (batch.images.flatten(1).numpy() @ linear.weight.detach().numpy()) + float(linear.bias.detach())
    signed = np.where(batch.labels.numpy() == 1, f, -f)
    return signed / np.linalg.norm(linear.weight.detach().numpy(), ord=dual)


def later(budgets, reach):
    """Algorithm 2 by hand, for images whose true radius is known."""
    new = []
    for e, r in zip(budgets, reach, strict=True):
        if r <= 0:
            wanted = 0.0
        elif r > e + GAMMA:
            wanted = e + GAMMA
        elif r > e:
            wanted = e
        else:
            wanted = max(0.0, e - GAMMA)
        new.append((1 - BETA) * e + BETA * wanted)
    return np.array(new)


def spread(linear, dual):
    """24 images at signed distances from -0.01 to 0.05."""
    generator = torch.Generator().manual_seed(6)
    images = 0.4 + 0.2 * torch.rand(24, 3, 2, 2, generator=generator, dtype=torch.float64)
    labels = torch.arange(24) % 2
    w, b = linear.weight.detach(), linear.bias.detach()
    wanted = torch.linspace(-0.0101, 0.0503, 24, dtype=torch.float64) * torch.linalg.vector_norm(w, ord=dual)
    flat = images.flatten(1)
    shift = (torch.where(labels == 1, wanted, -wanted) - flat @ w - b) / w.square().sum()
    images = (flat + shift[:, None] * w).reshape(images.shape)
    assert float(images.min()) > 0.1
    assert float(images.max()) < 0.9
    return Batch(images, labels, 1000 + 7 * torch.arange(24))


@pytest.mark.parametrize(("threat", "dual"), THREATS, ids=lambda v: str(v))
def test_budgets_follow_the_true_radius_of_a_linear_model(linear, context, threat, dual):
    batch, objective = spread(linear, dual), settings(threat)
    reach, expected = distances(linear, batch, dual), np.full(24, EPS)
    for _ in range(40):
        objective(linear, batch, context)
        expected = later(expected, reach)
        found = [context.state[MEMORY][i] for i in batch.ids.tolist()]
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    wrong = reach <= 0
    assert 2 <= wrong.sum() <= 10
    assert max(expected[wrong]) < EPS * 0.75**39
    assert max(expected) > EPS + GAMMA  # a budget may outgrow the threat's
    right = ~wrong & (reach > GAMMA)
    assert np.all(np.abs(expected - reach)[right] < GAMMA + 1e-9)


@pytest.mark.parametrize(("threat", "dual"), THREATS, ids=lambda v: str(v))
def test_the_loss_is_taken_at_the_worst_point_of_each_budget(linear, context, threat, dual):
    batch = spread(linear, dual)
    own = np.linspace(0, 0.03, 24)
    context.state[MEMORY] = dict(zip(batch.ids.tolist(), own.tolist(), strict=True))
    loss = settings(threat)(linear, batch, context)
    reach = distances(linear, batch, dual)
    budgets = torch.from_numpy(later(own, reach))
    f = batch.images.flatten(1) @ linear.weight + linear.bias
    signed = torch.where(batch.labels == 1, f, -f)
    expected = functional.softplus(-(signed - budgets * torch.linalg.vector_norm(linear.weight, ord=dual))).mean()
    torch.testing.assert_close(loss.total, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(loss.terms["budget"], budgets.mean())
    found = torch.autograd.grad(loss.total, list(linear.parameters()))
    for mine, true in zip(found, torch.autograd.grad(expected, list(linear.parameters())), strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-5, atol=1e-7)


def test_in_the_warm_up_the_budget_is_the_threat_s_or_none(linear, context):
    batch = spread(linear, 1)
    objective = settings(Linf(EPS), warmup=2)
    for context.epoch in (0, 1):
        objective(linear, batch, context)
        found = np.array([context.state[MEMORY][i] for i in batch.ids.tolist()])
        np.testing.assert_array_equal(found, np.where(distances(linear, batch, 1) > 0, EPS, 0.0))
    context.epoch = 2
    objective(linear, batch, context)
    after = [context.state[MEMORY][i] for i in batch.ids.tolist()]
    np.testing.assert_allclose(after, later(found, distances(linear, batch, 1)), rtol=1e-9)


def test_the_warm_up_is_pgd_training_where_the_network_is_right(network, batch, context):
    """The step of the authors, 2 eps / steps, from the same start: the same bits as PGD's."""
    with torch.no_grad():
        labels = network.eval()(batch.images).argmax(1)
    network.train()
    same = Batch(batch.images, labels, batch.ids)
    expected = PGD(Linf(EPS), steps=4, step_size=2 * EPS / 4).perturb(
        network, same.images, labels, Shared(torch.Generator().manual_seed(7), 16)
    )
    seen = []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    IAAT(Linf(EPS), steps=4)(network, same, context)
    torch.testing.assert_close(seen[-1], expected, rtol=0, atol=1e-7)


def test_the_attack_leaves_the_model_as_it_was(network, batch):
    for warmup, passes in ((1, 1 + 4), (0, 1 + 2 * (4 + 1) + 4)):
        model, calls = copy.deepcopy(network), []
        model.register_forward_pre_hook(
            lambda module, _, calls=calls: calls.append((module.training, module[0].weight.requires_grad))
        )
        context = Context(torch.Generator().manual_seed(7))
        IAAT(Linf(0.1), steps=4, warmup=warmup)(model, batch, context).total.backward()
        assert calls == [(False, False)] * passes + [(True, True)]
        assert int(model[1].num_batches_tracked) == 1
        assert all(p.grad is not None for p in model.parameters())


def test_a_sample_s_budget_belongs_to_its_id_alone(linear):
    """The same samples in another order and in other batches, for an attack that ends at the corner."""
    whole, parts = Context(torch.Generator().manual_seed(1)), Context(torch.Generator().manual_seed(2))
    batch, objective = spread(linear, 1), settings(Linf(EPS))
    order = torch.randperm(24, generator=torch.Generator().manual_seed(3))
    for _ in range(5):
        objective(linear, batch, whole)
        for rows in order.split(7):
            objective(linear, batch.select(rows), parts)
    assert sorted(whole.state[MEMORY]) == sorted(batch.ids.tolist())
    assert whole.state[MEMORY] == pytest.approx(parts.state[MEMORY], rel=1e-12)


def test_points_stay_in_their_own_ball(network, batch):
    budgets = torch.linspace(0, 0.3, 16)
    for threat in (Linf(0.1), L2(0.1), L1(0.1)):
        found = IAAT(threat, steps=3)._attacked(network.eval(), batch, budgets, Shared(torch.Generator(), 16))
        apart = threat.distance(found, batch.images)
        assert bool((apart <= budgets + 1e-6).all())
        assert bool((apart[8:] > 0.1).any())
        assert bool(((found >= 0) & (found <= 1)).all())


@pytest.mark.parametrize("warmup", [0, 1])
@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.3)], ids=str)
def test_the_contract(threat, warmup):
    check_objective(IAAT(threat, steps=2, warmup=warmup))


def noise(name: str, count: int, first: int) -> Split:
    generator = torch.Generator().manual_seed(first)
    labels = torch.arange(count) % 2
    images = torch.randint(0, 192, (count, 1, 4, 4), generator=generator) + 60 * labels[:, None, None, None]
    return Split(name, images.to(torch.uint8), labels, torch.arange(first, first + count))


def test_resuming_at_every_step_gives_the_same_bits_and_budgets(tmp_path, in_pieces):
    def build() -> nn.Module:
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))

    dataset = Dataset("noise", ("a", "b"), noise("train", 64, 100), noise("val", 16, 500), noise("test", 4, 0))
    config = Training(epochs=5, batch_size=16, lr=0.1, threads=1, checkpoint_minutes=1e-9)
    objective = IAAT(Linf(0.1), steps=2, warmup=1)
    whole, broken = (Run.create(tmp_path / name, {}) for name in ("whole", "broken"))
    expected = weights_hash(fit(build(), objective, dataset, config, whole, seed=4))
    found = in_pieces(lambda: fit(build(), objective, dataset, config, broken, seed=4))
    assert weights_hash(found) == expected
    states = [
        torch.load(run.checkpoints / "training.pt", weights_only=True)["content"]["state"][MEMORY]
        for run in (whole, broken)
    ]
    assert states[0] == states[1]
    assert sorted(states[0]) == list(range(100, 164))
    assert len(set(states[0].values())) > 6


def test_it_is_its_spec_and_impossible_settings_are_refused():
    objective = IAAT(L2(0.5), steps=7, warmup=3, gamma=0.1, beta=0.2, least_step=0.05)
    assert registry.build(registry.spec(objective), kind="objective") == objective
    for wrong in ({"beta": 1.5}, {"gamma": -0.1}, {"warmup": -1}, {"steps": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            replace(objective, **wrong)
