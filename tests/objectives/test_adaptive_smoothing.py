"""Training a mixing network: Eq. 8 by hand, the drawn attacks, bases that do not move, and that it learns."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hauberk import registry
from hauberk.attacks import APGD, PGD
from hauberk.attacks.base import Attack
from hauberk.batch import Batch
from hauberk.classifier import Normalize, weights_hash
from hauberk.conformance import check_objective
from hauberk.data.dataset import Dataset
from hauberk.data.split import Split
from hauberk.defences.adaptive_mixed import AdaptiveMixedClassifier, AlphaDown, MixView, adaptive_mixed
from hauberk.errors import HauberkError
from hauberk.models import small_cnn
from hauberk.objectives.adaptive_smoothing import AdaptiveSmoothing, RankedAPGD
from hauberk.objectives.base import Context
from hauberk.randomness import Shared
from hauberk.runs import Run
from hauberk.threats import L2, Linf
from hauberk.training.config import Training
from hauberk.training.loop import fit

SHAPE = (1, 6, 6)
THREAT = Linf(0.1)


def base(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    net = small_cnn(SHAPE, 4, [0.5], [0.2], widths=(6, 6), strides=(1, 1))
    net[-1].weight.data.mul_(8.0)
    return net


def build(**settings: object) -> AdaptiveMixedClassifier:
    torch.manual_seed(3)
    chosen = {"alpha_min": 0.8, "alpha_max": 0.9, "widths": (4, 4)} | settings
    return adaptive_mixed(base(1), base(2), ("3", "6"), ("3", "6"), **chosen).train()


def rows(count: int, seed: int = 4) -> Batch:
    images = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return Batch(images, torch.arange(count) % 4, torch.arange(count))


def context(seed: int = 7) -> Context:
    return Context(torch.Generator().manual_seed(seed))


class Says(nn.Module):
    """A mixing network of given scores, times a parameter."""

    def __init__(self, *scores: float) -> None:
        super().__init__()
        self.scores, self.factor = torch.tensor(scores), nn.Parameter(torch.tensor(1.0))

    def forward(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        places = torch.arange(len(first[0])) % len(self.scores)
        return self.factor * self.scores[places] + 0.0 * second[0].flatten(1)[:, 0]


# --- the loss ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [(0.0, 1.5, 0.2), (1.0, 0.0, 0.0), (0.5, 1.0, 0.1), (0.0, 0.0, 2.0)])
def test_the_loss_by_hand(weights: tuple[float, float, float]) -> None:
    """No budget, so the attacked images are the clean ones; the network says four scores for the four rows of both."""
    model, batch = build(training_logit=(2.0, 0.5)), rows(4)
    model.mixing = Says(-1.0, 0.3, 0.0, 2.0)
    ce, bce, product = weights
    objective = AdaptiveSmoothing(Linf(0.0), "B", steps=1, ce=ce, bce=bce, product=product)
    found = objective(model, batch, context())
    with torch.no_grad():
        g, h = (net(batch.images).double().softmax(1).numpy() for net in (model.accurate, model.robust))
    terms: list[tuple[float, float]] = []
    for half in (0.0, 1.0):
        for row, score in enumerate((-1.0, 0.3, 0.0, 2.0)):
            alpha = 1.0 / (1.0 + math.exp(-(2.0 * score + 0.5)))
            p = (1.0 - alpha) * g[row, row % 4] + alpha * h[row, row % 4]
            terms.append((-math.log(p), -math.log(alpha if half else 1.0 - alpha)))
    expected = np.mean([ce * a + bce * b + product * a * b for a, b in terms])
    assert float(found.total.detach()) == pytest.approx(expected, rel=1e-5)
    assert float(found.terms["ce"]) == pytest.approx(np.mean([a for a, _ in terms]), rel=1e-5)
    assert float(found.terms["bce"]) == pytest.approx(np.mean([b for _, b in terms]), rel=1e-5)
    alphas = [1.0 / (1.0 + math.exp(-(2.0 * s + 0.5))) for s in (-1.0, 0.3, 0.0, 2.0)]
    assert float(found.terms["alpha_clean"]) == pytest.approx(np.mean(alphas))
    assert float(found.terms["alpha_attacked"]) == pytest.approx(np.mean(alphas))
    picks = [int(((1 - a) * g[k] + a * h[k]).argmax()) == k % 4 for k, a in enumerate(alphas)]
    assert float(found.terms["accuracy"]) == np.mean(picks) == float(found.terms["adversarial_accuracy"])


def test_the_first_half_is_clean_and_the_second_attacked() -> None:
    model, batch, seen = build(), rows(8), []
    model.mixing.register_forward_pre_hook(lambda module, _given: seen.append(module.training))
    told: list[Tensor] = []
    model.accurate.register_forward_pre_hook(lambda _module, given: told.append(given[0].detach().clone()))
    AdaptiveSmoothing(THREAT, "B", steps=3, budgets=(1.0, 1.0))(model, batch, context())
    assert seen[-1]
    assert not any(seen[:-1])  # attacks see the network in eval mode
    both = told[-1]
    assert both.shape[0] == 16
    assert torch.equal(both[:8], batch.images)
    moved = (both[8:] - batch.images).flatten(1).abs().amax(1)
    torch.testing.assert_close(moved, torch.full((8,), 0.1))


def test_the_output_norm_sees_the_mixture() -> None:
    """In one pass: with the halves apart, both would have mean 0."""
    model, batch = build(), rows(16)
    loss = AdaptiveSmoothing(Linf(0.3), "B", steps=3)(model, batch, context())
    assert int(model.mixing.norm.num_batches_tracked) == 1
    assert float((loss.terms["alpha_clean"] - loss.terms["alpha_attacked"]).abs()) > 1e-3


# --- the attacks ---------------------------------------------------------------------------------------------------


def drawn(objective: AdaptiveSmoothing, count: int, classes: int = 10) -> list[Attack]:
    generator = torch.Generator().manual_seed(0)
    return [objective._attack(generator, classes) for _ in range(count)]


def uniform(values: np.ndarray, low: float, high: float) -> None:
    assert low <= values.min() < low + 0.01
    assert high - 0.01 < values.max() <= high
    assert abs(values.mean() - 0.5 * (low + high)) < 4 * (high - low) / math.sqrt(12 * len(values))


def test_weights_and_steps_are_drawn_from_their_distributions() -> None:
    attacks = drawn(AdaptiveSmoothing(L2(0.5), "B"), 2000)
    assert all(isinstance(a, PGD) and isinstance(a.loss, AlphaDown) and a.loss.base == "ce" for a in attacks)
    weights = np.array([a.loss.weight for a in attacks])
    steps = np.array([a.steps for a in attacks])
    uniform(weights, 0.0, 0.4)
    assert abs(steps.mean() - 20.0) < 4 * math.sqrt(40 / 2000)
    assert steps.var() == pytest.approx(40.0, rel=0.15)
    assert all(a.threat == L2(0.5) for a in attacks)
    assert abs(np.corrcoef(steps, weights)[0, 1]) < 0.1


@pytest.mark.parametrize(("targets", "classes", "aims"), [(9, 10, 10), (9, 4, 4), (2, 10, 3), (0, 10, 1), (9, 2, 2)])
def test_setting_c_is_untargeted_or_aims_at_each_class_as_often(targets: int, classes: int, aims: int) -> None:
    attacks = drawn(AdaptiveSmoothing(THREAT, "C", steps=2, targets=targets), 1500, classes)
    ranks = np.array([a.rank if isinstance(a, RankedAPGD) else -1 for a in attacks])
    assert sorted(set(ranks)) == list(range(-1, aims - 1))
    shares = np.bincount(ranks + 1) / 1500
    assert np.abs(shares - 1 / aims).max() < 4 * math.sqrt(1 / aims / 1500) + 1e-9
    for attack in attacks:
        assert isinstance(attack, APGD)
        assert attack.loss.base == ("dlr" if isinstance(attack, RankedAPGD) else "ce")
    assert np.mean([a.steps for a in drawn(AdaptiveSmoothing(THREAT, "C"), 400)]) == pytest.approx(75, abs=3)


def test_each_image_has_a_budget_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """From its distribution; the attack uses all of it, and each group has an attack of its own."""
    model, batch = build(), rows(400)
    given: list[Tensor] = []
    perturb = Attack.perturb

    def spy(self: Attack, *inputs: object) -> Tensor:
        given.append(inputs[-1])
        return perturb(self, *inputs)

    monkeypatch.setattr(Attack, "perturb", spy)
    objective = AdaptiveSmoothing(Linf(0.1), "B", steps=4, groups=3, weights=(0.0, 0.0))
    moved = (objective._attacked(model, batch, context()) - batch.images).flatten(1).abs().amax(1)
    assert [len(budgets) for budgets in given] == [133, 133, 134]
    budgets = torch.cat(given)
    uniform(budgets.numpy(), 0.04, 0.11)
    torch.testing.assert_close(moved, budgets, atol=1e-6, rtol=0)


@pytest.mark.parametrize("setting", ["A", "B", "C"])
@pytest.mark.parametrize("cut", [1, 4, 9])
def test_a_row_does_not_depend_on_the_processes(setting: str, cut: int) -> None:
    model, batch = build().eval(), rows(10)
    objective = AdaptiveSmoothing(THREAT, setting, steps=3, groups=4)
    whole = objective._attacked(model, batch, context())
    parts = []
    for own in (slice(0, cut), slice(cut, 10)):
        here = Context(torch.Generator().manual_seed(7), offset=own.start, total=10)
        parts.append(objective._attacked(model, batch.select(own), here))
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=0)


def test_more_groups_than_rows() -> None:
    model, batch = build(), rows(3)
    found = AdaptiveSmoothing(THREAT, "B", steps=2, groups=8)._attacked(model, batch, context())
    assert found.shape == batch.images.shape


def test_the_attacks_see_training_s_range_and_setting_a_no_gradient_of_alpha(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[MixView] = []

    def perturb(self: Attack, view: MixView, images: Tensor, *_: object) -> Tensor:
        seen.append(view)
        return images

    monkeypatch.setattr(Attack, "perturb", perturb)
    for setting in "ABC":
        AdaptiveSmoothing(THREAT, setting, groups=1)(build(), rows(4), context())
    assert [(v.gray_box, v.as_trained) for v in seen] == [(True, True), (False, True), (False, True)]


def test_the_gray_box_attack_does_not_know_of_the_network() -> None:
    """Its points are those of a mix whose weight stays what it is, step by step; the white box's are others."""
    model, batch = build().eval(), rows(8)
    model.mixing.norm.running_var.fill_(1e-3)

    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.g, self.h = model.accurate, model.robust

        def forward(self, x: Tensor) -> Tensor:
            alpha = model.mix(x.detach(), as_trained=True)["alpha"].detach()[:, None]
            return ((1 - alpha) * self.g(x).softmax(1) + alpha * self.h(x).softmax(1)).log()

    def points(view: nn.Module, loss: object) -> Tensor:
        randomness = Shared(torch.Generator().manual_seed(1), 8)
        return PGD(L2(0.5), loss, steps=5).perturb(view, batch.images, batch.labels, randomness)

    gray = points(MixView(model, gray_box=True, as_trained=True), AlphaDown(weight=0.4))
    torch.testing.assert_close(gray, points(Held(), "ce"), atol=1e-4, rtol=0)
    white = points(MixView(model, as_trained=True), AlphaDown(weight=0.4))
    assert float((white - gray).abs().max()) > 1e-2


