"""Square: shapes and places of its squares, the budget at every query, the climb, and the published implementation."""

from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from hauberk.attacks import Query, square
from hauberk.attacks.square import Square, peaks
from hauberk.batch import Batch
from hauberk.conformance import LinearOracle, check_attack
from hauberk.errors import HauberkError
from hauberk.randomness import PerSample
from hauberk.threats import L1, L2, Linf, Threat

SHAPES = [(1, 3, 5), (3, 8, 8), (2, 7, 4), (1, 1, 1), (1, 11, 6)]
THREATS = [L1(1.5), L2(0.5), Linf(0.1)]


class Spy(Query):
    """Keeps the points that it is asked about; its values come from a function of them."""

    def __init__(self, images: Tensor, threat: Threat, value: Any) -> None:
        super().__init__(nn.Identity(), images, torch.zeros(len(images)).long(), threat, "margin")
        self.asked: list[Tensor] = []
        self._value = value

    def value(self, points: Tensor) -> Tensor:
        self.asked.append(points.clone())
        return self._value(points)


def flat(points: Tensor) -> Tensor:
    return torch.zeros(len(points))


def wavy(points: Tensor) -> Tensor:
    """A loss with many hills, so that about half of the proposals are taken at first."""
    weights = torch.randn(points[0].numel(), generator=torch.Generator().manual_seed(0))
    return (3.0 * points.flatten(1) @ weights).sin() + 0.1 * (points.flatten(1) @ weights)


def search(attack: Square, images: Tensor, value: Any, first: int = 0) -> tuple[Spy, Tensor]:
    query = Spy(images, attack.threat, value)
    return query, attack.search(query, PerSample(0, range(first, first + len(images)), "attack"))


@pytest.mark.parametrize("threat", [L1(0.3), L2(0.15), Linf(0.05)], ids=str)
def test_conformance(threat: Threat) -> None:
    check_attack(Square(threat, queries=12), gradient=False)
    check_attack(Square(threat, queries=5, restarts=2, loss="ce", early_stop=False), gradient=False)


def test_the_schedule() -> None:
    attack = Square(Linf(0.1), p_init=0.8)
    ends = [0, 10, 11, 50, 51, 200, 201, 500, 501, 1000, 1001, 2000, 2001, 4000, 4001, 6000, 6001, 8000, 8001, 99_999]
    halvings = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9]
    assert [attack.share(number) for number in ends] == [0.8 / 2**k for k in halvings]
    short = Square(Linf(0.1), queries=100, rescale_schedule=True)
    assert [short.share(k) for k in (0, 1, 2, 3, 81, 99)] == [0.8, 0.2, 0.2, 0.1, 0.8 / 512, 0.8 / 512]
    reference = pytest.importorskip("pyautoattack.square").SquareAttack(nn.Identity(), n_queries=5000)
    for rescale in (False, True):
        reference.rescale_schedule = rescale
        ours = Square(Linf(0.1), rescale_schedule=rescale)
        assert [ours.share(k) for k in range(5000)] == [reference.p_selection(k) for k in range(5000)]


