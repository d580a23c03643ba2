"""The preflight: every fault is seen before anything is spent, and no attack takes more than its bill says."""

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hauberk.attacks import APGD, PGD, Attack, AutoAttack, OnGrid, PartAttack, Towards
from hauberk.attacks.fab import FAB
from hauberk.attacks.square import Square
from hauberk.batch import Batch
from hauberk.conformance import LinearOracle
from hauberk.defences import MixedClassifier
from hauberk.defences.adaptive_mixed import AlphaDown
from hauberk.evaluation.preflight import Speed, _accuracy, bills, measure, passes, preflight
from hauberk.threats import L2, Linf

MODEL = LinearOracle.random((1, 4, 4), num_classes=10)


@pytest.fixture
def batch() -> Batch:
    return MODEL.batch(24)


def bad(model: nn.Module, batch: Batch) -> dict[str, str]:
    """What stands against an evaluation, by name."""
    return {f.name: f.text for f in preflight(model, batch, tile=8) if not f.good}


class Around(nn.Module):
    """The linear model with something between."""

    def __init__(self, base: nn.Module, after: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.base, self.after = base, after

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.base(images), images)


def test_a_plain_model_is_ready(batch: Batch) -> None:
    found = preflight(MODEL, batch, tile=8)
    assert all(f.good for f in found)
    assert {f.name for f in found} >= {"images", "mode", "logits", "labels", "accuracy", "rows", "randomness"}


def test_faults_are_named(batch: Batch) -> None:
    model: nn.Module = MODEL
    training = nn.Sequential(model, nn.Dropout(0.5)).train()
    assert "mode" in bad(training, batch)
    assert "logits" in bad(Around(model, lambda z, x: z.softmax(1)).eval(), batch)
    assert "logits" in bad(Around(model, lambda z, x: z.sum(1)).eval(), batch)
    assert "labels" in bad(model, Batch(batch.images, batch.labels + 10, batch.ids))
    assert "accuracy" in bad(model, Batch(batch.images, (batch.labels + 1) % 10, batch.ids))
    assert "images" in bad(model, Batch(batch.images * 255.0, batch.labels, batch.ids))
    assert "the model fails" in bad(nn.Sequential(nn.Flatten(), nn.Linear(7, 10)).eval(), batch)["forward"]


def test_rows_that_see_each_other_are_named(batch: Batch) -> None:
    mixing = Around(MODEL, lambda z, x: z + 50.0 * z.mean(0, keepdim=True)).eval()
    assert "rows" in bad(mixing, batch)


def test_gradients_that_are_missing_dead_or_not_numbers_are_named(batch: Batch) -> None:
    model: nn.Module = MODEL
    assert "none" in bad(Around(model, lambda z, x: z.detach()).eval(), batch)["input gradient"]
    dead = Around(model, lambda z, x: z.detach() + 0.0 * x.sum()).eval()
    assert "zero for 8 of 8" in bad(dead, batch)["input gradient"]
    unstable = Around(model, lambda z, x: z + (0.0 * x.flatten(1).sum(1, keepdim=True)).sqrt()).eval()
    assert "NaN" in bad(unstable, batch)["input gradient"]


def test_a_random_model_is_seen(batch: Batch) -> None:
    noisy = Around(MODEL, lambda z, x: z + 0.1 * torch.randn_like(z)).eval()
    text = {f.name: f.text for f in preflight(noisy, batch, tile=8)}["randomness"]
    assert "random" in text
    assert "votes" in text


@pytest.mark.parametrize("attack", [
    PGD(Linf(1e-4), steps=7),
    APGD(L2(1e-4), steps=9, loss="dlr", targets=3),
    Square(Linf(1e-4), queries=20),
    FAB(L2(1e-4), steps=12, targets=3, early_stop=True),
    AutoAttack(Linf(1e-4), version="fast"),
])
def test_no_image_takes_more_than_the_bill(attack: Attack, batch: Batch) -> None:
    # far below every radius no image falls, so each takes all that there is to take
    forwards, backwards = passes(attack, 10)
    found = attack(MODEL, batch)
    assert not found.success.any()
    assert 0.8 * forwards < int(found.forwards.max()) <= forwards
    assert 0.8 * backwards <= int(found.backwards.max()) <= backwards


def test_passes_of_pgd_by_hand() -> None:
    assert passes(PGD(Linf(0.01), steps=7), 10) == (9, 7)  # the image, a pass before each step, and the last point


