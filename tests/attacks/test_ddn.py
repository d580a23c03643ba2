"""DDN: its walk by hand, the true minimum norm of linear models, rounding, and rows that need no search."""

import math

import pytest
import torch
from torch import Tensor, nn

from hauberk import registry
from hauberk.attacks.ddn import DDN, annealed
from hauberk.batch import Batch
from hauberk.conformance import LinearOracle, check_attack
from hauberk.errors import HauberkError
from hauberk.randomness import PerSample
from hauberk.threats import L2


class Script:
    """Stands in for a query: gradients and verdicts come from lists; it keeps the points it is asked about."""

    track = False

    def __init__(self, images: Tensor, gradients: list[list[float]], wrong: list[bool]) -> None:
        self.images, self.points = images, []
        self.answers = iter(zip(gradients, wrong, strict=True))
        self.wrong = torch.zeros(1, dtype=torch.bool)

    def gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        self.points.append((points - self.images).flatten().tolist())
        gradient, wrong = next(self.answers)
        self.wrong = torch.tensor([wrong])
        return torch.zeros(1), torch.tensor(gradient).reshape(self.images.shape)


def walk(gradients: list[list[float]], wrong: list[bool], **settings: float) -> tuple[list[list[float]], Tensor]:
    script = Script(torch.full((1, 1, 1, 2), 0.5), gradients, wrong)
    attack = DDN(L2(0.1), steps=len(wrong), **settings)  # type: ignore[arg-type]
    last = attack.search(script, PerSample(0, [0], "attack"))  # type: ignore[arg-type]
    return script.points, (last - 0.5).flatten()


def test_the_norm_grows_until_an_error_and_shrinks_after() -> None:
    points, last = walk([[3.0, 4.0]] * 4, [False, False, True, True], gamma=0.5, init_norm=0.1)
    lengths = [math.hypot(*p) for p in points]
    assert lengths == pytest.approx([0.0, 0.15, 0.225, 0.1125], abs=1e-6)
    assert points[1] == pytest.approx([0.09, 0.12], abs=1e-6)
    assert last.tolist() == pytest.approx([0.0675, 0.09], abs=1e-6)  # the nearer of the two errors is kept


def test_a_gradient_turns_the_direction_by_a_step_that_shrinks() -> None:
    points, last = walk([[1.0, 0.0], [0.0, 9.0]], [False, False], gamma=0.5, init_norm=0.1)
    assert points[1] == pytest.approx([0.15, 0.0], abs=1e-6)
    half = 0.01 + 0.99 / 2  # the cosine at half of the way
    scale = 0.225 / math.hypot(0.15, half)
    assert last.tolist() == pytest.approx([0.15 * scale, half * scale], abs=1e-6)


def test_the_schedule_falls_along_a_cosine() -> None:
    values = [annealed(1.0, 0.01, k, 4) for k in range(5)]
    assert values == pytest.approx([1.0, 0.01 + 0.99 * (1 + math.sqrt(0.5)) / 2, 0.505, 0.01 + 0.99 * 0.1464466, 0.01])


def test_it_stays_in_the_box() -> None:
    _, last = walk([[1.0, 0.0]] * 3, [False] * 3, gamma=0.9, init_norm=3.0)
    assert last.tolist() == pytest.approx([0.5, 0.0], abs=1e-6)


def test_the_norm_is_at_most_the_distance_of_the_farthest_corner() -> None:
    points, _ = walk([[3.0, 4.0]] * 2, [False] * 2, init_norm=10.0)
    assert points[1] == pytest.approx([0.6 * math.sqrt(0.5), 0.5], abs=1e-6)  # 0.8 of it would leave the box


def test_rounding_is_to_the_nearest_level() -> None:
    points, _ = walk([[3.0, 4.0]] * 2, [False] * 2, gamma=0.5, init_norm=0.4, quantise=11)
    assert points[1] == pytest.approx([0.4, 0.5], abs=1e-6)  # of 0.36 and 0.48


def test_a_zero_gradient_does_not_hold_it() -> None:
    points, _ = walk([[0.0, 0.0], [1.0, 0.0]], [False, False], gamma=0.5, init_norm=0.1)
    assert math.hypot(*points[1]) == pytest.approx(0.15, abs=1e-6)


