"""Customised adversarial training: budgets on a linear model, labels by hand, memory across orders and kills."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hauberk.attacks.pgd import PGD
from hauberk.batch import Batch
from hauberk.classifier import weights_hash
from hauberk.conformance import check_objective
from hauberk.data.dataset import Dataset
from hauberk.data.split import Split
from hauberk.objectives.base import Context, Objective
from hauberk.objectives.customised_adversarial import MEMORY, CustomisedAdversarial, dirichlet, soft_labels
from hauberk.objectives.pgd_adversarial import PGDAdversarial
from hauberk.objectives.standard import Standard
from hauberk.randomness import PerSample, Shared
from hauberk.runs import Run
from hauberk.threats import L2, Linf
from hauberk.training.config import Training
from hauberk.training.loop import fit

EPS, ETA = 0.03, 0.004
THREATS = [(Linf(EPS), 1), (L2(EPS), 2)]


def settings(threat: Linf | L2 = THREATS[0][0], **more: float) -> CustomisedAdversarial:
    return CustomisedAdversarial(PGD(threat, steps=12, step_size=0.5), eta=ETA, **more)


def spread(linear: nn.Module, dual: int) -> tuple[Batch, torch.Tensor]:
    """Images whose distances from the boundary go from beyond it (wrong) to twice the budget, and the distances."""
    generator = torch.Generator().manual_seed(6)
    images = 0.4 + 0.2 * torch.rand(24, 3, 2, 2, generator=generator, dtype=torch.float64)
    labels = torch.arange(24) % 2
    w, b = linear.weight.detach(), linear.bias.detach()
    reach = torch.linspace(-0.0101, 0.0603, 24, dtype=torch.float64)
    wanted = reach * torch.linalg.vector_norm(w, ord=dual)
    flat = images.flatten(1)
    shift = (torch.where(labels == 1, wanted, -wanted) - flat @ w - b) / w.square().sum()
    images = (flat + shift[:, None] * w).reshape(images.shape)
    assert float(images.min()) > 0.1 and float(images.max()) < 0.9
    return Batch(images, labels, 1000 + 7 * torch.arange(24)), reach


@pytest.mark.parametrize(("threat", "dual"), THREATS, ids=str)
def test_budgets_end_within_eta_of_the_true_radius(linear, context, threat, dual):
    batch, reach = spread(linear, dual)
    objective = settings(threat)
    for visit in range(1, 13):
        objective(linear, batch, context)
        found = np.array([context.state[MEMORY][i] for i in batch.ids.tolist()])
        steps = np.floor(np.maximum(reach.numpy(), 0.0) / ETA)  # how often the sample withstands, written down
        expected = np.where(reach.numpy() > EPS, EPS, steps * ETA)
        np.testing.assert_allclose(found, np.minimum(expected, visit * ETA), rtol=1e-6, atol=1e-9)
    true = reach.clamp(0.0, EPS).numpy()
    assert np.all(found <= true + 1e-9) and np.all(found > true - ETA - 1e-9)
    assert int((found == 0).sum()) >= 2 and int((found > EPS - 1e-9).sum()) >= 8


@pytest.mark.parametrize("margin", [0.0, 0.7])
@pytest.mark.parametrize(("threat", "dual"), THREATS, ids=str)
def test_the_loss_is_that_of_the_worst_point_and_the_soft_label(linear, threat, dual, margin):
    """A binary linear model: the worst logit of each row is f - y r ||w||_q, and the rest is arithmetic."""
    batch, reach = spread(linear, dual)
    own = torch.linspace(0, 0.028, 24, dtype=torch.float64)
    context = Context(torch.Generator().manual_seed(7))
    context.state[MEMORY] = dict(zip(batch.ids.tolist(), own.tolist(), strict=True))
    loss = settings(threat, smoothing=12.0, margin=margin, kappa=2.0)(linear, batch, context)
    again = Shared(torch.Generator().manual_seed(7), 24)
    again.uniform(3, 2, 2) if dual == 1 else again.normal(3, 2, 2)  # the attack's start
    if dual == 2:
        again.uniform()
    tried = (own + ETA).clamp_max(EPS)
    kept = torch.where(reach > tried, tried, own)
    np.testing.assert_allclose([context.state[MEMORY][i] for i in batch.ids.tolist()], kept, atol=1e-6)
    f = batch.images.flatten(1) @ linear.weight + linear.bias
    sign = 2.0 * batch.labels - 1.0
    worst = f - sign * tried * torch.linalg.vector_norm(linear.weight, ord=dual)
    logits = torch.stack([torch.zeros_like(worst), worst], 1)
    target = (1 - 12 * kept)[:, None] * functional.one_hot(batch.labels, 2)
    target = target + (12 * kept)[:, None] * dirichlet(again, 2, 1)
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    if margin:
        expected = expected + margin * (kept * (2.0 - sign * worst).clamp_min(0)).mean()
    torch.testing.assert_close(loss.total, expected, rtol=1e-4, atol=0)
    found = torch.autograd.grad(loss.total, list(linear.parameters()))
    for mine, true in zip(found, torch.autograd.grad(expected, list(linear.parameters())), strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-3, atol=1e-6)


def test_the_label_keeps_what_the_budget_leaves():
    labels, softness = torch.tensor([2, 0, 1]), torch.tensor([0.0, 0.3, 1.0])
    direction = dirichlet(PerSample(0, range(3), "d"), 3, 1)
    found = soft_labels(labels, softness, direction)
    torch.testing.assert_close(found.sum(1), torch.ones(3))
    own = found.gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(own, 1 - softness + softness * direction.gather(1, labels[:, None])[:, 0])
    assert torch.equal(found[0], torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(found[2], direction[2])


@pytest.mark.parametrize("concentration", [1, 5])
def test_directions_are_symmetric_dirichlet_draws(concentration):
    """Mean 1/K and variance (K - 1) / (K^2 (K beta + 1))."""
    draws = dirichlet(Shared(torch.Generator().manual_seed(1), 40_000), 4, concentration)
    torch.testing.assert_close(draws.sum(1), torch.ones(40_000))
    torch.testing.assert_close(draws.mean(0), torch.full((4,), 0.25), atol=0.004, rtol=0)
    variance = torch.full((4,), 3 / (16 * (4 * concentration + 1)))
    torch.testing.assert_close(draws.var(0), variance, atol=0.0, rtol=0.05)


def test_with_budgets_at_their_end_and_hard_labels_it_is_adversarial_training(network, batch):
    attack = PGD(Linf(0.05), steps=3)
    full = {MEMORY: dict.fromkeys(range(16), 0.05)}
    method = CustomisedAdversarial(attack, smoothing=0.0)
    network.eval()  # so that neither evaluation moves the statistics
    found = method(network, batch, Context(torch.Generator().manual_seed(1), state=full))
    expected = PGDAdversarial(attack)(network, batch, Context(torch.Generator().manual_seed(1)))
    torch.testing.assert_close(found.total, expected.total)


def test_the_defaults_are_the_paper_s_in_proportion(linear, context):
    batch, _ = spread(linear, 1)
    for eps, eta in ((8 / 255, 0.005), (4 / 255, 0.0025)):
        context.state.clear()
        CustomisedAdversarial(PGD(Linf(eps), steps=4))(linear, batch, context)
        assert max(context.state[MEMORY].values()) == pytest.approx(eta, rel=1e-6)
    losses = []
    for more in ({}, {"smoothing": 10.0, "eta": 0.005}, {"smoothing": 9.0}):
        start = {MEMORY: dict.fromkeys(batch.ids.tolist(), 0.02)}
        method = CustomisedAdversarial(PGD(Linf(8 / 255), steps=4), **more)
        loss = method(linear, batch, Context(torch.Generator().manual_seed(2), state=start))
        losses.append(float(loss.total.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6) != pytest.approx(losses[2], rel=1e-6)
    with pytest.raises(ValueError, match="at most 10"):
        CustomisedAdversarial(PGD(Linf(0.1)), smoothing=10.1)


def test_a_sample_s_budget_belongs_to_its_id_alone(linear):
    whole, parts = Context(torch.Generator().manual_seed(1)), Context(torch.Generator().manual_seed(2))
    batch, _ = spread(linear, 1)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(3))
    for _ in range(5):
        settings()(linear, batch, whole)
        for rows in order.split(7):
            settings()(linear, batch.select(rows), parts)
    assert sorted(whole.state[MEMORY]) == sorted(batch.ids.tolist())
    assert whole.state[MEMORY] == pytest.approx(parts.state[MEMORY], rel=1e-12)


def test_all_processes_remember_all_rows(linear):
    batch, _ = spread(linear, 1)
    whole = Context(torch.Generator().manual_seed(1))
    settings()(linear, batch, whole)
    kept: list[torch.Tensor] = []
    for own in (slice(0, 9), slice(9, 24)):
        context = Context(torch.Generator().manual_seed(1), offset=own.start, total=24)
        seen: list[torch.Tensor] = []
        context.add = lambda rows, seen=seen: seen.append(rows) or rows
        settings()(linear, batch.select(own), context)
        kept.append(torch.stack([seen[0].double(), seen[1].double()]))
    ids, budgets = kept[0] + kept[1]
    assert dict(zip(ids.long().tolist(), budgets.tolist(), strict=True)) == pytest.approx(whole.state[MEMORY])


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.3)], ids=str)
def test_the_contract(threat):
    check_objective(CustomisedAdversarial(PGD(threat, steps=2)))
    check_objective(CustomisedAdversarial(PGD(threat, steps=2), margin=1.0, concentration=3))


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
    config = Training(epochs=4, batch_size=16, lr=0.1, threads=1, checkpoint_minutes=1e-9)
    objective = CustomisedAdversarial(PGD(Linf(0.1), steps=2))
    whole, broken = (Run.create(tmp_path / name, {}) for name in ("whole", "broken"))
    expected = weights_hash(fit(build(), objective, dataset, config, whole, seed=4))
    assert weights_hash(in_pieces(lambda: fit(build(), objective, dataset, config, broken, seed=4))) == expected
    states = [
        torch.load(run.checkpoints / "training.pt", weights_only=True)["content"]["state"][MEMORY]
        for run in (whole, broken)
    ]
    assert states[0] == states[1]
    assert sorted(states[0]) == list(range(100, 164))
    assert len(set(states[0].values())) > 2


def test_budgets_that_may_fall_stay_at_the_true_radius(linear, context):
    """Fooled at 0 they stay there; elsewhere they go to and fro around the last multiple of eta that is withstood."""
    batch, reach = spread(linear, 1)
    for _ in range(30):
        settings(falls=True)(linear, batch, context)
    found = torch.tensor([context.state[MEMORY][i] for i in batch.ids.tolist()], dtype=torch.float64)
    assert bool((found >= 0).all()) and bool((found - reach.clamp(0, EPS)).abs().max() <= 2 * ETA)
    start = {MEMORY: dict.fromkeys(batch.ids.tolist(), 0.028)}
    falling = Context(torch.Generator().manual_seed(2), state=start)
    settings(falls=True)(linear, batch, falling)
    weak = batch.ids[reach < 0.0299].tolist()
    assert [falling.state[MEMORY][i] for i in weak] == pytest.approx([0.024] * len(weak), abs=1e-6)


# --- the lecture's picture: two classes that are near each other on the left and far apart on the right ------------

WIDE, NARROW = Linf(0.15), Linf(0.02)


def points(seed: int, count: int = 160) -> tuple[Batch, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels, near = torch.arange(count) % 2, (torch.arange(count) // 2) % 2 == 0
    across = torch.where(near, 0.05, 0.6) + 0.35 * torch.rand(count, generator=generator)
    height = torch.where(near, 0.04, 0.2) + 0.03 * torch.rand(count, generator=generator)
    wave = 0.5 + 0.15 * torch.sin(18.0 * across) * near
    plane = torch.stack([across, wave + (2.0 * labels - 1.0) * height], 1)
    return Batch(plane[:, None, None], labels, torch.arange(count)), near


def taught(objective: Objective) -> tuple[nn.Module, Context]:
    torch.manual_seed(0)
    layers = [nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)]
    net, context = nn.Sequential(nn.Flatten(), *layers), Context(torch.Generator().manual_seed(1))
    optimizer, (batch, _) = torch.optim.Adam(net.parameters(), 0.01), points(0)
    for _ in range(250):
        optimizer.zero_grad()
        objective(net, batch, context).total.backward()
        optimizer.step()
    return net.eval(), context


def test_the_lecture_s_four_panels():
    batch, near = points(1)
    clean, robust = {}, {}
    attack = PGD(WIDE, steps=5)
    for name, objective in {
        "standard": Standard(), "small": PGDAdversarial(PGD(NARROW, steps=5)), "large": PGDAdversarial(attack),
        "own": CustomisedAdversarial(attack, eta=0.005, smoothing=0.0, falls=True),
    }.items():  # fmt: skip
        net, context = taught(objective)
        clean[name] = float((net(batch.images).argmax(1) == batch.labels).float().mean())
        robust[name] = float((~PGD(WIDE, steps=10)(net, batch).success)[~near].float().mean())
    assert clean["standard"] > clean["small"] > clean["own"] > clean["large"] + 0.03
    assert robust["own"] == robust["large"] == 1.0 > robust["standard"] + 0.3
    own = torch.tensor([context.state[MEMORY][i] for i in range(160)])
    assert float(own[near].mean()) < 0.1 < 0.14 < float(own[~near].mean())


def test_budgets_that_never_fall_end_at_the_largest_for_all():
    """What the definition comes to where a net wavers: also samples near the boundary withstand now and then."""
    _, context = taught(CustomisedAdversarial(PGD(WIDE, steps=5), eta=0.005, smoothing=0.0))
    assert float(torch.tensor(list(context.state[MEMORY].values())).mean()) > 0.14