def test_attacks_that_need_a_mix_have_a_bill_too(batch: Batch) -> None:
    other = LinearOracle.random((1, 4, 4), num_classes=10, seed=1)
    model = MixedClassifier(other, MODEL, 0.9, 1.0, 1.0).eval()
    attack = PartAttack(Linf(1e-4), part="robust", attack=PGD(Linf(1e-4), steps=7))
    labelled = Batch(batch.images, model(batch.images).argmax(1), batch.ids)
    assert int(attack(model, labelled).forwards.max()) <= passes(attack, 10)[0]
    assert passes(APGD(Linf(0.1), loss=AlphaDown()), 10) == passes(APGD(Linf(0.1)), 10)
    plain = bills(Linf(0.1), Speed(1.0, 2.0), 10, 1)
    beside = bills(Linf(0.1), Speed(1.0, 2.0), 10, 1, beside=(attack,))
    assert [b.forwards - a.forwards for a, b in zip(plain, beside, strict=True)] == [passes(attack, 10)[0]] * 3


def test_a_bill_is_passes_times_speed() -> None:
    found = {b.name: b for b in bills(Linf(8 / 255), Speed(forward=0.5, gradient=2.0), 10, images=3)}
    assert list(found) == ["fast", "standard", "plus"]
    for b in found.values():
        assert b.seconds == pytest.approx(3 * (0.5 * b.forwards + 1.5 * b.backwards))
    assert found["fast"].forwards < found["standard"].forwards < found["plus"].forwards
    # Square alone asks 5000 times, nine targets of APGD and of FAB a hundred steps each
    assert 5000 + 10 * 100 + 9 * 100 * 2 < found["standard"].forwards < 5000 + 10 * 101 + 9 * 100 * 2 + 20
    assert 10 * 100 + 9 * 100 < found["standard"].backwards < 10 * 101 + 9 * 101 + 20
    assert [b.name for b in bills(Linf(0.1), Speed(1.0, 2.0), 10, 3, random=True)] == ["rand"]
    slow = bills(Linf(8 / 255), Speed(forward=0.5, gradient=2.0, beside=0.25), 10, images=3)
    assert slow[0].seconds == pytest.approx(3 * (0.75 * found["fast"].forwards + 1.5 * found["fast"].backwards))


def test_what_a_search_takes_beside_a_tiny_net_is_in_its_bill(batch: Batch) -> None:
    """Square's own work is most of its time there: without it, the bill is several times too small."""
    images = torch.rand(64, *batch.images.shape[1:], generator=torch.Generator().manual_seed(0))
    sure = Batch(images, MODEL(images).argmax(1), torch.arange(64))
    started = time.perf_counter()
    Square(Linf(1e-6), queries=400)(MODEL, sure, tile=64)
    taken = time.perf_counter() - started
    found = measure(MODEL, images)
    assert found.beside > found.forward
    assert 64 * 401 * found.forward < 0.6 * taken
    assert 0.3 * taken < 64 * found.seconds(401, 0) < 4.0 * taken




def test_time_is_measured_forwards_and_with_gradient(batch: Batch) -> None:
    found = measure(MODEL, batch.images)
    assert found.forward > 0
    assert found.gradient > 0


def test_attacks_around_others_have_the_bill_of_what_is_inside() -> None:
    inside = APGD(Linf(0.1), "margin", steps=9)
    plain = passes(inside, 10)
    assert passes(OnGrid(Linf(0.1), attack=inside), 10) == (plain[0] + 8, plain[1])
    assert passes(Towards(Linf(0.1), attack=inside, target=1), 10) == (passes(inside, 2)[0] + 2, passes(inside, 2)[1])


@pytest.mark.parametrize(
    ("right", "of", "classes", "good"),
    [(42, 60, 2, True), (33, 60, 2, False), (3, 3, 2, True), (9, 60, 10, False), (15, 60, 10, True)],
)
def test_better_than_chance_is_what_the_interval_says(right: int, of: int, classes: int, good: bool) -> None:
    """70 % of two balanced classes is better than chance, though not by half."""
    labels = torch.zeros(of, dtype=torch.int64)
    logits = torch.zeros(of, classes)
    logits[:right, 0], logits[right:, 1] = 1.0, 1.0
    assert _accuracy(logits, labels).good == good