@pytest.mark.parametrize("rank", [0, 2])
def test_apgd_in_training_gives_the_point_of_highest_loss_it_saw(rank: int) -> None:
    """Also where it breaks nothing."""
    model, batch = build().eval(), rows(6)
    loss = AlphaDown(weight=0.3, base="dlr")
    values: list[Tensor] = []
    with torch.no_grad():
        clean = model.mix(batch.images, as_trained=True)["logits"].numpy()
    others = [[k for k in np.argsort(-z, kind="stable") if k != y] for z, y in zip(clean, batch.labels, strict=True)]
    targets = torch.tensor([order[rank] for order in others])

    class Spy(MixView):
        def outputs(self, images: Tensor) -> dict[str, Tensor]:
            told = super().outputs(images)
            values.append(loss(told, batch.labels, targets).detach())
            return told

    attack = RankedAPGD(Linf(0.02), loss, steps=15, rank=rank)
    randomness = Shared(torch.Generator().manual_seed(1), 6)
    points = attack.perturb(Spy(model, as_trained=True), batch.images, batch.labels, randomness)
    best = torch.stack(values[1:]).amax(0)  # the first call is that at the clean images
    with torch.no_grad():
        reached = loss(model.mix(points, as_trained=True), batch.labels, targets)
        wrong = model.mix(points, as_trained=True)["logits"].argmax(1) != batch.labels
    torch.testing.assert_close(reached, best, atol=1e-4, rtol=1e-4)
    assert bool((reached > values[1]).all())  # the random start
    assert not bool(wrong.all())


