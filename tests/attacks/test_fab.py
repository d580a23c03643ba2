"""FAB: true minimum norms of linear models, in and out of reach of the box, and the published walk step for step."""

import pytest
import torch
from scipy.optimize import linprog
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from hauberk import registry
from hauberk.attacks import Query
from hauberk.attacks.fab import FAB
from hauberk.batch import Batch
from hauberk.conformance import LinearOracle, check_attack
from hauberk.randomness import PerSample, Shared
from hauberk.threats import L1, L2, Linf, Threat, norms

THREATS = [L1(0.3), L2(0.15), Linf(0.05)]
UNBOUNDED = {"l1": L1(1e3), "l2": L2(1e3), "linf": Linf(1e3)}


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Batch]:
    """A small network trained on digits for half a second, and images that it gets right."""
    source = load_digits()
    images = torch.tensor(source.images / 16, dtype=torch.float32)[:, None]
    labels = torch.tensor(source.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(256, 10),
        )  # fmt: skip
        optimiser = torch.optim.Adam(network.parameters(), 5e-3)
        for _ in range(8):
            for rows in torch.randperm(1500).split(100):
                optimiser.zero_grad()
                functional.cross_entropy(network(images[rows]), labels[rows]).backward()
                optimiser.step()
    network.eval().requires_grad_(False)
    right = (network(images[1500:]).argmax(1) == labels[1500:]).nonzero().flatten()[:32] + 1500
    return network, Batch(images[right], labels[right], right)


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize("attack", [{}, {"targets": 9}, {"targets": 1, "early_stop": True, "restarts": 2}], ids=str)
def test_conformance(threat: Threat, attack: dict[str, int]) -> None:
    check_attack(FAB(threat, steps=3, **attack))


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 3, 5)])
@pytest.mark.parametrize("targets", [None, 9])
def test_the_true_radius_of_linear_models(
    threat: Threat, classes: int, shape: tuple[int, ...], targets: int | None
) -> None:
    oracle = LinearOracle.random(shape, classes, seed=1)
    batch = oracle.batch(12, seed=2)
    true = oracle.true_radius(batch.images, threat.norm)
    found = FAB(threat, steps=12, targets=targets)(oracle, batch).nearest / true
    assert float(found.min()) >= 1 - 1e-5
    assert float(found.max()) <= 1.02


def nearest_in_the_box(oracle: LinearOracle, image: Tensor, label: int, norm: str) -> float:
    """The distance of the nearest tie with another class in the box, by linear programmes."""
    weight, bias = (p.detach().double() for p in oracle.layers.parameters())
    point, size = image.flatten().double(), image.numel()
    bounds_of = torch.eye(size) if norm == "l1" else torch.ones(size, 1)
    upper = torch.cat([torch.cat([torch.eye(size), -bounds_of], 1), torch.cat([-torch.eye(size), -bounds_of], 1)])
    many, best = bounds_of.shape[1], float("inf")
    for other in range(len(bias)):
        if other == label:
            continue
        normal = weight[other] - weight[label]
        value = float(normal @ point + bias[other] - bias[label])
        found = linprog(
            [0.0] * size + [1.0] * many,
            A_ub=torch.cat([upper, torch.cat([-normal, torch.zeros(many)])[None]]).numpy(),
            b_ub=[0.0] * (2 * size) + [value],
            bounds=[(-float(p), 1 - float(p)) for p in point] + [(0.0, None)] * many,
        )
        best = min(best, found.fun if found.status == 0 else float("inf"))
    return best


