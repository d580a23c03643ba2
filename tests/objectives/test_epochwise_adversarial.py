"""Images attacked every N epochs: by which model, how long they are kept, which they are, and what they weigh."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from hauberk.attacks.pgd import PGD
from hauberk.batch import Batch
from hauberk.classifier import weights_hash
from hauberk.conformance import check_objective
from hauberk.data import Augmentation
from hauberk.data.dataset import Dataset
from hauberk.data.split import Split
from hauberk.objectives.base import Context
from hauberk.objectives.epochwise_adversarial import MEMORY, EpochwiseAdversarial
from hauberk.objectives.pgd_adversarial import PGDAdversarial
from hauberk.runs import Run
from hauberk.threats import L2, Linf
from hauberk.training.config import Training
from hauberk.training.loop import fit

EPS = 0.05
ATTACK = PGD(Linf(EPS), steps=4, step_size=3 * EPS)


def worst(images: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Of a linear model, Linf: every pixel moves by eps against the label."""
    sign = (2.0 * labels - 1.0)[:, None] * weight.sign()
    return (images.flatten(1) - EPS * sign).reshape(images.shape)


def inputs(model: nn.Module) -> list[torch.Tensor]:
    """What training passes are asked about."""
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda m, given: seen.append(given[0].detach().clone()) if m.training else None)
    return seen


@pytest.mark.parametrize("clean_fraction", [0.0, 0.5, 0.25])
def test_at_the_first_step_of_a_round_it_is_adversarial_training(network, batch, clean_fraction):
    contexts = [Context(torch.Generator().manual_seed(1)) for _ in range(2)]
    for context, method in zip(contexts, (EpochwiseAdversarial, PGDAdversarial), strict=True):
        more = {"clean_fraction": clean_fraction}
        loss = method(ATTACK, **more)(copy.deepcopy(network), batch, context)
        context.state["found"] = loss.total.detach()
    torch.testing.assert_close(contexts[0].state["found"], contexts[1].state["found"])


def test_images_are_attacked_by_the_model_of_the_round_s_start(linear, inner_batch, context):
    seen, start = inputs(linear), linear.weight.detach().clone()
    objective = EpochwiseAdversarial(ATTACK, clean_fraction=0.0)
    objective(linear, inner_batch.select(slice(0, 4)), context)
    with torch.no_grad():
        linear.weight.neg_()  # training has gone on, far
    rest = inner_batch.select(slice(4, 8))
    objective(linear, rest, context)
    torch.testing.assert_close(seen[-1], worst(rest.images, rest.labels, start))
    context.epoch = 1  # a new round
    objective(linear, rest, context)
    torch.testing.assert_close(seen[-1], worst(rest.images, rest.labels, -start))
    assert linear.weight.grad is None and linear.training


def test_they_are_kept_for_all_epochs_of_a_round_and_then_made_anew(linear, inner_batch, context):
    """In another order, in other batches, and where augmentation shows the clean images otherwise."""
    objective, seen = EpochwiseAdversarial(ATTACK, every=2), inputs(linear)
    objective(linear, inner_batch, context)
    first, attacks = seen[-1][:8], []
    linear.register_forward_pre_hook(lambda m, _: attacks.append(1) if not m.training else None)
    for epoch, kept in ((1, True), (2, False)):
        context.epoch = epoch
        for rows in (torch.tensor([6, 1, 3]), torch.tensor([0, 2, 4, 5, 7])):
            moved = inner_batch.select(rows)
            shown = Batch(moved.images.flip(3), moved.labels, moved.ids)
            attacks.clear()
            objective(linear, shown, context)
            assert (len(attacks) == 0) is kept
            assert torch.equal(seen[-1][: len(rows)], first[rows]) is kept
            assert torch.equal(seen[-1][len(rows) :], shown.images)
    assert sum(len(points) for points in context.state[MEMORY]["points"]) == 8


