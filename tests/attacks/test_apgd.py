"""Auto-PGD: the schedule of the paper, halving, restarts from the best point, and the published code's own walk."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hauberk.attacks import APGD, PGD, Query
from hauberk.attacks.apgd import ascend_l1, checkpoints
from hauberk.attacks.losses import attack_loss
from hauberk.batch import Batch
from hauberk.classifier import margins
from hauberk.conformance import LinearOracle, check_attack
from hauberk.randomness import PerSample
from hauberk.threats import L1, L2, Linf, Threat, norms


def test_the_published_schedule() -> None:
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 20, 50, 1000])
def test_the_schedule_of_other_lengths(steps: int) -> None:
    found = checkpoints(steps)
    assert found[0] == max(1, int(0.22 * steps))
    assert found[-1] <= steps
    periods = [b - a for a, b in pairwise([0, *found])]
    assert periods == sorted(periods, reverse=True)
    assert min(periods) >= max(1, int(0.06 * steps))


CONFORMING = [
    APGD(L2(0.1), steps=10),
    APGD(Linf(0.03), steps=10, loss="margin"),
    APGD(Linf(0.03), steps=10, loss="dlr"),
    APGD(L2(0.1), steps=10, loss="dlr", targets=9),
    APGD(L1(0.3), steps=25),
    APGD(L1(0.3), steps=50, loss="dlr", targets=2, shrinking=True),
]


@pytest.mark.parametrize("attack", CONFORMING, ids=str)
def test_conformance(attack: APGD) -> None:
    check_attack(attack)


@pytest.mark.parametrize("threat", [L2(0.2), Linf(0.1)], ids=str)
def test_it_starts_on_the_surface(threat: L2 | Linf) -> None:
    images = torch.full((50, 1, 3, 3), 0.5)
    start = APGD(threat).start(images, PerSample(0, range(50), "attack"))
    torch.testing.assert_close(norms(start - images, threat.norm), torch.full((50,), threat.eps), atol=1e-6, rtol=0)
    assert float((start - images).flatten(1).mean()) == pytest.approx(0.0, abs=0.01)


class Script(Query):
    """A query whose gradient points up and whose losses come from a list; it keeps the points it is given."""

    def __init__(self, images: Tensor, losses: list[float], eps: float = 0.4) -> None:
        super().__init__(nn.Identity(), images, torch.zeros(len(images)).long(), Linf(eps), "ce")
        self.losses, self.points = iter(losses), []

    def gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        self.points.append(points.clone())
        return torch.full((len(points),), next(self.losses)), torch.ones_like(points)


def walk(losses: list[float], steps: int, eps: float = 0.1) -> tuple[Script, Tensor]:
    images = torch.full((1, 1, 1, 1), 0.3)
    script = Script(images, losses, eps)
    best = APGD(Linf(eps), steps=steps).ascend(script, images - eps)
    return script, best


def test_the_first_step_is_twice_the_budget_and_the_next_has_momentum() -> None:
    script, _ = walk([0.0, 1.0, 2.0, 3.0], steps=3)
    values = [float(p) for p in script.points]
    assert values[0] == pytest.approx(0.2)
    assert values[1] == pytest.approx(0.4)  # 2 eps from the lower end reaches the upper end
    assert values[2] == pytest.approx(0.4)


def test_momentum_is_a_weighted_mean_of_step_and_inertia() -> None:
    images = torch.full((1, 1, 1, 1), 0.5)

    class Slope(Script):
        def gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
            value, _ = super().gradient(points)
            sign = 1.0 if len(self.points) == 1 else -1.0
            return value, torch.full_like(points, sign)

    script = Slope(images, [0.0, 1.0, 2.0, 3.0, 4.0], 0.1)
    APGD(Linf(0.1), steps=3).ascend(script, images)
    values = [float(p) - 0.5 for p in script.points]
    assert values[:2] == pytest.approx([0.0, 0.1], abs=1e-6)
    # z = -0.1, x = 0.1 + 0.75 * (-0.2) + 0.25 * (0.1 - 0)
    assert values[2] == pytest.approx(-0.025, abs=1e-6)
    # z = -0.1, x = -0.025 + 0.75 * (-0.075) + 0.25 * (-0.025 - 0.1) = -0.1125, cut to the ball
    assert values[3] == pytest.approx(-0.1, abs=1e-6)


def test_a_stalled_walk_halves_its_step_and_goes_back_to_the_best_point() -> None:
    # ten steps: checks after 2, 4, 6 ...; the loss falls after the start, so each check halves
    images = torch.full((1, 1, 1, 1), 0.5)

    start = images - 0.4
    script = Script(images, [9.0, *[1.0] * 10])
    best = APGD(Linf(0.4), steps=10).ascend(script, start)
    assert torch.equal(best, start)
    values = [float(p) for p in script.points]
    assert checkpoints(10)[:3] == [2, 3, 4]
    # after the check at step 2 the walk restarts from the best point (0.1) with step 0.4, momentum from step 2's x_1
    expected = 0.1 + 0.75 * 0.4 + 0.25 * (0.1 - values[1])
    assert values[3] == pytest.approx(expected, abs=1e-6)
    # the check at step 3 halves again; the step before began at the best point, so there is no inertia
    assert values[4] == pytest.approx(0.1 + 0.75 * 0.2, abs=1e-6)


def test_a_walk_that_rises_without_a_new_best_loss_goes_back() -> None:
    # checks after 8 and 15 of 40 steps; to the second, six of seven steps rise, but the loss of 8 is not reached again
    images = torch.full((1, 1, 1, 1), 0.5)

    class Turns(Script):
        def gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
            value, _ = super().gradient(points)
            return value, torch.full_like(points, 1.0 if len(self.points) <= 9 else -1.0)

    assert checkpoints(40)[:2] == [8, 15]
    script = Turns(images, [*map(float, range(9)), *map(float, range(7)), *[0.0] * 25])
    APGD(Linf(0.4), steps=40).ascend(script, images - 0.4)
    values = [float(p) for p in script.points]
    assert values[8] == pytest.approx(0.9)
    assert values[15] == pytest.approx(0.1)
    assert values[16] == pytest.approx(0.9)  # from the best point, in the direction of its own gradient


def test_a_rising_walk_keeps_its_step() -> None:
    images = torch.full((1, 1, 1, 1), 0.5)
    script = Script(images, [float(i) for i in range(11)])
    best = APGD(Linf(0.4), steps=10).ascend(script, images - 0.4)
    assert float(best) == pytest.approx(0.9)
    assert torch.equal(best, script.points[-1])


def test_it_is_no_weaker_than_pgd(network: nn.Module, batch: Batch) -> None:
    threat = L2(0.3)
    ours = APGD(threat, steps=40)(network, batch).loss
    theirs = PGD(threat, steps=40)(network, batch).loss
    assert float((ours - theirs).mean()) > -0.02


def test_training_gets_the_best_point(network: nn.Module, batch: Batch) -> None:
    query = Query(network, batch.images, batch.labels, Linf(0.1), "ce", track=True)
    points = APGD(Linf(0.1), steps=12).search(query, PerSample(0, batch.ids, "attack"))
    assert torch.equal(points, query.points["loss"])


class Smooth(nn.Module):
    """A small net without kinks, in float64."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(6 * 5 * 4, 12), nn.Tanh(),
            nn.Linear(12, classes),
        )  # fmt: skip
        self.double().eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return 4.0 * self.layers(images)


