"""CutMix: pixels and labels by hand, the loss of mixed labels, what is shared, and what is refused."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hauberk import registry
from hauberk.attacks.pgd import PGD
from hauberk.batch import Batch
from hauberk.conformance import check_objective
from hauberk.errors import HauberkError
from hauberk.objectives.attacked_divergence import AttackedDivergence
from hauberk.objectives.base import Context, Loss, Objective
from hauberk.objectives.consistency import Consistency
from hauberk.objectives.cutmix import Box, CutMix, random_box
from hauberk.objectives.free_adversarial import FreeAdversarial
from hauberk.objectives.iaat import IAAT
from hauberk.objectives.pgd_adversarial import PGDAdversarial
from hauberk.objectives.standard import Standard
from hauberk.objectives.terms import Terms
from hauberk.objectives.trades import TRADES
from hauberk.threats import Linf

KL = PGD(Linf(0.1), loss="kl", steps=3)


class Watching(Objective):
    """Keeps what it is asked about."""

    def __init__(self) -> None:
        self.seen: list[tuple[Batch, torch.Tensor | None]] = []

    def __call__(self, model, batch, context) -> Loss:
        view = context.view() if context.augment else None
        self.seen.append((batch, view))
        return Loss(functional.cross_entropy(model(batch.images), batch.labels), {})


@pytest.fixture
def batch() -> Batch:
    """The image of each row says which row it is."""
    images = (torch.arange(8.0) / 10)[:, None, None, None].expand(8, 2, 6, 5).clone()
    return Batch(images, torch.arange(8) % 3, torch.arange(8))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(60, 3))


@pytest.mark.parametrize("seed", range(6))
def test_pixels_labels_and_the_weight_belong_together(batch, model, seed):
    watching = Watching()
    context = Context(torch.Generator().manual_seed(seed), augment=lambda: batch.images + 0.05)
    kept = float(CutMix(watching)(model, batch, context).terms["kept"])
    (own, view), (others, again) = watching.seen
    assert own.images is others.images and view is again
    assert torch.equal(own.labels, batch.labels) and torch.equal(own.ids, batch.ids)
    inside = own.images[:, 0] != batch.images[:, 0]
    partners = torch.arange(8)
    for row in range(8):
        if inside[row].any():
            (value,) = own.images[row, 0][inside[row]].unique().tolist()
            partners[row] = round(10 * value)
    if inside.any():
        assert partners.sort().values.tolist() == list(range(8))  # a permutation
        assert torch.equal(others.labels, batch.labels[partners])
        assert kept == pytest.approx(1 - int(inside.flatten(1).sum(1).max()) / 30)
    torch.testing.assert_close(view, own.images + 0.05)  # the same box and partners


def test_cross_entropy_is_that_of_the_mixed_labels(batch, model):
    watching = Watching()
    loss = CutMix(watching)(model, batch, Context(torch.Generator().manual_seed(2)))
    (own, _), (others, _) = watching.seen
    kept = float(loss.terms["kept"])
    assert 0.05 < kept < 0.95
    soft = kept * functional.one_hot(own.labels, 3) + (1 - kept) * functional.one_hot(others.labels, 3)
    torch.testing.assert_close(loss.total, functional.cross_entropy(model(own.images), soft))


def test_the_box_by_numpy():
    boxes = [random_box(10, 6, None, torch.Generator().manual_seed(k)) for k in range(4000)]
    for box in boxes:
        assert 0 <= box.top <= box.bottom <= 10 and 0 <= box.left <= box.right <= 6
    draws = np.random.default_rng(0).random((200_000, 3))
    tall, wide = (10 * draws[:, 0] ** 0.5).astype(int), (6 * draws[:, 0] ** 0.5).astype(int)
    top, left = (10 * draws[:, 1]).astype(int) - tall // 2, (6 * draws[:, 2]).astype(int) - wide // 2
    high = np.minimum(top + tall, 10) - np.maximum(top, 0)
    pixels = high * (np.minimum(left + wide, 6) - np.maximum(left, 0))
    assert np.mean([box.pixels for box in boxes]) == pytest.approx(pixels.mean(), rel=0.05)
    windows = [random_box(10, 6, 4, torch.Generator().manual_seed(k)) for k in range(200)]
    assert max(box.pixels for box in windows) == 16
    assert {box.bottom - box.top for box in windows} == {2, 3, 4}
    assert random_box(4, 4, 100, torch.Generator()) == Box(0, 4, 0, 4)


def asked(objective, network, batch):
    modes = []
    handle = network.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    context = Context(torch.Generator().manual_seed(3), augment=lambda: batch.images.flip(3))
    loss = objective(network.train(), batch, context)
    handle.remove()
    return loss, (modes.count(True), modes.count(False))


@pytest.mark.parametrize("base", [TRADES(KL), Terms(Standard(), (AttackedDivergence(KL),))], ids=["trades", "terms"])
def test_a_base_that_attacks_without_labels_costs_no_more(batch, model, base):
    assert asked(CutMix(base), model, batch)[1] == asked(base, model, batch)[1]


def test_an_attack_that_sees_labels_is_made_for_each(batch, model):
    base = PGDAdversarial(PGD(Linf(0.1), steps=3))
    assert asked(CutMix(base), model, batch)[1] == (2, 6)


def test_boxes_of_other_pixels_are_the_partners_in_a_batch_shared_by_processes(batch, model):
    """Two halves, as two processes see them, are the rows of the whole."""
    def seen(rows: slice) -> torch.Tensor:
        watching, half = Watching(), batch.select(rows)

        def add(values: torch.Tensor) -> torch.Tensor:  # what the other process has
            return batch.images if values.is_floating_point() else batch.labels

        context = Context(torch.Generator().manual_seed(2), offset=rows.start, total=8, add=add)
        CutMix(watching)(model, half, context)
        return watching.seen[0][0].images

    watching = Watching()
    CutMix(watching)(model, batch, Context(torch.Generator().manual_seed(2)))
    assert torch.equal(torch.cat([seen(slice(0, 4)), seen(slice(4, 8))]), watching.seen[0][0].images)


def test_memory_of_samples_and_replays_are_refused(batch, model):
    with pytest.raises(HauberkError, match="remembers samples"):
        asked(CutMix(IAAT(Linf(0.1), steps=1)), model, batch)
    with pytest.raises(ValueError, match="several steps"):
        CutMix(FreeAdversarial(Linf(0.1)))


def test_it_is_written_around_its_base():
    spec = {"name": "cutmix", "window": 20, "base": {"name": "trades", "attack": registry.spec(KL)}}
    assert registry.build(spec, kind="objective") == CutMix(TRADES(KL), 20)


@pytest.mark.parametrize("base", [Standard(), TRADES(KL), Consistency(KL)], ids=lambda o: type(o).__name__)
def test_the_contract(base):
    check_objective(CutMix(base))