@pytest.mark.parametrize("early_stop", [False, True])
def test_conformance(early_stop: bool) -> None:
    check_attack(DDN(L2(0.1), steps=15, init_norm=0.12, early_stop=early_stop))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 3, 5)], ids=str)
def test_two_classes_within_two_percent_of_the_truth(shape: tuple[int, int, int]) -> None:
    oracle = LinearOracle.random(shape, 2, seed=1)
    found = DDN(L2(0.05))(oracle, oracle.at_distance(0.2, "l2"))
    assert float(found.nearest.min()) > 0.2 * (1 - 1e-5)
    assert float(found.nearest.max()) < 0.2 * 1.02
    assert not bool(found.success.any())  # found, but beyond the budget


@pytest.mark.parametrize(("loss", "sharpness"), [("margin", 1.0), ("ce", 100.0)])
@pytest.mark.parametrize("classes", [3, 5])
def test_more_classes_within_two_percent_of_the_truth(loss: str, sharpness: float, classes: int) -> None:
    # cross-entropy points at the nearest boundary only where one rival has all the probability that is left
    weight = torch.randn(classes, 45, generator=torch.Generator().manual_seed(classes))
    oracle = LinearOracle(sharpness * weight, torch.zeros(classes), (3, 3, 5))
    batch = oracle.batch(40, seed=1)
    true = oracle.true_radius(batch.images, "l2")
    far = (true > 0.03).nonzero().flatten()
    found = DDN(L2(0.05), loss=loss)(oracle, batch.select(far))  # type: ignore[arg-type]
    ratio = found.nearest / true[far]
    assert len(ratio) > 5
    assert float(ratio.min()) > 1 - 1e-4
    assert float(ratio.median()) < 1.01


def test_rounding_to_the_levels_of_an_image_file(network: nn.Module) -> None:
    images = torch.randint(0, 256, (6, 1, 4, 4), generator=torch.Generator().manual_seed(1)) / 255
    batch = Batch(images, network(images).argmax(1), torch.arange(6))
    found = DDN(L2(0.5), steps=40, quantise=256)(network, batch)
    assert bool(found.nearest.isfinite().all())
    torch.testing.assert_close(found.nearest_point * 255, (found.nearest_point * 255).round(), atol=1e-3, rtol=0)
    free = DDN(L2(0.5), steps=40)(network, batch)
    assert float((free.nearest_point * 255 - (free.nearest_point * 255).round()).abs().max()) > 0.1


def test_what_needs_no_search_costs_none(network: nn.Module, batch: Batch) -> None:
    full = DDN(L2(10.0), steps=20)(network, batch)
    assert int(full.backwards[0]) == 0  # wrong before any attack
    assert float(full.nearest[0]) == 0.0
    assert full.backwards[1:].tolist() == [20] * 9
    assert full.forwards[1:].tolist() == [1 + 20 + 1] * 9
    early = DDN(L2(10.0), steps=20, early_stop=True)(network, batch)
    assert bool(early.success.all())
    assert bool((early.backwards[1:] < 20).all())
    assert bool((early.nearest >= full.nearest).all())


def test_training_gets_the_nearest_error(network: nn.Module, batch: Batch) -> None:
    points = DDN(L2(10.0), steps=30).perturb(network, batch.images, batch.labels, PerSample(0, batch.ids, "attack"))
    found = DDN(L2(10.0), steps=30)(network, batch)
    assert bool((network(points).argmax(1) != batch.labels).all())
    length = (points - batch.images).flatten(1).norm(dim=1).double()
    # the evaluation looks at the last iterate as well
    assert bool((found.nearest <= length + 1e-5).all())
    assert bool((length <= found.nearest * 1.06 + 1e-5).all())


def test_it_is_rebuilt_from_its_spec_and_works_in_l2_alone() -> None:
    attack = DDN(L2(0.5), steps=7, quantise=256, loss="margin")
    assert registry.build(registry.spec(attack)) == attack
    with pytest.raises(HauberkError, match="l2"):
        registry.build({"name": "ddn", "threat": "linf:0.1"})
