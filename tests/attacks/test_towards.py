"""A chosen class: the success is that class and no other, held against the true distance of a linear model."""

from dataclasses import replace

import pytest
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hauberk.attacks import APGD, FAB, FMN, AutoAttack, OnGrid, PartAttack, Square, Towards
from hauberk.attacks.base import Attack, AttackResult
from hauberk.attacks.query import Query
from hauberk.batch import Batch
from hauberk.classifier import decide
from hauberk.conformance import LinearOracle
from hauberk.defences import MixedClassifier
from hauberk.errors import HauberkError
from hauberk.randomness import Randomness
from hauberk.threats import CONFIG, Linf

EPS = 0.03
ATTACKS: dict[str, Attack] = {
    "apgd": APGD(Linf(EPS), steps=20),
    "margin": APGD(Linf(EPS), "margin", steps=20),
    "dlr": APGD(Linf(EPS), "dlr", steps=20, targets=9),
    "fab": FAB(Linf(EPS), steps=20, targets=9),
    "fmn": FMN(Linf(EPS), steps=60),
    "suite": AutoAttack(Linf(EPS), version="custom", attacks=(APGD(Linf(EPS), steps=9), FAB(Linf(EPS), steps=9))),
}


@pytest.fixture(scope="module")
def oracle() -> LinearOracle:
    return LinearOracle.random((1, 2, 3), 4, seed=5)


def true_distance(oracle: LinearOracle, images: Tensor, target: int) -> Tensor:
    """The Linf distance to the region of a class, by bisection over budgets and a linear programme for each."""
    from scipy.optimize import linprog

    weight, bias = (p.detach().double() for p in oracle.layers.parameters())
    found = []
    for image in images.double().flatten(1):
        others = [j for j in range(4) if j != target]
        # minimise r with z_j - z_t <= 0 and |delta| <= r
        rows = torch.stack([weight[j] - weight[target] for j in others])
        gaps = -(rows @ image + torch.stack([bias[j] - bias[target] for j in others]))
        d = len(image)
        bound = torch.cat([torch.eye(d), -torch.eye(d)]).double()
        a = torch.cat([torch.cat([rows, torch.zeros(3, 1)], 1), torch.cat([bound, -torch.ones(2 * d, 1)], 1)])
        b = torch.cat([gaps, torch.zeros(2 * d)])
        solved = linprog([0.0] * d + [1.0], A_ub=a.numpy(), b_ub=b.numpy(), bounds=[(None, None)] * d + [(0, None)])
        found.append(solved.fun if solved.success else float("inf"))
    return torch.tensor(found)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_success_is_the_target_and_no_other_class(oracle: LinearOracle, name: str) -> None:
    batch = oracle.batch(40, seed=3)
    labels = torch.where(batch.ids % 6 == 0, (batch.labels + 1) % 4, batch.labels)
    batch = Batch(batch.images, labels, batch.ids)
    found = Towards(Linf(EPS), attack=ATTACKS[name], target=2)(oracle, batch, seed=1, tile=16)
    now = decide(oracle, Batch(found.adversarial, batch.labels, batch.ids), tile=16)
    own = batch.labels == 2
    assert torch.equal(found.prediction, now)
    assert torch.equal(found.success, (now == 2) & ~own)
    assert torch.equal(found.clean_prediction, decide(oracle, batch, tile=16))
    assert torch.equal(found.adversarial[own], batch.images[own])
    assert bool((found.distance <= EPS).all())
    distance = true_distance(oracle, batch.images, 2)
    inside, outside = distance < 0.7 * EPS, distance > EPS * 1.001
    assert int(inside.sum()) > 5
    assert int((outside & ~own).sum()) > 3
    assert bool(found.success[inside & ~own].all())
    assert not bool(found.success[outside].any())
    assert bool((found.nearest >= distance * (1 - 1e-4) - 1e-6)[found.success].all())


def test_probabilities_are_those_of_the_model(oracle: LinearOracle) -> None:
    batch = oracle.batch(8, seed=3)
    found = Towards(Linf(EPS), target=1)(oracle, batch)
    with torch.no_grad():
        assert torch.allclose(found.clean_probabilities, oracle(batch.images).softmax(1), atol=1e-6)
        assert torch.allclose(found.probabilities, oracle(found.adversarial).softmax(1), atol=1e-6)


def test_it_rounds_inside_and_searches_on_parts(oracle: LinearOracle) -> None:
    batch = oracle.batch(24, seed=3)
    batch = Batch((batch.images * 255).round() / 255, batch.labels, batch.ids)
    threat = Linf(8 / 255)
    found = Towards(threat, attack=OnGrid(threat, attack=APGD(threat, "margin", steps=9)), target=2)(oracle, batch)
    levels = found.adversarial.double() * 255
    assert float((levels - levels.round()).abs().max()) < 1e-2
    assert int(found.success.sum()) > 5
    mix = MixedClassifier(oracle, LinearOracle.random((1, 2, 3), 4, seed=6), 0.6, 1.0, 1.0).eval()
    searched = Towards(threat, attack=PartAttack(threat, part="robust"), target=2)(mix, batch)
    now = decide(mix, Batch(searched.adversarial, batch.labels, batch.ids))
    assert torch.equal(searched.success, (now == 2) & (batch.labels != 2))


@dataclass(frozen=True, config=CONFIG)
class _OfAnotherNet(Attack):
    """An attack whose own verdicts do not hold on the model: the draws of a random net can differ inside."""

    def __call__(self, model: nn.Module, batch: Batch, seed: int = 0, tile: int = 64) -> AttackResult:
        found = APGD(self.threat, "margin", steps=1)(model, batch, seed, tile)
        every = torch.ones_like(found.success)
        return replace(found, success=every, nearest=torch.full_like(found.nearest, EPS / 2))

    def search(self, query: Query, randomness: Randomness) -> Tensor:
        raise NotImplementedError


def test_a_distance_that_the_verdict_rejects_is_none(oracle: LinearOracle) -> None:
    batch = oracle.batch(40, seed=3)
    found = Towards(Linf(EPS), attack=_OfAnotherNet(Linf(EPS)), target=2)(oracle, batch)
    assert 0 < int(found.success.sum()) < 40
    assert torch.equal(found.nearest <= EPS, found.success)


def test_scores_are_enough(oracle: LinearOracle) -> None:
    found = Towards(Linf(EPS), attack=Square(Linf(EPS), queries=60), target=0)(oracle, oracle.batch(8, seed=3))
    assert bool((found.backwards == 0).all())


def test_there_is_such_a_class(oracle: LinearOracle) -> None:
    with pytest.raises(HauberkError, match="target class 4 does not exist"):
        Towards(Linf(EPS), target=4)(oracle, oracle.batch(4))


def test_it_does_not_train(oracle: LinearOracle) -> None:
    model = nn.Sequential(oracle)
    batch = oracle.batch(4)
    with pytest.raises(HauberkError, match="cannot be used in training"):
        Towards(Linf(EPS)).perturb(model, batch.images, batch.labels, None)  # type: ignore[arg-type]