# --- what moves and what does not ----------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["A", "B", "C"])
def test_only_the_mixing_network_moves(setting: str) -> None:
    model, batch = build(), rows(12)
    bases = weights_hash(model.accurate), weights_hash(model.robust)
    network = weights_hash(model.mixing)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for step in range(3):
        optimizer.zero_grad()
        AdaptiveSmoothing(THREAT, setting, steps=2)(model, batch, context(step)).total.backward()
        optimizer.step()
    assert (weights_hash(model.accurate), weights_hash(model.robust)) == bases
    assert weights_hash(model.mixing) != network
    assert all(p.grad is None for net in (model.accurate, model.robust) for p in net.parameters())
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.mixing.parameters())


@pytest.mark.parametrize("setting", ["A", "B", "C"])
def test_the_contract(setting: str) -> None:
    check_objective(AdaptiveSmoothing(THREAT, setting, steps=2), build(), tuple(rows(1).images.shape[1:]))


def plain_and_noisy(count: int, seed: int) -> Batch:
    """Images of one brightness each, whose class is its quarter: an attack's pattern shows."""
    generator = torch.Generator().manual_seed(seed)
    shade = 0.2 + 0.6 * torch.rand(count, 1, 1, 1, generator=generator)
    images = shade.expand(count, *SHAPE).contiguous()
    labels = ((shade.flatten() - 0.2) / 0.15).long().clamp(0, 3)
    return Batch(images, labels, torch.arange(count))


