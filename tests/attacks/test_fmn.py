"""FMN: the rule of its radius by hand, and the true minimum norm of linear models in every norm."""

import math

import pytest
import torch
from torch import Tensor, nn

from hauberk import registry
from hauberk.attacks.fmn import FMN
from hauberk.batch import Batch
from hauberk.conformance import LinearOracle, check_attack
from hauberk.errors import HauberkError
from hauberk.randomness import PerSample
from hauberk.threats import L1, L2, Linf, Threat

THREATS = [L1(0.3), L2(0.15), Linf(0.05)]


class Script:
    """Stands in for a query: values and verdicts come from lists, the gradient is one and the same."""

    track = False

    def __init__(self, answers: list[tuple[float, bool]], gradient: list[float]) -> None:
        self.images = torch.full((1, 1, 1, len(gradient)), 0.5)
        self.slope = torch.tensor(gradient).reshape(self.images.shape)
        self.answers, self.points = iter(answers), []
        self.wrong = torch.zeros(1, dtype=torch.bool)

    def gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        self.points.append((points - self.images).flatten().tolist())
        value, wrong = next(self.answers)
        self.wrong = torch.tensor([wrong])
        return torch.tensor([value]), self.slope


def walk(
    threat: Threat, answers: list[tuple[float, bool]], gradient: list[float], **settings: float
) -> list[list[float]]:
    script = Script(answers, gradient)
    attack = FMN(threat, steps=len(answers), **settings)  # type: ignore[arg-type]
    last = attack.search(script, PerSample(0, [0], "attack"))  # type: ignore[arg-type]
    return [*script.points, (last - 0.5).flatten().tolist()]


def annealed(first: float, last: float, step: int, steps: int) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * step / steps)) / 2


@pytest.mark.parametrize(
    ("threat", "radius"),
    # the margin 0.5 over the dual norm of the gradient (3, 4)
    [(L1(1.0), 0.5 / 4), (L2(1.0), 0.5 / 5), (Linf(1.0), 0.5 / 7)],
    ids=str,
)
def test_the_first_radius_is_the_distance_to_the_linear_boundary_and_a_little_more(
    threat: Threat, radius: float
) -> None:
    points = walk(threat, [(-0.5, False), (-0.5, False)], [3.0, 4.0], gamma=0.2)
    length = {"l1": sum, "l2": lambda p: math.hypot(*p), "linf": max}[threat.norm](points[1])
    assert length == pytest.approx(1.2 * radius, abs=1e-6)
    # nothing found yet: from where it stands another step of that length, with the next gamma
    length = {"l1": sum, "l2": lambda p: math.hypot(*p), "linf": max}[threat.norm](points[2])
    assert length == pytest.approx((1.2 + 1 + annealed(0.2, 0.001, 1, 2)) * radius, abs=1e-6)


def test_after_an_error_the_radius_shrinks_and_after_a_miss_it_grows() -> None:
    answers = [(-1.0, False), (0.1, True), (0.1, True), (-0.1, False)]
    points = walk(L2(1.0), answers, [3.0, 4.0], gamma=0.4)
    lengths = [math.hypot(*p) for p in points]
    gammas = [annealed(0.4, 0.001, k, 4) for k in range(4)]
    first = 1.4 * 0.2
    second = first * (1 - gammas[1])
    third = second * (1 - gammas[2])
    assert lengths[:4] == pytest.approx([0.0, first, second, third], abs=1e-6)
    assert lengths[4] == pytest.approx(second, abs=1e-6)  # what is returned: the nearest error


def test_the_radius_grows_again_after_a_miss() -> None:
    answers = [(-1.0, False), (0.1, True), (-0.1, False), (0.1, True)]
    script = Script(answers, [3.0, 4.0])
    FMN(L2(1.0), steps=4, gamma=0.4).search(script, PerSample(0, [0], "attack"))  # type: ignore[arg-type]
    gammas = [annealed(0.4, 0.001, k, 4) for k in range(4)]
    assert math.hypot(*script.points[3]) == pytest.approx(0.28 * (1 - gammas[1]) * (1 + gammas[2]), abs=1e-6)


def test_the_radius_never_exceeds_the_smallest_change_that_worked() -> None:
    # the step is too short to reach the sphere, so the change stays below the radius
    answers = [(-1.0, False), (0.1, True), (0.1, True)]
    script = Script(answers, [3.0, 4.0])
    FMN(L2(1.0), steps=3, step_size=0.05, gamma=0.01).search(script, PerSample(0, [0], "attack"))  # type: ignore[arg-type]
    assert [math.hypot(*p) for p in script.points] == pytest.approx([0.0, 0.05, 0.05], abs=1e-6)


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_conformance(threat: Threat) -> None:
    check_attack(FMN(threat, steps=12))


def test_conformance_with_early_stop() -> None:
    check_attack(FMN(Linf(0.05), steps=12, early_stop=True))


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 3, 5)], ids=str)
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_linear_models_within_two_percent_of_the_truth(
    threat: Threat, shape: tuple[int, int, int], classes: int
) -> None:
    oracle = LinearOracle.random(shape, classes, seed=classes)
    batch = oracle.batch(24, seed=1)
    found = FMN(threat)(oracle, batch)
    ratio = found.nearest / oracle.true_radius(batch.images, threat.norm)
    assert float(ratio.min()) > 1 - 1e-3
    # with rivals of like rank the walk may end at the boundary of the second nearest
    assert float((ratio < 1.02).double().mean()) >= (1.0 if classes == 2 else 0.7)
    assert float(ratio.median()) < 1.001


def test_double_precision(network: nn.Module, batch: Batch) -> None:
    exact = Batch(batch.images.double(), batch.labels, batch.ids)
    found = FMN(L1(1.0), steps=20)(network.double(), exact)
    assert found.nearest_point.dtype == torch.float64
    assert bool(found.nearest.isfinite().all())


def test_what_needs_no_search_costs_none(network: nn.Module, batch: Batch) -> None:
    full = FMN(Linf(1.0), steps=20)(network, batch)
    assert int(full.backwards[0]) == 0
    assert float(full.nearest[0]) == 0.0
    assert full.forwards[1:].tolist() == [1 + 20 + 1] * 9
    early = FMN(Linf(1.0), steps=20, early_stop=True)(network, batch)
    assert bool(early.success.all())
    assert bool((early.backwards[1:] < 20).all())
    assert bool((early.nearest >= full.nearest).all())


def test_training_gets_the_nearest_error(network: nn.Module, batch: Batch) -> None:
    points = FMN(L2(10.0)).perturb(network, batch.images, batch.labels, PerSample(0, batch.ids, "attack"))
    found = FMN(L2(10.0))(network, batch)
    assert bool((network(points).argmax(1) != batch.labels).all())
    length = (points - batch.images).flatten(1).norm(dim=1).double()
    torch.testing.assert_close(length[1:], found.nearest[1:], rtol=1e-2, atol=1e-5)


def test_it_is_rebuilt_from_its_spec_and_has_one_loss() -> None:
    attack = FMN(L1(12.0), steps=7, gamma=0.1)
    assert registry.build(registry.spec(attack)) == attack
    with pytest.raises(HauberkError, match="margin"):
        registry.build({"name": "fmn", "threat": "l2:0.5", "loss": "ce"})