@pytest.mark.parametrize("threat", [L1(9.0), Linf(0.9)], ids=str)
def test_the_true_radius_where_the_box_is_in_the_way(threat: Threat) -> None:
    oracle = LinearOracle.random((1, 3, 4), 3, seed=5)
    generator = torch.Generator().manual_seed(6)
    images = (0.5 + 0.6 * torch.randn(60, 1, 3, 4, generator=generator)).clamp(0, 1)
    labels = oracle(images).argmax(1)
    true = torch.tensor(
        [nearest_in_the_box(oracle, x, int(y), threat.norm) for x, y in zip(images, labels, strict=True)]
    )
    hindered = (true > 1.05 * oracle.true_radius(images, threat.norm)).nonzero().flatten()
    assert len(hindered) >= 5
    true, batch = true[hindered], Batch(images[hindered], labels[hindered], hindered)
    found = FAB(threat, steps=30, targets=2)(oracle, batch)  # without targets the box may hide the nearest class
    assert float((found.nearest / true).min()) >= 1 - 1e-5
    assert float((found.nearest / true).max()) <= 1.02


def test_one_run_is_enough_for_two_classes() -> None:
    oracle = LinearOracle.random((1, 3, 4), 2, seed=0)
    batch = oracle.batch(4)
    one, nine = (FAB(L2(0.1), steps=5, targets=n)(oracle, batch) for n in (1, 9))
    assert torch.equal(one.nearest, nine.nearest)
    assert torch.equal(one.forwards, nine.forwards)


def test_an_early_stop_drops_a_row_at_its_first_error_in_the_budget() -> None:
    oracle = LinearOracle.random((1, 3, 4), 2, seed=0)
    weak, strong = oracle.at_distance(0.05, "l2"), oracle.at_distance(0.2, "l2")
    images = torch.cat([weak.images, strong.images])
    batch = Batch(images, torch.cat([weak.labels, strong.labels]), torch.arange(16))
    early = FAB(L2(0.1), steps=10, early_stop=True)(oracle, batch)
    late = FAB(L2(0.1), steps=10)(oracle, batch)
    assert torch.equal(early.success, late.success)
    assert early.stopped == ("found",) * 8 + ("steps",) * 8
    assert torch.equal(early.forwards[:8], torch.full((8,), 3))  # the image, its gradient, the first step's end
    assert torch.equal(early.forwards[8:], late.forwards[8:])
    assert torch.equal(early.nearest[8:], late.nearest[8:])


def test_the_passes_of_a_step() -> None:
    # the first step crosses a linear boundary, and so do all the others
    oracle = LinearOracle.random((1, 3, 4), 3, seed=0)
    found = FAB(Linf(0.01), steps=10, targets=1)(oracle, oracle.batch(5))
    assert set(found.backwards.tolist()) == {11}
    assert set(found.forwards.tolist()) == {1 + 1 + 2 + 8 * 2 + 1}


class Power(nn.Module):
    """Class 1 where the mean m of the pixels has m^4 > 0.01; from above, steps of Newton's method come down slowly."""

    def forward(self, images: Tensor) -> Tensor:
        ahead = images.flatten(1).mean(1) ** 4 - 0.01
        return torch.stack([torch.zeros_like(ahead), ahead], 1)


def test_the_walk_and_its_passes_by_hand() -> None:
    starts, steps, alpha_max, eta, beta = (0.9, 0.6, 0.35), 12, 0.2, 1.1, 0.8
    images = torch.tensor(starts)[:, None, None, None].expand(3, 1, 2, 2).contiguous()
    attack = FAB(Linf(0.5), steps=steps, targets=1, alpha_max=alpha_max, eta=eta, beta=beta)
    found = attack(Power().eval(), Batch(images, torch.ones(3, dtype=torch.int64), torch.arange(3)))
    firsts = set()
    for row, start in enumerate(starts):
        point, nearest, forwards, first = start, 1.0, 2, None
        for step in range(1, steps + 1):
            there = point - (point**4 - 0.01) / (4 * point**3)  # the root of the linearisation
            lengths = abs(there - point), abs(there - start)
            alpha = min(lengths[0] / sum(lengths), alpha_max)
            point = (1 - alpha) * (point + eta * (there - point)) + alpha * (start + eta * (there - start))
            first = step if first is None and point**4 < 0.01 else first
            forwards += 1 if step == steps or first is None else 2
            if point**4 < 0.01:
                nearest, point = min(nearest, start - point), start + beta * (point - start)
        firsts.add(first)
        assert float(found.nearest[row]) == pytest.approx(nearest, rel=1e-5)
        assert int(found.forwards[row]) == forwards
        assert int(found.backwards[row]) == steps + 1  # one each, one more where the boundary was crossed first
    assert len(firsts) == 3
    assert None not in firsts


