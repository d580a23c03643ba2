"""Adversarial weight perturbation: its size, the step it makes, what both evaluations share, and exact restoration."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional

from hauberk.attacks.pgd import PGD
from hauberk.batch import Batch
from hauberk.classifier import weights_hash
from hauberk.data import Augmentation
from hauberk.data.source import Source
from hauberk.errors import HauberkError
from hauberk.objectives.base import Context, Loss, Objective
from hauberk.objectives.consistency import Consistency
from hauberk.objectives.free_adversarial import FreeAdversarial
from hauberk.objectives.iaat import IAAT
from hauberk.objectives.pgd_adversarial import PGDAdversarial
from hauberk.objectives.standard import Standard
from hauberk.objectives.trades import TRADES
from hauberk.runs import Run
from hauberk.threats import Linf
from hauberk.training import checkpoints
from hauberk.training.awp import AWP
from hauberk.training.config import Training
from hauberk.training.loop import fit

PLAIN = {
    "epochs": 1, "batch_size": 32, "lr": 0.5, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0, "warmup": 0.0,
    "schedule": "constant", "validate_every": 0, "threads": 1,
}  # fmt: skip


def flat_net() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 6), nn.Softplus(), nn.Linear(6, 3))


def batch_of(rows: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(3)
    return Batch(torch.rand(rows, 1, 6, 6, generator=generator), torch.arange(rows) % 3, torch.arange(rows))


def stepped(model: nn.Module, objective: Objective, batch: Batch, context: Context, gamma: float) -> Loss:
    """One evaluation with the gradient left in the model, as the loop does it."""

    def evaluate() -> Loss:
        loss = objective(model, batch, context)
        loss.total.backward()
        return loss

    return AWP(model, gamma)(evaluate, context)


@pytest.mark.parametrize("gamma", [0.01, 0.3])
def test_every_layer_moves_by_its_share_and_comes_back_to_the_last_bit(network, gamma):
    model, batch, seen = network().train(), batch_of(), []
    before = copy.deepcopy(model.state_dict())
    model.register_forward_pre_hook(lambda m, _: seen.append({k: p.detach().clone() for k, p in m.named_parameters()}))
    stepped(model, Standard(), batch, Context(torch.Generator()), gamma)
    first, second = seen
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name])
        assert torch.equal(first[name], before[name])
        size = gamma * float(first[name].norm()) if weight.dim() > 1 else 0.0
        assert float((second[name] - first[name]).norm()) == pytest.approx(size, rel=1e-4)


def test_the_step_is_that_of_the_worst_weights_on_the_same_points(dataset, run):
    """Wu et al. 2020 written down, with one batch an epoch and plain descent."""
    objective = PGDAdversarial(PGD(Linf(0.1), steps=3))
    config = Training(**PLAIN | {"batch_size": 96, "awp": 0.2})
    found = fit(flat_net(), objective, dataset, config, run)
    points = []
    model = flat_net()
    model.register_forward_pre_hook(lambda m, given: points.append(given[0]) if m.training else None)
    fit(model, objective, dataset, Training(**PLAIN | {"batch_size": 96}), Run.create(run.path.parent / "b", {}))
    labels = Source(dataset, (), 96, 0)
    labels = labels.batch(labels.batches(0)[0]).labels
    model = flat_net()

    def gradients() -> list[torch.Tensor]:
        return list(torch.autograd.grad(functional.cross_entropy(model(points[0]), labels), list(model.parameters())))

    kept = [p.detach().clone() for p in model.parameters()]
    raising = gradients()
    with torch.no_grad():
        for p, g in zip(model.parameters(), raising, strict=True):
            if p.dim() > 1:
                p += 0.2 * p.norm() * g / g.norm()
    for own, weight, gradient in zip(found.parameters(), kept, gradients(), strict=True):
        torch.testing.assert_close(own, weight - 0.5 * gradient, rtol=1e-5, atol=1e-7)
    row = run.metrics()[0]
    assert row["perturbed_loss"] > row["loss"]  # the perturbation raises the loss; both are logged


@dataclass(frozen=True)
class Noisy(Objective):
    """Noise from both generators after an attack: what must be drawn alike twice."""

    attack: PGD

    def __call__(self, model, batch, context):
        points = self.attack.perturb(model, batch.images, batch.labels, context.randomness(len(batch)))
        own, other = context.randomness(len(batch)).normal(1, 6, 6), torch.randn_like(points)
        return Loss(functional.cross_entropy(model(points + 0.1 * own + 0.1 * other), batch.labels), {})


ATTACK = PGD(Linf(0.1), steps=2)
OBJECTIVES = [
    (Standard(), 0, 1), (PGDAdversarial(ATTACK, clean_fraction=0.5), 2, 1), (Consistency(ATTACK), 4, 1),
    (TRADES(PGD(Linf(0.1), steps=2, loss="kl")), 3, 2), (Noisy(ATTACK), 2, 1), (FreeAdversarial(Linf(0.1)), 0, 1),
]  # fmt: skip


@pytest.mark.parametrize(("objective", "searching", "training"), OBJECTIVES, ids=lambda v: type(v).__name__)
def test_the_attack_runs_once_and_both_evaluations_see_the_same_images(network, objective, searching, training):
    model, batch, seen = network().train(), batch_of(), []
    generator = torch.Generator().manual_seed(4)
    context = Context(generator, augment=lambda: torch.rand(8, 1, 6, 6, generator=generator))
    model.register_forward_pre_hook(lambda m, given: seen.append((m.training, given[0].detach().clone())))
    stepped(model, objective, batch, context, 0.1)
    assert [mode for mode, _ in seen] == [False] * searching + [True] * (2 * training)
    first, second = seen[searching : searching + training], seen[searching + training :]
    for (_, one), (_, two) in zip(first, second, strict=True):
        assert torch.equal(one, two)


def test_dropout_masks_are_the_same(network):
    """The two losses of a step without a perturbation are one number."""
    loss = stepped(network().train(), Standard(), batch_of(), Context(torch.Generator()), 0.0)
    assert float(loss.total.detach()) == float(loss.terms["perturbed_loss"])


def test_memory_and_statistics_count_the_batch_once(network):
    batch, objective = batch_of(), IAAT(Linf(0.1), steps=1, warmup=1, beta=0.5)
    known = {i: 0.01 * i for i in range(8)}

    def context() -> Context:
        return Context(torch.Generator().manual_seed(1), epoch=1, state={"iaat": dict(known)})

    model, alone, whole, single = network().train(), network().train(), context(), context()
    stepped(model, objective, batch, whole, 0.0)
    objective(alone, batch, single)
    assert int(model[1].num_batches_tracked) == 1
    torch.testing.assert_close(model[1].running_var, alone[1].running_var)
    assert whole.state["iaat"] == single.state["iaat"] != known


def test_an_objective_that_attacks_more_often_the_second_time_is_refused(network):
    class Growing(Objective):
        def __call__(self, model, batch, context):
            times = sum(p.detach().sum() for p in model.parameters()) != total
            for _ in range(1 + int(times)):
                points = ATTACK.perturb(model, batch.images, batch.labels, context.randomness(len(batch)))
            return Loss(functional.cross_entropy(model(points), batch.labels), {})

    model = network().train()
    total = sum(p.detach().sum() for p in model.parameters())
    kept = weights_hash(model)
    with pytest.raises(HauberkError, match="attacks more often than the 1 times"):
        stepped(model, Growing(), batch_of(), Context(torch.Generator()), 0.1)
    assert weights_hash(model).partition(":")[0] == kept.partition(":")[0]
    assert sum(p.detach().sum() for p in model.parameters()) == total


def test_before_its_first_epoch_it_does_nothing(network, dataset, tmp_path):
    settings = PLAIN | {"epochs": 3, "lr": 0.05}
    runs = [Run.create(tmp_path / str(i), {}) for i in range(3)]
    plain = weights_hash(fit(network(), PGDAdversarial(ATTACK), dataset, Training(**settings), runs[0]))
    late = Training(**settings, awp=0.1, awp_start=3)
    assert weights_hash(fit(network(), PGDAdversarial(ATTACK), dataset, late, runs[1])) == plain
    fit(network(), PGDAdversarial(ATTACK), dataset, Training(**settings, awp=0.1, awp_start=2), runs[2])
    assert ["perturbed_loss" in row for row in runs[2].metrics()] == [False, False, True]


def test_resuming_at_every_step_gives_the_same_bits(network, dataset, tmp_path, in_pieces):
    config = Training(
        epochs=3, batch_size=32, lr=0.05, ema=0.9, awp=0.05, awp_start=1, augmentation=Augmentation(crop=1), threads=1,
        validation_images=16, checkpoint_minutes=1e-9,
    )  # fmt: skip
    whole, broken = (Run.create(tmp_path / name, {}) for name in "ab")
    objective = IAAT(Linf(0.1), steps=2, warmup=1)
    expected = weights_hash(fit(network(), objective, dataset, config, whole, seed=4))
    assert weights_hash(in_pieces(lambda: fit(network(), objective, dataset, config, broken, seed=4))) == expected


def test_it_is_part_of_what_a_checkpoint_is_for_only_where_it_is_on(network, dataset):
    source = Source(dataset, (), 32, 0)
    off, on = (checkpoints.purpose(network(), Standard(), source, Training(awp=a)) for a in (0.0, 0.01))
    assert set(on) - set(off) == {"awp", "awp_start"}