class Recorder(Query):
    """Keeps the points it is asked about."""

    asked: list[Tensor]

    def gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        self.asked = [*getattr(self, "asked", []), points.detach().clone()]
        return super().gradient(points)


def inside(rows: int, classes: int = 5) -> tuple[Smooth, Tensor, Tensor]:
    """A smooth net with images that keep away from the box's faces."""
    net = Smooth(classes)
    images = 0.3 + 0.4 * torch.rand(rows, 2, 5, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return net, images, net(images).argmax(1)


def by_the_paper(net: nn.Module, x: Tensor, y: Tensor, start: Tensor, norm: str, eps: float) -> list[np.ndarray]:
    """Algorithm 1 of Croce & Hein 2020 for one image, written for one image and in numpy, box inactive."""

    def ask(point: np.ndarray) -> tuple[float, np.ndarray]:
        leaf = torch.from_numpy(point)[None].requires_grad_(True)
        loss = nn.functional.cross_entropy(net(leaf), y)
        return float(loss.detach()), torch.autograd.grad(loss, leaf)[0][0].numpy()

    def pull(point: np.ndarray) -> np.ndarray:
        change = point - origin
        if norm == "linf":
            return origin + np.clip(change, -eps, eps)
        length = np.sqrt((change**2).sum())
        return origin + change * min(1.0, eps / length)

    def unit(gradient: np.ndarray) -> np.ndarray:
        return np.sign(gradient) if norm == "linf" else gradient / np.sqrt((gradient**2).sum())

    origin, now = x[0].numpy(), start[0].numpy()
    step, checks = 2.0 * eps, [22, 41, 57, 70, 80, 87, 93, 99]
    before = now
    losses, gradients, walk = [], [], [now]
    loss, gradient = ask(now)
    best, best_loss, best_gradient = now, loss, gradient
    losses.append(loss)
    since, previous_best, halved = 0, best_loss, True
    for k in range(1, 101):
        towards = pull(now + step * unit(gradient))
        a = 1.0 if k == 1 else 0.75
        following = pull(now + a * (towards - now) + (1.0 - a) * (now - before))
        before, now = now, following
        loss, gradient = ask(now)
        walk.append(now)
        losses.append(loss)
        gradients.append(gradient)
        if loss > best_loss:
            best, best_loss, best_gradient = now, loss, gradient
        if k in checks:
            rises = sum(losses[i] > losses[i - 1] for i in range(since + 1, k + 1))
            stuck = not halved and best_loss <= previous_best
            halved = rises <= 0.75 * (k - since) or stuck
            if halved:
                step, now, gradient = step / 2.0, best, best_gradient
            since, previous_best = k, best_loss
    return walk


@pytest.mark.parametrize("threat", [Linf(0.12), L2(0.2)], ids=str)
def test_it_follows_the_paper_step_by_step(threat: Threat) -> None:
    net, images, labels = inside(4)
    start = APGD(threat).start(images, PerSample(0, range(4), "attack"))
    query = Recorder(net, images, labels, threat, "ce")
    APGD(threat).ascend(query, start)
    for row in range(4):
        own = slice(row, row + 1)
        walk = by_the_paper(net, images[own], labels[own], start[own], threat.norm, threat.eps)
        ours = torch.stack([p[row] for p in query.asked]).numpy()
        assert np.abs(ours - np.stack(walk)).max() < 1e-5


def by_the_paper_l1(net: nn.Module, x: Tensor, y: Tensor, start: Tensor, eps: float, fresh: bool) -> list[np.ndarray]:
    """Algorithm 1 of Croce & Hein 2021 for one image and 100 steps, in numpy, box inactive."""

    def ask(point: np.ndarray) -> tuple[float, np.ndarray]:
        leaf = torch.from_numpy(point.reshape(x.shape)).requires_grad_(True)
        loss = nn.functional.cross_entropy(net(leaf), y)
        return float(loss.detach()), torch.autograd.grad(loss, leaf)[0].numpy().ravel()

    def pull(point: np.ndarray) -> np.ndarray:
        size = np.abs(point - origin)
        if size.sum() <= eps:
            return point
        falling = np.sort(size)[::-1]
        excess = (np.cumsum(falling) - eps) / np.arange(1, len(size) + 1)
        threshold = excess[np.nonzero(falling > excess)[0][-1]]
        return origin + np.sign(point - origin) * np.maximum(size - threshold, 0.0)

    def changed(point: np.ndarray) -> int:
        return int(np.count_nonzero(point != origin))

    origin, now = x.numpy().ravel(), start.numpy().ravel()
    loss, gradient = ask(now)
    best, best_loss, best_gradient, walk, step = now, loss, gradient, [now], eps
    count, before = (0.2 * len(now), len(now)) if fresh else (changed(now) / 1.5, changed(now))
    for k in range(1, 101):
        chosen = np.argsort(-np.abs(gradient))[: int(np.ceil(count))]
        move = np.zeros_like(now)
        move[chosen] = np.sign(gradient[chosen]) / len(chosen)
        now = pull(now + step * move)
        loss, gradient = ask(now)
        walk.append(now)
        if loss > best_loss:
            best, best_loss, best_gradient = now, loss, gradient
        if k % 4 == 0:
            present = changed(best)
            count = 1 if present <= 2 else present / 1.5
            if present < 0.95 * before:
                step, now, gradient = eps, best, best_gradient
            else:
                step = max(step / 1.5, eps / 10)
            before = present
    return walk


@pytest.mark.parametrize("fresh", [False, True])
def test_in_l1_it_follows_the_paper_step_by_step(fresh: bool) -> None:
    net, images, labels = inside(4)
    start = L1(0.25).project(images + 0.1 * torch.sin(97.0 * images), images)
    query = Recorder(net, images, labels, L1(0.25), "ce")
    ascend_l1(query, start, 0.25, 100, fresh)
    for row in range(4):
        own = slice(row, row + 1)
        walk = by_the_paper_l1(net, images[own], labels[own], start[own], 0.25, fresh)
        ours = torch.stack([p[row].flatten() for p in query.asked]).numpy()
        assert np.abs(ours - np.stack(walk)).max() < 1e-5


@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("threat", [Linf(0.12), L2(0.2), L1(2.0)], ids=str)
def test_it_follows_the_published_code(threat: Threat, loss: str) -> None:
    published = pytest.importorskip("pyautoattack.autopgd_base")
    net, images, labels = inside(6)
    start = APGD(threat).start(images, PerSample(0, range(6), "attack"))
    walk: list[Tensor] = []

    def watched(points: Tensor) -> Tensor:
        walk.append(points.detach().clone())
        return net(points)

    reference = published.APGDAttack(
        watched, norm=threat.norm.capitalize(), eps=threat.eps, loss=loss, device="cpu", n_iter=100
    )
    reference.init_hyperparam(images)
    reference.attack_single_run(images, labels, x_init=start)
    query = Recorder(net, images, labels, threat, loss)
    if threat.norm == "l1":
        ascend_l1(query, start, threat.eps, 100)
    else:
        APGD(threat, loss=loss).ascend(query, start)
    assert len(query.asked) == len(walk) == 101
    # in L1 the published projection computes in float32 and leaves dust where a pixel should return to the image's
    # own value, which its count of changed pixels then counts: the walks agree up to the first such count
    steps = 5 if threat.norm == "l1" else 101
    pairs = list(zip(query.asked, walk, strict=True))[:steps]
    assert max(float((ours - theirs).abs().max()) for ours, theirs in pairs) < 1e-5


def test_targets_are_the_likeliest_wrong_classes_in_turn() -> None:
    net, images, labels = inside(5)
    seen: list[Tensor] = []

    class Watching(Query):
        def gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
            assert self.targets is not None
            seen.append(self.targets)
            return super().gradient(points)

    query = Watching(net, images, labels, Linf(0.05), "dlr")
    APGD(Linf(0.05), steps=2, loss="dlr", targets=9).search(query, PerSample(0, range(5), "attack"))
    assert query.targets is None
    ranked = net(images).argsort(1, descending=True)
    assert torch.equal(torch.stack(seen[::3], 1), ranked[:, 1:])


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_have_few_targets(classes: int) -> None:
    net, images, labels = inside(5, classes)
    batch = Batch(images, labels, torch.arange(5))
    for threat in (Linf(0.9), L2(4.0), L1(20.0)):
        found = APGD(threat, steps=20, loss="dlr", targets=9, early_stop=False)(net, batch)
        assert found.backwards.tolist() == [(classes - 1) * 21] * 5
        assert bool((found.logit_margin < margins(found.clean_probabilities.log(), labels)).all())


def test_phases_of_l1_shrink_to_the_budget() -> None:
    oracle = LinearOracle.random((1, 4, 4), 2, seed=1)
    batch = oracle.at_distance(0.2, "l1")
    query = Recorder(oracle, batch.images, batch.labels, L1(0.1), "ce")
    APGD(L1(0.1), steps=10, shrinking=True).search(query, PerSample(0, batch.ids, "attack"))
    assert len(query.asked) == 13
    reach = [float(norms(p - batch.images, "l1").max()) for p in query.asked]
    assert max(reach[:4]) == pytest.approx(0.3, rel=1e-3)
    assert max(reach[4:8]) <= 0.2 * (1 + 1e-4)
    assert max(reach[8:]) <= 0.1 * (1 + 1e-4)


def test_the_difference_of_logits_ratio_by_hand() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.5, -1.0], [0.0, 2.0, 1.0, 1.5]])
    labels = torch.tensor([0, 2])
    value = attack_loss("dlr", logits, labels)
    torch.testing.assert_close(value, torch.tensor([-(3.0 - 1.0) / 2.5, -(1.0 - 2.0) / 1.0]))
    torch.testing.assert_close(attack_loss("dlr", 1e4 * logits, labels), value)
    torch.testing.assert_close(attack_loss("dlr", logits[:, :2], labels % 2), torch.tensor([-2.0, 2.0]))


def test_in_l1_it_ends_on_one_pixel_where_that_is_best() -> None:
    oracle = LinearOracle.random((1, 4, 4), 2, seed=0)
    batch = oracle.at_distance(0.4, "l1")
    assert int(APGD(L1(0.45), steps=100)(oracle, batch).success.sum()) >= 7
    assert APGD(L1(0.45), steps=100, restarts=2)(oracle, batch).success.all()
    assert not APGD(L1(0.39), steps=100)(oracle, batch).success.any()