def test_restarts_begin_in_a_ball_of_half_the_distance_found() -> None:
    images = torch.full((3, 1, 4, 4), 0.5)
    for threat in THREATS:
        query = Query(nn.Flatten(), images, torch.zeros(3, dtype=torch.int64), threat, "ce", track=True)
        query.best["nearest"][:] = torch.tensor([torch.inf, 0.01, 9.0])
        starts = FAB(threat)._random_start(query, PerSample(0, range(3), "attack"))
        length = norms(starts - images, threat.norm)
        limit = 0.5 * torch.tensor([threat.eps, 0.01, threat.eps])
        assert bool((length <= limit * (1 + 1e-5)).all())
        assert bool((length >= 0.5 * limit).all())


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_restarts_and_targets_find_no_less(network: nn.Module, batch: Batch, threat: Threat) -> None:
    single = FAB(threat, steps=8, targets=1)(network, batch).nearest
    restarted = FAB(threat, steps=8, targets=1, restarts=3)(network, batch).nearest
    more = FAB(threat, steps=8, targets=3)(network, batch).nearest
    assert bool((restarted <= single).all())
    assert bool((more <= single).all())
    assert float((single - more).max()) > 0


def test_training_gets_the_last_point(network: nn.Module, batch: Batch) -> None:
    randomness = Shared(torch.Generator().manual_seed(0), len(batch))
    points = FAB(Linf(0.1), steps=4, restarts=2).perturb(network, batch.images, batch.labels, randomness)
    assert float((points - batch.images).abs().max()) <= 0.1 + 1e-6
    assert not torch.equal(points, batch.images)


def test_double_precision() -> None:
    oracle = LinearOracle.random((2, 3, 2), 3, seed=4).double()
    batch = oracle.batch(6, seed=1)
    batch = Batch(batch.images.double(), batch.labels, batch.ids)
    found = FAB(L2(0.1), steps=12)(oracle, batch).nearest / oracle.true_radius(batch.images, "l2")
    assert float(found.min()) >= 1
    assert float(found.max()) <= 1.02


@pytest.mark.parametrize(("norm", "name"), [("l1", "L1"), ("l2", "L2"), ("linf", "Linf")])
@pytest.mark.parametrize("targeted", [False, True])
def test_the_published_attack_finds_nothing_nearer(
    digits: tuple[nn.Module, Batch], norm: str, name: str, targeted: bool
) -> None:
    published = pytest.importorskip("pyautoattack.fab_pt")
    network, batch = digits
    reference = published.FABAttack_PT(network, norm=name, n_iter=25, eps=1e9, targeted=targeted)
    reference.target_class = 2
    theirs = reference.attack_single_run(batch.images, batch.labels, is_targeted=targeted)
    fooled = network(theirs).argmax(1) != batch.labels
    distance = torch.where(fooled, norms(theirs - batch.images, norm), torch.inf)  # type: ignore[arg-type]
    ours = FAB(UNBOUNDED[norm], steps=25, targets=1 if targeted else None)(network, batch).nearest
    assert float(ours.median()) <= 1.02 * float(distance.median())
    if norm != "l1":  # the same walk; in L1 entries that tie take different shares of the step
        both = fooled & ours.isfinite()
        assert int(both.sum()) >= 28
        torch.testing.assert_close(ours[both], distance[both].double(), rtol=2e-3, atol=1e-5)


def test_it_is_rebuilt_from_its_spec() -> None:
    attack = FAB(L1(12.0), steps=30, targets=9, early_stop=True)
    assert registry.build(registry.spec(attack)) == attack
