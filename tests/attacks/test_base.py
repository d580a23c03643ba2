"""The base class projects, classifies again, counts and remembers; it believes nothing that a search says."""

from dataclasses import replace

import pytest
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hauberk.attacks import APGD, FGSM, PGD, Attack, Query
from hauberk.attacks.judging import vote
from hauberk.attacks.losses import attack_loss
from hauberk.batch import Batch
from hauberk.classifier import Decides, Traits, margins
from hauberk.errors import HauberkError
from hauberk.randomness import Key, PerSample, Randomness, Shared
from hauberk.threats import CONFIG, L1, L2, Linf, Threat, norms

ATTACKS = [
    FGSM(Linf(0.1)),
    FGSM(L1(1.0)),
    PGD(Linf(0.1), steps=5, restarts=2),
    PGD(L2(0.4), steps=5, loss="margin"),
    PGD(L1(1.0), steps=5, loss="kl"),
    PGD(Linf(0.1), steps=4, restarts=3, targeted=True),
    APGD(L2(0.4), steps=8),
    APGD(Linf(0.1), steps=8, restarts=2, loss="margin"),
]


@dataclass(frozen=True, config=CONFIG)
class Liar(Attack):
    """Walks out of ball and box and claims it."""

    def search(self, query: Query, randomness: Randomness) -> Tensor:
        points = query.images + 5.0 * torch.sign(torch.sin(97.0 * query.images))
        query.value(points)
        return points


@pytest.mark.parametrize("attack", [*ATTACKS, *(replace(a, early_stop=False) for a in ATTACKS[3:7])], ids=str)
def test_what_is_stated_is_true(attack: Attack, network: nn.Module, batch: Batch) -> None:
    found = attack(network, batch, seed=1, tile=4)
    threat = attack.threat
    with torch.no_grad():
        clean, now = network(batch.images), network(found.adversarial)
    assert torch.equal(found.clean_prediction, clean.argmax(1))
    assert torch.equal(found.prediction, now.argmax(1))
    assert torch.equal(found.success, now.argmax(1) != batch.labels)
    torch.testing.assert_close(found.probabilities, now.softmax(1))
    torch.testing.assert_close(found.clean_probabilities, clean.softmax(1))
    assert torch.equal(found.distance, threat.distance(found.adversarial, batch.images))
    for points in (found.adversarial, found.best_loss_point, found.logit_margin_point, found.probability_margin_point):
        assert bool(((points >= 0) & (points <= 1)).all())
        assert bool((threat.distance(points, batch.images) <= threat.eps + 1e-6).all())
    with torch.no_grad():
        own = margins(network(found.logit_margin_point), batch.labels)
        share = margins(network(found.probability_margin_point).softmax(1), batch.labels)
    torch.testing.assert_close(found.logit_margin, own, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.probability_margin, share, atol=1e-5, rtol=1e-5)
    assert bool((found.logit_margin <= margins(clean, batch.labels) + 1e-5).all())  # the image itself was seen
    assert bool((found.success == (found.logit_margin < 0)).all())
    assert found.clean_prediction[0] != batch.labels[0]
    assert found.distance[0] == 0
    broken = found.success[1:].tolist()
    assert found.stopped == ("misclassified", *["found" if b and attack.early_stop else "steps" for b in broken])
    assert bool(found.success[1:].any())


def test_points_outside_are_brought_back_and_judged_there(network: nn.Module, batch: Batch) -> None:
    found = Liar(Linf(1e-6))(network, batch)
    assert float(found.distance.max()) <= 1.1e-6
    assert found.success.tolist() == [True, *[False] * 9]
    for name in ("best_loss_point", "logit_margin_point", "probability_margin_point"):
        assert float(Linf(1.0).distance(getattr(found, name), batch.images).max()) <= 1.1e-6
    with torch.no_grad():
        torch.testing.assert_close(found.logit_margin, margins(network(batch.images), batch.labels), atol=1e-3, rtol=0)