@pytest.mark.parametrize("side", [1, 2, 3, 5, 6, 9])
@pytest.mark.parametrize(("power", "decay"), [(2, 2), (1, 4)])
def test_the_peaks(side: int, power: int, decay: int) -> None:
    upper = side // 2
    expected = torch.zeros(side, side, dtype=torch.float64)
    for top, height, sign in ((0, upper, 1.0), (upper, side - upper, -1.0)):
        part = torch.zeros(height, side, dtype=torch.float64)
        for i in range(height):
            for j in range(side):
                ring = max(abs(i - height // 2), abs(j - side // 2))
                part[i, j] = sum(k**-decay for k in range(ring + 1, max(height // 2, side // 2) + 2))
        if height:
            expected[top : top + height] = sign * part / part.pow(power).sum() ** (1 / power)
    expected /= expected.abs().pow(power).sum() ** (1 / power)
    torch.testing.assert_close(peaks(side, power), expected)


@pytest.mark.parametrize("threat", [*THREATS, L1(0.0), L2(0.0), Linf(0.0), L1(30.0), L2(4.0)], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_query_lies_in_the_ball_and_the_box(threat: Threat, shape: tuple[int, ...]) -> None:
    images = torch.rand(6, *shape, generator=torch.Generator().manual_seed(1))
    images[:2] = images[:2].round()  # corners of the box
    query, _ = search(Square(threat, queries=130, restarts=2), images, wavy)
    points = torch.stack(query.asked)
    assert len(points) == 2 * 131
    assert bool(points.isfinite().all())
    assert float(points.min()) >= 0.0
    assert float(points.max()) <= 1.0
    far = max(float(threat.distance(p, images).max()) for p in query.asked)
    assert far <= threat.eps * (1 + 1e-6) + 1e-7


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_the_climb_never_goes_down_and_returns_its_summit(threat: Threat) -> None:
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    query, points = search(Square(threat, queries=250), images, wavy)
    values = torch.stack([wavy(p) for p in query.asked])
    assert torch.equal(wavy(points), values.max(0).values)
    assert torch.equal(points, torch.stack(query.asked)[values.argmax(0), torch.arange(6)])
    taken = values[1:] > values.cummax(0).values[:-1]
    assert bool(taken.any(0).all()) and int(taken.sum()) >= 3 * len(images)  # how often for one depends on last bits
    assert int((~taken).sum(0).min()) >= 100


def test_linf_squares_have_the_scheduled_side_and_one_sign_a_channel() -> None:
    images = torch.full((200, 2, 8, 9), 0.5)
    query, _ = search(Square(Linf(0.1), queries=12), images, flat)
    start = query.asked[0]
    torch.testing.assert_close((start - images).abs(), torch.full_like(images, 0.1))
    assert torch.equal(start, start[:, :, :1].expand_as(start))  # vertical stripes
    seen = set()
    for number, points in enumerate(query.asked[1:]):
        changed = points != start
        side = {False: round((0.8 * 72) ** 0.5), True: round((0.4 * 72) ** 0.5)}[number > 10]
        for row in range(200):
            for channel in range(2):
                rows, columns = changed[row, channel].nonzero(as_tuple=True)
                if len(rows):
                    assert int(rows.max() - rows.min()) == side - 1
                    assert int(columns.max() - columns.min()) < side
                    assert len({round(float(v), 4) for v in points[row, channel][changed[row, channel]]}) == 1
                    seen.add((number > 10, int(rows.min())))
    assert {first for late, first in seen if late} == set(range(8 - 5 + 1))


def test_all_places_are_equally_likely_the_last_ones_too() -> None:
    images = torch.full((300, 1, 4, 5), 0.5)
    query, _ = search(Square(Linf(0.1), queries=40, p_init=0.01), images, flat)  # squares of one pixel
    counts = sum((points != query.asked[0]).sum(0).flatten() for points in query.asked[1:])
    assert float(stats.chisquare(counts.numpy()).pvalue) > 1e-3
    assert float(counts.sum()) == pytest.approx(300 * 40 / 2, rel=0.05)  # half of the signs differ

    images = torch.full((4000, 1, 5, 6), 0.5)
    query, _ = search(Square(Linf(0.1), queries=1, p_init=0.3), images, flat)  # squares of three pixels
    share = (query.asked[1] != query.asked[0]).float().mean(0)[0]
    tall, wide = torch.tensor([1, 2, 3, 2, 1]) / 3, torch.tensor([1, 2, 3, 3, 2, 1]) / 4
    expected = 0.5 * tall[:, None] * wide
    assert bool(((share - expected).abs() < 5 * (expected * (1 - expected) / 4000).sqrt()).all())


@pytest.mark.parametrize("threat", [L2(0.4), L1(0.8)], ids=str)
def test_away_from_the_box_the_whole_budget_is_used(threat: Threat) -> None:
    images = torch.full((20, 3, 10, 10), 0.5)
    query, _ = search(Square(threat, queries=300), images, wavy)
    for points in query.asked:
        far = threat.distance(points, images)
        torch.testing.assert_close(far, torch.full_like(far, threat.eps), atol=0, rtol=1e-5)


def test_an_l2_proposal_empties_one_window_and_fills_another() -> None:
    images = torch.full((300, 1, 20, 20), 0.5)
    query, _ = search(Square(L2(0.4), queries=1, p_init=9 / 400), images, flat)
    start, points = (asked - images for asked in query.asked)
    changed = ((points - start).abs() > 1e-7)[:, 0]
    emptied = (changed & (points[:, 0] == 0)).sum((1, 2))
    filled = (changed & (points[:, 0] != 0)).sum((1, 2))
    apart = filled + emptied == 18
    assert float(apart.float().mean()) > 0.8  # two windows of side 3 seldom overlap in 18 * 18 places
    mass = (start[:, 0].square() * changed).sum((1, 2)), (points[:, 0].square() * changed).sum((1, 2))
    torch.testing.assert_close(*mass, atol=1e-6, rtol=1e-4)
    assert bool((filled >= 5).all())


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_a_row_is_searched_by_its_own_numbers(threat: Threat, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    attack = Square(threat, queries=120)
    query, points = search(attack, images, wavy)
    _, part = search(attack, images[3:5], wavy, first=3)
    torch.testing.assert_close(part, points[3:5])
    monkeypatch.setattr(square, "BLOCK", 7)
    torch.testing.assert_close(search(attack, images, wavy)[1], points)
    assert not torch.equal(query.asked[1][0] - images[0], query.asked[1][1] - images[1])


@pytest.mark.parametrize("shape", [(1, 3, 5), (3, 5, 5)], ids=str)
def test_linear_models_are_broken_at_one_and_a_half_times_their_radius(shape: tuple[int, ...]) -> None:
    oracle = LinearOracle.random(shape, 2, seed=1)
    attack = Square(Linf(0.05), queries=600, rescale_schedule=True)
    found = attack(oracle, oracle.at_distance(0.05 / 1.5, "linf"))
    assert found.success.all()
    assert not found.backwards.any()
    assert bool((found.forwards < 602).any())  # a row that is found costs no more


def test_restarts_are_runs_of_their_own() -> None:
    images = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    query, points = search(Square(Linf(0.1), queries=20, restarts=2), images, wavy)
    assert len(query.asked) == 42
    assert not torch.equal(query.asked[0], query.asked[21])
    values = torch.stack([wavy(p) for p in query.asked[21:]])
    assert torch.equal(wavy(points), values.max(0).values)


def test_a_budget_for_each_image_is_refused() -> None:
    oracle = LinearOracle.random((1, 3, 4), 2, seed=0)
    batch, randomness = oracle.batch(3), PerSample(0, range(3), "attack")
    with pytest.raises(HauberkError, match="one budget"):
        Square(Linf(0.1)).perturb(oracle, batch.images, batch.labels, randomness, torch.full((3,), 0.1))


@pytest.mark.parametrize("threat", [L1(2.5), L2(0.5), Linf(0.05)], ids=str)
def test_it_agrees_with_the_published_implementation(threat: Threat) -> None:
    reference = pytest.importorskip("pyautoattack.square").SquareAttack
    torch.manual_seed(5)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Softplus(beta=8), nn.Flatten(), nn.Linear(8 * 64, 5)).eval()
    images = torch.rand(150, 3, 10, 10, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        labels = network(images).argmax(1)
    ours = Square(threat, queries=100)(network, Batch(images, labels, torch.arange(150))).success
    theirs = reference(
        lambda x: network(x).clone(), norm={"l1": "L1", "l2": "L2", "linf": "Linf"}[threat.norm], n_queries=100,
        eps=threat.eps, resc_schedule=False,
    )  # fmt: skip
    with torch.no_grad():
        broken = network(theirs.perturb(images, labels)).argmax(1) != labels
    shares = float(ours.float().mean()), float(broken.float().mean())
    assert 0.1 < shares[1] < 0.9
    assert abs(shares[0] - shares[1]) < 0.12