def test_a_share_is_drawn_anew_in_each_round_and_alone_is_attacked(linear):
    generator = torch.Generator().manual_seed(2)
    images = 0.3 + 0.4 * torch.rand(400, 3, 2, 2, generator=generator, dtype=torch.float64)
    batch = Batch(images, torch.arange(400) % 2, torch.arange(400))
    objective, members = EpochwiseAdversarial(ATTACK, every=2, share=0.3, clean_fraction=0.4), []
    rows_attacked: list[int] = []
    linear.register_forward_pre_hook(lambda m, given: None if m.training else rows_attacked.append(len(given[0])))
    for epoch in range(4):
        context = Context(torch.Generator().manual_seed(3), epoch=epoch)
        rows_attacked.clear()
        loss = objective(linear, batch, context)
        member = torch.tensor([objective._drawn(epoch // 2, i) for i in range(400)])
        members.append(member)
        assert set(rows_attacked) == {int(member.sum())}
        points = worst(images, batch.labels, linear.weight.detach())
        bad, good = (functional.cross_entropy(linear(x), batch.labels, reduction="none") for x in (points, images))
        ratio = 0.4 / 0.6
        total = (bad + ratio * good)[member].sum() + good[~member].sum()
        torch.testing.assert_close(loss.total, total / (400 * (1 + 0.3 * ratio)))
        torch.testing.assert_close(loss.terms["ce_adversarial"], bad[member].mean().detach())
    assert 90 <= int(members[0].sum()) <= 150
    assert torch.equal(members[0], members[1]) and not torch.equal(members[1], members[2])


def test_a_batch_without_a_drawn_image_is_trained_on_as_it_is(linear, inner_batch, context):
    objective = EpochwiseAdversarial(ATTACK, share=1e-9)
    loss = objective(linear, inner_batch, context)
    torch.testing.assert_close(loss.total, functional.cross_entropy(linear(inner_batch.images), inner_batch.labels))
    assert all(bool(value.isfinite()) for value in loss.terms.values())


def test_each_process_attacks_its_own_rows_and_all_keep_them_all(linear, inner_batch):
    objective = EpochwiseAdversarial(PGD(Linf(EPS), steps=1, step_size=0.01), every=3, share=0.6)
    whole = Context(torch.Generator().manual_seed(1))
    expected = objective(linear, inner_batch, whole).total
    losses, calls = [], []
    for own in (slice(0, 3), slice(3, 8)):
        context, seen = Context(torch.Generator().manual_seed(1), offset=own.start, total=8), []
        context.add = lambda rows, seen=seen: seen.append(rows) or rows
        losses.append(objective(linear, inner_batch.select(own), context).total * (own.stop - own.start) / 8)
        calls.append(seen)
    torch.testing.assert_close(losses[0] + losses[1], expected)
    new, ids, points = (a + b for a, b in zip(*calls, strict=True))
    memory = whole.state[MEMORY]
    assert ids[new.nonzero().flatten()].tolist() == list(memory["places"])
    torch.testing.assert_close(points[new.nonzero().flatten()], memory["points"][0])


@pytest.mark.parametrize("settings", [{}, {"every": 3, "share": 0.5}, {"clean_fraction": 0.0}], ids=str)
def test_the_contract(settings):
    check_objective(EpochwiseAdversarial(PGD(L2(0.3), steps=2), **settings))


def noise(name: str, count: int, first: int) -> Split:
    generator = torch.Generator().manual_seed(first)
    images = torch.randint(0, 256, (count, 1, 4, 4), generator=generator)
    return Split(name, images.to(torch.uint8), torch.arange(count) % 2, torch.arange(first, first + count))


def test_resuming_at_every_step_gives_the_same_bits(tmp_path, in_pieces):
    def build() -> nn.Module:
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))

    dataset = Dataset("noise", ("a", "b"), noise("train", 64, 100), noise("val", 16, 500), noise("test", 4, 0))
    config = Training(
        epochs=4, batch_size=16, lr=0.1, threads=1, checkpoint_minutes=1e-9, augmentation=Augmentation(crop=1)
    )
    objective = EpochwiseAdversarial(PGD(Linf(0.1), steps=2), every=2, share=0.5)
    whole, broken = (Run.create(tmp_path / name, {}) for name in ("whole", "broken"))
    expected = weights_hash(fit(build(), objective, dataset, config, whole, seed=4))
    assert weights_hash(in_pieces(lambda: fit(build(), objective, dataset, config, broken, seed=4))) == expected
