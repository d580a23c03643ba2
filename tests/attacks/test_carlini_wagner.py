"""Carlini & Wagner: the walk against torch.s Adam, the search for c by script, and the truth of linear models."""

import pytest
import torch
from torch import Tensor, nn

from hauberk import registry
from hauberk.attacks.carlini_wagner import CarliniWagner
from hauberk.attacks.query import Query
from hauberk.batch import Batch
from hauberk.classifier import margins
from hauberk.conformance import LinearOracle, check_attack
from hauberk.errors import HauberkError
from hauberk.randomness import PerSample
from hauberk.threats import L2


@pytest.mark.parametrize("confidence", [0.0, 0.7])
def test_the_walk_is_torch_s_adam_on_the_printed_objective(
    network: nn.Module, batch: Batch, confidence: float
) -> None:
    network, images = network.double(), batch.images.double()[1:]
    labels, constant, steps = batch.labels[1:], 30.0, 30
    hidden = torch.atanh((2 * images - 1) * (1 - 1e-6)).requires_grad_()
    optimiser = torch.optim.Adam([hidden], lr=0.1)
    nearest = torch.full((9,), torch.inf, dtype=torch.float64)
    for _ in range(steps):
        points = (hidden.tanh() + 1) / 2
        lead = -margins(network(points), labels)
        length = (points - images).flatten(1).norm(dim=1)
        nearest = torch.where((lead >= confidence) & (lead > 0) & (length < nearest), length, nearest).detach()
        loss = (points - images).square().sum() + constant * (confidence - lead).clamp_min(0).sum()
        (hidden.grad,) = torch.autograd.grad(loss, hidden)
        optimiser.step()
    attack = CarliniWagner(L2(10.0), steps=steps, learning_rate=0.1, confidence=confidence)
    query = Query(network, images, labels, attack.threat, "margin", track=True)
    found, points = attack._minimise(query, torch.full((9,), constant, dtype=torch.float64))
    assert int(nearest.isfinite().sum()) > 3
    torch.testing.assert_close(found, nearest, rtol=1e-5, atol=1e-8)
    lead = -margins(network(points), labels)
    assert bool((lead[found.isfinite()] >= confidence).all())


def test_the_constant_is_halved_after_a_point_and_raised_after_none(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[float]] = []

    def minimise(_: object, query: object, constant: Tensor) -> tuple[Tensor, Tensor]:
        asked.append(constant.tolist())
        threshold = torch.tensor([0.6, 30.0, 1e9])  # of a search that finds something
        return torch.where(constant >= threshold, constant, torch.inf), constant.reshape(3, 1, 1, 1)

    class Images:
        track, images = False, torch.zeros(3, 1, 1, 1)

    monkeypatch.setattr(CarliniWagner, "_minimise", minimise)
    attack = CarliniWagner(L2(1.0), binary_searches=5, initial_constant=1.0)
    kept = attack.search(Images(), PerSample(0, [0, 1, 2], "attack"))  # type: ignore[arg-type]
    assert [row[0] for row in asked] == [1.0, 0.5, 0.75, 0.625, 0.5625]
    assert [row[1] for row in asked] == [1.0, 10.0, 100.0, 55.0, 32.5]
    assert [row[2] for row in asked] == [1.0, 10.0, 100.0, 1000.0, 10000.0]
    assert kept.flatten().tolist() == [0.625, 32.5, 10000.0]  # the nearest; the last where there is none


def test_conformance() -> None:
    check_attack(CarliniWagner(L2(0.1), steps=25, binary_searches=2, initial_constant=0.1))


def test_conformance_with_early_stop() -> None:
    check_attack(CarliniWagner(L2(0.1), steps=25, binary_searches=2, initial_constant=0.1, early_stop=True))


@pytest.mark.parametrize(("shape", "classes"), [((1, 8, 8), 2), ((3, 3, 5), 3), ((1, 8, 8), 5)], ids=str)
def test_linear_models_within_two_percent_of_the_truth(shape: tuple[int, int, int], classes: int) -> None:
    oracle = LinearOracle.random(shape, classes, seed=classes)
    batch = oracle.batch(24, seed=1)
    true = oracle.true_radius(batch.images, "l2")
    far = (true > 0.02).nonzero().flatten()
    attack = CarliniWagner(L2(0.05), steps=150, binary_searches=6, learning_rate=0.003)
    ratio = attack(oracle, batch.select(far)).nearest / true[far]
    assert len(ratio) > 5
    assert float(ratio.min()) > 1 - 1e-4
    assert float(ratio.median()) < 1.02


def test_black_and_white_pixels_can_move() -> None:
    # two pixels at the ends of the box, of which only inward moves are legal; the boundary is 0.3 away in each
    oracle = LinearOracle(torch.tensor([[0.0, 0.0], [1.0, -1.0]]), torch.tensor([0.0, 0.4]), (1, 1, 2))
    images = torch.tensor([[[[0.0, 1.0]]]])
    found = CarliniWagner(L2(1.0), steps=150, binary_searches=5, initial_constant=1.0, learning_rate=0.1)(
        oracle, Batch(images, torch.tensor([0]), torch.tensor([0]))
    )
    assert float(found.nearest) == pytest.approx(0.3 * 2**0.5, rel=0.05)


def test_confidence_buys_a_lead(network: nn.Module, batch: Batch) -> None:
    settings = {"steps": 60, "binary_searches": 3, "initial_constant": 30.0, "learning_rate": 0.1}
    attack = CarliniWagner(L2(10.0), confidence=0.5, **settings)  # type: ignore[arg-type]
    points = attack.perturb(network, batch.images, batch.labels, PerSample(0, batch.ids, "attack"))
    with torch.no_grad():
        lead = -margins(network(points), batch.labels)
    assert float(lead.min()) >= 0.5 - 1e-3
    free = CarliniWagner(L2(10.0), **settings)  # type: ignore[arg-type]
    nearer = free.perturb(network, batch.images, batch.labels, PerSample(0, batch.ids, "attack"))
    lengths = [(p - batch.images).flatten(1).norm(dim=1) for p in (nearer, points)]
    assert bool((lengths[0] <= lengths[1]).all())
    assert float(lengths[0].sum()) < float(lengths[1].sum())


def test_what_needs_no_search_costs_none(network: nn.Module, batch: Batch) -> None:
    full = CarliniWagner(L2(10.0), steps=20, binary_searches=3, initial_constant=10.0)(network, batch)
    assert int(full.backwards[0]) == 0
    assert full.forwards[1:].tolist() == [1 + 60] * 9
    early = CarliniWagner(L2(10.0), steps=20, binary_searches=3, initial_constant=10.0, early_stop=True)(network, batch)
    assert torch.equal(early.success, full.success)
    assert bool((early.backwards[early.success] < 60).all())


def test_it_is_rebuilt_from_its_spec_and_has_one_loss() -> None:
    attack = CarliniWagner(L2(0.5), steps=7, confidence=0.1)
    assert registry.build(registry.spec(attack)) == attack
    with pytest.raises(HauberkError, match="margin"):
        registry.build({"name": "carlini_wagner", "threat": "l2:0.5", "loss": "ce"})
    with pytest.raises(HauberkError, match="l2"):
        registry.build({"name": "carlini_wagner", "threat": "linf:0.1"})