class Bright(nn.Module):
    """Class 1 where the first pixel exceeds a threshold, or is below 0."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, images: Tensor) -> Tensor:
        first = images.flatten(1)[:, 0]
        z = torch.where(first < 0.0, 1.0, first - self.threshold)
        return torch.stack([-z, z], 1)


@dataclass(frozen=True, config=CONFIG)
class Visits(Attack):
    """Asks for the image moved by given amounts."""

    moves: tuple[float, ...] = ()

    def search(self, query: Query, randomness: Randomness) -> Tensor:
        for move in self.moves:
            query.value(query.images + move)
        return query.images


def test_a_point_outside_does_not_stand_in_the_way_of_one_inside() -> None:
    rows = Batch(torch.full((2, 1, 1, 2), 0.4), torch.zeros(2).long(), torch.arange(2))
    model = Bright(0.45).eval()
    assert Visits(Linf(0.04), moves=(0.4, 0.1))(model, rows).success.tolist() == [False, False]
    # straight ahead lies a misclassified point outside, whose projection is not the one inside
    found = Visits(L2(0.08), moves=(0.4, 0.055))(model, rows)
    assert found.success.tolist() == [True, True]
    torch.testing.assert_close(found.adversarial, rows.images + 0.055)


def test_a_rounding_outside_the_box_is_cut_off() -> None:
    rows = Batch(torch.zeros(2, 1, 1, 2), torch.zeros(2).long(), torch.arange(2))
    found = Visits(Linf(0.1), moves=(-5e-7,))(Bright(0.45).eval(), rows)
    assert float(found.adversarial.min()) == 0.0
    assert found.success.tolist() == [False, False]


@pytest.mark.parametrize("name", ["loss", "logit_margin", "probability_margin"])
def test_the_best_points_are_the_best_of_all_seen(name: str, network: nn.Module, batch: Batch) -> None:
    images, labels = batch.images, batch.labels
    query = Query(network, images, labels, Linf(1.0), "ce", track=True)
    others = [images, *(torch.rand(images.shape, generator=torch.Generator().manual_seed(i)) for i in range(5))]
    for points in others:
        query.gradient(points)
    with torch.no_grad():
        logits = torch.stack([network(p) for p in others])
    values = {
        "loss": torch.stack([-nn.functional.cross_entropy(z, labels, reduction="none") for z in logits]),
        "logit_margin": torch.stack([margins(z, labels) for z in logits]),
        "probability_margin": torch.stack([margins(z.softmax(1), labels) for z in logits]),
    }[name]
    least = values.min(0)
    torch.testing.assert_close(query.best[name], least.values)
    assert torch.equal(query.points[name], torch.stack(others)[least.indices, torch.arange(len(labels))])
    assert query.forwards.tolist() == query.backwards.tolist() == [6] * len(labels)
    wrong = logits.argmax(2) != labels
    assert torch.equal(query.misclassified, wrong.any(0))
    distance = torch.stack([norms(p - images, "linf") for p in others])
    nearest = torch.where(wrong, distance, torch.inf).min(0)
    assert torch.equal(query.best["nearest"], nearest.values)
    found = nearest.values.isfinite()
    assert torch.equal(query.points["nearest"][found], torch.stack(others)[nearest.indices, range(len(labels))][found])


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_a_targeted_loss_does_not_enter_the_untargeted_record(loss: str, network: nn.Module, batch: Batch) -> None:
    found = PGD(Linf(0.3), steps=3, targeted=True, restarts=3, loss=loss)(network, batch)
    with torch.no_grad():
        clean = attack_loss(loss, network(batch.images), batch.labels)
    assert bool(found.success[1:].any())
    torch.testing.assert_close(found.loss, clean)
    assert torch.equal(found.best_loss_point, batch.images)


PASSES = [
    (FGSM(Linf(0.1), early_stop=False), (3, 1)),
    (PGD(Linf(0.1), steps=5, early_stop=False), (7, 5)),
    (PGD(Linf(0.1), steps=5, restarts=2, early_stop=False), (13, 10)),
    (PGD(Linf(0.1), steps=5, loss="kl", early_stop=False), (8, 5)),
    (APGD(Linf(0.1), steps=5, early_stop=False), (7, 6)),
]


@pytest.mark.parametrize(("attack", "passes"), PASSES, ids=str)
def test_passes_are_counted(attack: Attack, passes: tuple[int, int], network: nn.Module, batch: Batch) -> None:
    found = attack(network, batch, tile=16)
    assert set(found.forwards.tolist()) == {passes[0]}
    assert set(found.backwards.tolist()) == {passes[1]}


@pytest.mark.parametrize("attack", [a for a, _ in PASSES[1:]], ids=str)
def test_an_image_costs_nothing_once_it_is_broken(attack: Attack, network: nn.Module, batch: Batch) -> None:
    """Each row alone, step by step by hand: evaluated until the first misclassified point, and no further."""
    full, short = attack(network, batch), replace(attack, early_stop=True)(network, batch)
    assert torch.equal(full.success, short.success)
    assert torch.equal(full.clean_prediction, short.clean_prediction)
    assert short.forwards[0] == (2 if attack.loss == "kl" else 1)
    assert short.backwards[0] == 0
    assert bool((short.forwards <= full.forwards).all())
    assert bool((short.forwards < full.forwards)[short.success].any())
    assert torch.equal(short.forwards[~short.success], full.forwards[~full.success])
    survived = ~full.success
    for name in ("loss", "logit_margin", "best_loss_point", "adversarial"):
        assert torch.equal(getattr(full, name)[survived], getattr(short, name)[survived])


@dataclass(frozen=True, config=CONFIG)
class Shells(Attack):
    """Brightens by one, two, ... tenths of the pixel range, whatever the budget."""

    early_stop: bool = False

    def search(self, query: Query, randomness: Randomness) -> Tensor:
        for step in range(1, 6):
            query.value(query.images + 0.1 * step)
        return query.images


def test_the_nearest_error_of_the_box_is_reported_whatever_the_budget() -> None:
    rows = Batch(torch.full((3, 1, 1, 2), 0.2), torch.tensor([0, 0, 1]), torch.arange(3))
    found = Shells(Linf(0.15))(Bright(0.45).eval(), rows)
    assert found.success.tolist() == [False, False, True]
    assert found.nearest.tolist() == pytest.approx([0.3, 0.3, 0.0])
    torch.testing.assert_close(found.nearest_point[:2], rows.images[:2] + 0.3)
    assert bool((found.distance <= 0.15).all())
    wide = Shells(Linf(0.35))(Bright(0.45).eval(), rows)
    assert wide.success.all()
    assert torch.equal(wide.nearest, wide.distance)
    none = Shells(Linf(0.15))(Bright(0.9).eval(), rows.select([0]))
    assert none.nearest.tolist() == [torch.inf]


class Strict(Bright, Decides):
    """A forward pass that turns at one brightness, and a decision that turns at another."""

    traits = Traits(stochastic=True)

    def __init__(self, threshold: float, decided: float) -> None:
        super().__init__(threshold)
        self.decided = decided

    def decide(self, images: Tensor, key: Key) -> Tensor:
        return (images.flatten(1)[:, 0] > self.decided).long()


def test_the_nearest_error_is_an_error_of_the_decision() -> None:
    rows = Batch(torch.full((2, 1, 1, 2), 0.2), torch.zeros(2).long(), torch.arange(2))

    def nearest(decided: float, eps: float, threshold: float = 0.45) -> tuple[list[bool], list[float]]:
        found = Visits(Linf(eps), moves=(0.3,))(Strict(threshold, decided).eval(), rows)
        return found.success.tolist(), found.nearest.tolist()

    assert nearest(0.4, eps=0.1) == ([False] * 2, [pytest.approx(0.3)] * 2)
    assert nearest(0.6, eps=0.1) == ([False] * 2, [torch.inf] * 2)  # beyond the budget the decision holds
    assert nearest(0.6, eps=0.35) == ([False] * 2, [torch.inf] * 2)  # and within it
    assert nearest(0.1, eps=0.1) == ([True] * 2, [0.0] * 2)  # the image itself is decided wrongly


def test_a_point_outside_the_box_is_no_error() -> None:
    rows = Batch(torch.zeros(2, 1, 1, 2), torch.zeros(2).long(), torch.arange(2))
    found = Visits(Linf(0.1), moves=(-0.05, 0.08))(Bright(0.05).eval(), rows)  # the first is nearer and misclassified
    assert found.success.tolist() == [True, True]
    assert found.nearest.tolist() == pytest.approx([0.08, 0.08])


def test_a_gradient_is_zero_only_if_it_is_so_in_every_pixel() -> None:
    rows = Batch(torch.full((2, 1, 1, 2), 0.2), torch.zeros(2).long(), torch.arange(2))
    found = FGSM(Linf(0.01))(Bright(0.45).eval(), rows)  # only the first of two pixels matters
    assert found.backwards.tolist() == [1, 1]
    assert found.zero_gradients.tolist() == [0, 0]


def test_differences_of_a_linear_model() -> None:
    weight = torch.tensor([[1.0, 0.0], [4.0, -1.0], [0.0, 2.0]])
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 3, bias=False)).eval().requires_grad_(False)
    model[1].weight.copy_(weight)
    images = torch.tensor([[0.5, 0.25], [1.0, 0.0]]).reshape(2, 1, 1, 2)
    query = PGD(Linf(0.1)).query(model, Batch(images, torch.tensor([0, 1]), torch.arange(2)))
    values, gradients = query.differences(images, torch.tensor([[1, 2], [0, 2]]))
    assert values.tolist() == [[1.25, 0.0], [-3.0, -4.0]]  # of logits (0.5, 1.75, 0.5) and (1, 4, 0)
    expected = torch.stack([weight[[1, 2]] - weight[0], weight[[0, 2]] - weight[1]])
    assert torch.equal(gradients.flatten(2), expected)


def test_a_random_answer_that_is_wrong_at_the_image_stays_wrong() -> None:
    class Dice(nn.Module):
        traits = Traits(stochastic=True)

        def forward(self, images: Tensor) -> Tensor:
            drawn = torch.randn(len(images)) + 0.0 * images.flatten(1).sum(1)
            return torch.stack([torch.zeros_like(drawn), drawn], 1)

    rows = Batch(torch.full((64, 1, 1, 2), 0.5), torch.zeros(64).long(), torch.arange(64))
    found = PGD(Linf(0.1), steps=1, eot=3)(Dice().eval(), rows)
    wrong = found.clean_prediction != 0
    assert 10 < int(wrong.sum()) < 54
    assert found.prediction[wrong].tolist() == [1] * int(wrong.sum())  # whatever is drawn there again
    assert bool(found.success[wrong].all())


def test_the_first_class_with_most_of_the_draws_wins() -> None:
    drawn = torch.tensor([[0, 1, 1], [2, 0, 2], [2, 1, 0]])
    assert vote(drawn).tolist() == [1, 2, 0]


def test_a_success_lies_within_the_budget_to_the_last_bit(network: nn.Module, batch: Batch) -> None:
    for threat in (Linf(8 / 255), L2(0.3), L1(0.7)):
        found = PGD(threat, steps=20, early_stop=False)(network, batch)
        assert bool((found.distance[found.success] <= threat.eps).all())


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.4)], ids=str)
def test_training_gets_the_last_iterate(threat: Threat, network: nn.Module, batch: Batch) -> None:
    network.train()
    network[1].bias.requires_grad_(False)
    attack = PGD(threat, steps=4, random_start=False, step_size=0.05)
    points = attack.perturb(network, batch.images, batch.labels, Shared(torch.Generator(), len(batch)))
    assert not points.requires_grad
    assert network.training
    assert [p.requires_grad for p in network.parameters()] == [True, False, True, True]
    assert all(p.grad is None for p in network.parameters())
    expected = batch.images
    for _ in range(4):
        leaf = expected.clone().requires_grad_(True)
        loss = nn.functional.cross_entropy(network.eval()(leaf), batch.labels, reduction="sum")
        gradient = torch.autograd.grad(loss, leaf)[0]
        expected = threat.project(threat.ascend(expected, gradient, 0.05), batch.images)
    torch.testing.assert_close(points, expected, atol=1e-6, rtol=0)


def test_training_gets_points_of_the_ball(network: nn.Module, batch: Batch) -> None:
    points = Liar(Linf(0.1)).perturb(network, batch.images, batch.labels, Shared(torch.Generator(), len(batch)))
    step = 0.1 * torch.sign(torch.sin(97.0 * batch.images))
    torch.testing.assert_close(points, (batch.images + step).clamp(0, 1))


def test_a_vote_is_attacked_by_its_own_decision(batch: Batch) -> None:
    """The forward pass is wrong everywhere; the vote is right at the image, wrong where the first pixel is bright."""

    class Vote(nn.Module, Decides):
        traits = Traits(stochastic=True)

        def forward(self, images: Tensor) -> Tensor:
            first = images.flatten(1)[:, 0]
            return torch.stack([torch.zeros_like(first), 1.0 + first], 1)

        def decide(self, images: Tensor, key: Key) -> Tensor:
            return (images.flatten(1)[:, 0] > 0.5).long()

    images = torch.full((3, 1, 2, 2), 0.45)
    rows = Batch(images, torch.zeros(3).long(), batch.ids[:3])
    found = PGD(Linf(0.1), steps=3, random_start=False)(Vote().eval(), rows)
    assert found.clean_prediction.tolist() == [0, 0, 0]
    assert found.success.all()
    assert bool((found.distance > 0).all())
    mislabelled = PGD(Linf(0.1), steps=3)(Vote().eval(), Batch(images, torch.ones(3).long(), rows.ids))
    assert mislabelled.success.all()
    assert torch.equal(mislabelled.adversarial, images)  # wrong already: the image itself is the answer
    assert mislabelled.prediction.tolist() == [0, 0, 0]


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_an_error_of_the_model(broken: float) -> None:

    class Trap(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            first = images.flatten(1)[:, :1]
            logits = torch.cat([torch.zeros_like(first), first - 0.5], 1)
            return torch.where((first > 0.46) & (first < 0.51), broken, logits)

    def attack(eps: float) -> tuple[list[bool], list[int]]:
        walk = Steps(Linf(eps))
        found = walk(Trap().eval(), Batch(torch.full((2, 1, 1, 2), 0.45), torch.zeros(2).long(), torch.arange(2)))
        return found.success.tolist(), found.prediction.tolist()

    assert attack(0.005) == ([False, False], [0, 0])
    assert attack(0.03) == ([True, True], [-1, -1])


@dataclass(frozen=True, config=CONFIG)
class Steps(Attack):
    """Brightens the image step by step, without a gradient."""

    def search(self, query: Query, randomness: Randomness) -> Tensor:
        for step in range(1, 11):
            query.value(query.images + 0.1 * step * self.threat.eps)
        return query.images


def test_a_vote_that_abstains_is_not_broken() -> None:
    class Shy(nn.Module, Decides):
        traits = Traits(stochastic=True)

        def forward(self, images: Tensor) -> Tensor:
            first = images.flatten(1)[:, 0]
            return torch.stack([torch.zeros_like(first), first - 0.5], 1)

        def decide(self, images: Tensor, key: Key) -> Tensor:
            return torch.where(images.flatten(1)[:, 0] > 0.5, -1, 0)

    images = torch.full((2, 1, 1, 2), 0.45)
    found = Steps(Linf(0.1))(Shy().eval(), Batch(images, torch.zeros(2).long(), torch.arange(2)))
    assert found.prediction.tolist() == [-1, -1]
    assert found.success.tolist() == [False, False]
    shy_at_once = Steps(Linf(0.01))(Shy().eval(), Batch(images + 0.1, torch.zeros(2).long(), torch.arange(2)))
    assert shy_at_once.success.tolist() == [True, True]


@dataclass(frozen=True, config=CONFIG)
class Flat(FGSM):
    """An attack of one norm."""

    norms = ("linf",)


def test_errors_at_the_boundary(network: nn.Module, batch: Batch) -> None:
    attack = FGSM(Linf(0.1))
    with pytest.raises(HauberkError, match="no images"):
        attack(network, batch.select(slice(0, 0)))
    with pytest.raises(HauberkError, match="train mode"):
        attack(network.train(), batch)
    with pytest.raises(HauberkError, match=r"in \[0, 1\]"):
        attack(network.eval(), Batch(batch.images * 255, batch.labels, batch.ids))
    with pytest.raises(ValueError, match="not in l1"):
        Flat(L1(1.0))


def test_the_random_start_belongs_to_the_sample(network: nn.Module, batch: Batch) -> None:
    starts: list[Tensor] = []

    @dataclass(frozen=True, config=CONFIG)
    class Start(Attack):
        def search(self, query: Query, randomness: Randomness) -> Tensor:
            starts.append(randomness.uniform(3))
            return query.images

    Start(Linf(0.1))(network, batch, seed=9, tile=16)
    assert torch.equal(starts[0][:10], PerSample(9, batch.ids, "attack").uniform(3))


class OneOfTwo(nn.Module):
    """Two answers, by the first pixel: the second has the larger loss and the larger margin of logits."""

    def forward(self, images: Tensor) -> Tensor:
        first, second = torch.tensor([1.0, 0.0, -10.0]), torch.tensor([1.05, 0.0, 0.0])
        return torch.where(images[:, 0, 0, :1] > 0.5, second, first)


def test_the_point_of_largest_loss_is_kept_where_the_margin_does_not_shrink() -> None:
    start = torch.full((1, 1, 1, 1), 0.5)
    query = Query(OneOfTwo(), start, torch.zeros(1, dtype=torch.int64), Linf(0.4), "ce", tile=16, track=True)
    for pixel in (0.2, 0.8):
        query.value(torch.full_like(start, pixel))
    kept = {name: round(float(query.points[name]), 2) for name in ("loss", "logit_margin", "probability_margin")}
    assert kept == {"loss": 0.8, "logit_margin": 0.2, "probability_margin": 0.8}