def shades(scale: float) -> nn.Module:
    """Classes by mean brightness through a net with random maps before it, so that there is something to tap."""
    torch.manual_seed(int(scale))
    head = nn.Linear(6, 4)
    net = nn.Sequential(
        Normalize([0.5], [0.25]), nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), head,
    )  # fmt: skip
    head.weight.data.mul_(scale)
    net.spec = {"name": "shades"}
    return net


def test_it_learns_to_tell_clean_from_attacked_images() -> None:
    """Also where the attack knows the network and pushes alpha down."""
    torch.manual_seed(0)
    model = adaptive_mixed(
        shades(8), shades(2), ("2", "4"), ("2", "4"), alpha_min=0.6, alpha_max=1.0, widths=(8,), input_shape=SHAPE
    )
    objective = AdaptiveSmoothing(Linf(0.2), "B", steps=3, groups=1, budgets=(0.8, 1.0))
    optimizer = torch.optim.AdamW(model.mixing.parameters(), lr=0.02)
    losses = []
    for step in range(40):
        model.train()
        loss = objective(model, plain_and_noisy(16, step), context(step))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(float(loss.total.detach()))
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    model.eval()
    batch = plain_and_noisy(100, 1000)
    attack = PGD(Linf(0.2), AlphaDown(weight=0.2), steps=5)
    attacked = attack.perturb(model, batch.images, batch.labels, Shared(torch.Generator().manual_seed(5), 100))
    with torch.no_grad():
        clean, there = (model.outputs(x)["alpha"] for x in (batch.images, attacked))
    assert float((there[:, None] > clean).float().mean()) > 0.95
    assert float(clean.median()) < 0.75
    assert float(there.median()) > 0.8


def test_the_loop_trains_it_with_an_average_of_the_weights(tmp_path: Path) -> None:
    model = build()
    bases = weights_hash(model.accurate), weights_hash(model.robust)
    network = weights_hash(model.mixing)
    splits = []
    for number, name in enumerate(("train", "val", "test")):
        batch = rows(24, seed=number)
        splits.append(Split(name, (255 * batch.images).byte(), batch.labels, batch.ids + 24 * number))
    data = Dataset("tiny", ("a", "b", "c", "d"), *splits)
    settings = Training(
        epochs=2, batch_size=8, optimizer="adamw", lr=0.01, ema=0.8, gradient_clip=10.0,
        validation_attack=PGD(THREAT, steps=2),
    )  # fmt: skip
    objective = AdaptiveSmoothing(THREAT, "C", steps=2)
    trained = fit(model, objective, data, settings, Run.create(tmp_path / "run", {"name": "run"}))
    assert isinstance(trained, AdaptiveMixedClassifier)
    assert (weights_hash(trained.accurate), weights_hash(trained.robust)) == bases
    assert weights_hash(trained.mixing) != network
    assert not any(m.training for m in trained.modules())


# --- errors and spec -----------------------------------------------------------------------------------------------


def test_another_model_is_named() -> None:
    with pytest.raises(HauberkError, match="an adaptive mix, got Flatten"):
        AdaptiveSmoothing(THREAT)(nn.Flatten(), rows(4), context())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"budgets": (1.1, 0.4)}, "budgets is a range"),
        ({"weights": (0.4, 0.0)}, "weights is a range"),
        ({"weights": (0.0, 1.5)}, "at most 1"),
        ({"ce": 0.0, "bce": 0.0, "product": 0.0}, "must be above 0"),
        ({"setting": "D"}, "setting"),
        ({"groups": 0}, "groups"),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AdaptiveSmoothing(THREAT, **settings)


def test_it_is_its_spec() -> None:
    objective = AdaptiveSmoothing(Linf(8 / 255), "A", steps=7, targets=3, groups=2)
    assert registry.build(registry.spec(objective), kind="objective") == objective
