"""Auto-PGD: the schedule of the paper, halving, restarts from the best point."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from hauberk.attacks import APGD, PGD, Query
from hauberk.attacks.apgd import checkpoints
from hauberk.batch import Batch
from hauberk.conformance import check_attack
from hauberk.randomness import PerSample
from hauberk.threats import L2, Linf, norms


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


@pytest.mark.parametrize("attack", [APGD(L2(0.1), steps=10), APGD(Linf(0.03), steps=10, loss="margin")], ids=str)
def test_conformance(attack: APGD) -> None:
    check_attack(attack)


@pytest.mark.parametrize("threat", [L2(0.2), Linf(0.1)], ids=str)
def test_it_starts_on_the_surface(threat: L2 | Linf) -> None:
    images = torch.full((50, 1, 3, 3), 0.5)
    start = APGD(threat).start(images, PerSample(0, range(50), "attack"))
    torch.testing.assert_close(norms(start - images, threat.norm), torch.full((50,), threat.eps), atol=1e-6, rtol=0)
    assert float((start - images).flatten(1).mean()) == pytest.approx(0.0, abs=0.01)


class Script(nn.Module):
    """Stands in for a query: the gradient points up, the losses come from a list; it keeps the points it is given."""

    def __init__(self, images: Tensor, losses: list[float]) -> None:
        super().__init__()
        self.images, self.losses, self.points = images, iter(losses), []

    def gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        self.points.append(points.clone())
        return torch.full((len(points),), next(self.losses)), torch.ones_like(points)


def walk(losses: list[float], steps: int, eps: float = 0.1) -> tuple[Script, Tensor]:
    images = torch.full((1, 1, 1, 1), 0.3)
    script = Script(images, losses)
    best = APGD(Linf(eps), steps=steps).ascend(script, images - eps)  # type: ignore[arg-type]
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

    script = Slope(images, [0.0, 1.0, 2.0, 3.0, 4.0])
    APGD(Linf(0.1), steps=3).ascend(script, images)  # type: ignore[arg-type]
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
    best = APGD(Linf(0.4), steps=10).ascend(script, start)  # type: ignore[arg-type]
    assert torch.equal(best, start)
    values = [float(p) for p in script.points]
    assert checkpoints(10)[:3] == [2, 3, 4]
    # after the check at step 2 the walk restarts from the best point (0.1) with step 0.4, momentum from step 2's x_1
    expected = 0.1 + 0.75 * 0.4 + 0.25 * (0.1 - values[1])
    assert values[3] == pytest.approx(expected, abs=1e-6)
    # the check at step 3 halves again; the step before began at the best point, so there is no inertia
    assert values[4] == pytest.approx(0.1 + 0.75 * 0.2, abs=1e-6)


def test_a_rising_walk_keeps_its_step() -> None:
    images = torch.full((1, 1, 1, 1), 0.5)
    script = Script(images, [float(i) for i in range(11)])
    best = APGD(Linf(0.4), steps=10).ascend(script, images - 0.4)  # type: ignore[arg-type]
    assert float(best) == pytest.approx(0.9)
    assert torch.equal(best, script.points[-1])


def test_it_is_no_weaker_than_pgd(network: nn.Module, batch: Batch) -> None:
    threat = L2(0.3)
    ours = APGD(threat, steps=40)(network, batch).loss
    theirs = PGD(threat, steps=40)(network, batch).loss
    assert float((ours - theirs).mean()) > -0.02


def test_training_gets_the_best_point(network: nn.Module, batch: Batch) -> None:
    query = Query(network, batch.images, batch.labels, APGD(Linf(0.1)), track=True)
    points = APGD(Linf(0.1), steps=12).search(query, PerSample(0, batch.ids, "attack"))
    assert torch.equal(points, query.points["loss"])
