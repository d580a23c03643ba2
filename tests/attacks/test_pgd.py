"""PGD on linear models, where the answer is known, and its restarts, targets and step rule."""

import pytest
import torch
from torch import nn

from hauberk.attacks import FGSM, PGD, Attack, Query
from hauberk.batch import Batch
from hauberk.conformance import LinearOracle, check_attack
from hauberk.randomness import PerSample
from hauberk.threats import L1, L2, Linf


@pytest.mark.parametrize(
    "attack",
    [PGD(L1(0.2), steps=6), PGD(L2(0.1), steps=6, restarts=2, loss="margin"), PGD(Linf(0.03), steps=6, targeted=True)],
    ids=str,
)
def test_conformance(attack: PGD) -> None:
    check_attack(attack)


def test_the_divergence_needs_no_direction() -> None:
    check_attack(PGD(L2(0.1), steps=6, loss="kl"), gradient=False)


def test_on_a_linear_model_it_ends_in_the_corner() -> None:
    oracle = LinearOracle.random((1, 4, 4), 2, seed=2)
    images = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))  # the box matters here
    labels = torch.arange(6) % 2
    batch = Batch(images, labels, torch.arange(6))
    weight = oracle.layers[1].weight.detach()
    toward = (weight[1] - weight[0]).reshape(1, 1, 4, 4) * (1.0 - 2.0 * labels.float()).reshape(-1, 1, 1, 1)
    points = PGD(Linf(0.2), steps=20).perturb(oracle, batch.images, batch.labels, PerSample(0, batch.ids, "attack"))
    torch.testing.assert_close(points, (images + 0.2 * toward.sign()).clamp(0, 1), atol=1e-6, rtol=0)
    found = PGD(Linf(0.2), steps=20, early_stop=False)(oracle, batch)
    torch.testing.assert_close(found.best_loss_point, points, atol=1e-6, rtol=0)


def test_in_l2_it_ends_on_the_sphere() -> None:
    oracle = LinearOracle.random((1, 4, 4), 2, seed=2)
    batch = oracle.batch(6)
    direction = oracle.layers[1].weight.detach().diff(dim=0)[0]
    sides = 1.0 - 2.0 * batch.labels.float()
    toward = (direction / direction.norm()).reshape(1, 1, 4, 4) * sides.reshape(-1, 1, 1, 1)
    for random_start, slack in ((False, 1e-5), (True, 0.02)):
        attack = PGD(L2(0.1), steps=20, random_start=random_start)
        points = attack.perturb(oracle, batch.images, batch.labels, PerSample(0, batch.ids, "attack"))
        torch.testing.assert_close(points, batch.images + 0.1 * toward, atol=slack, rtol=0)


@pytest.mark.parametrize("steps", [1, 4, 25])
def test_madrys_step_rule(steps: int) -> None:
    """The walk of 2.5 eps reaches the border from any start, and one step moves 2.5 eps / steps."""
    oracle = LinearOracle.random((1, 2, 2), 2, seed=3)
    batch = oracle.batch(3)
    randomness = PerSample(0, batch.ids, "attack")
    once = PGD(Linf(0.04), steps=steps, random_start=False)
    walked: list[torch.Tensor] = []
    query = Query(oracle, batch.images, batch.labels, once.threat, once.loss)
    original = query.gradient
    query.gradient = lambda points: (walked.append(points.clone()), original(points))[1]  # type: ignore[method-assign]
    walked.append(once.search(query, randomness))
    assert len(walked) == steps + 1
    first = (walked[1] - walked[0]).abs().max()
    assert float(first) == pytest.approx(min(0.04, 2.5 * 0.04 / steps), rel=1e-4)
    assert float((walked[-1] - batch.images).abs().min()) == pytest.approx(0.04, rel=1e-4)


def test_random_starts_differ_between_restarts_and_stay_inside(network: nn.Module, batch: Batch) -> None:
    seen: list[torch.Tensor] = []
    query = Query(network, batch.images, batch.labels, Linf(0.1), "ce")
    original = query.gradient
    query.gradient = lambda points: (seen.append(points.clone()), original(points))[1]  # type: ignore[method-assign]
    PGD(Linf(0.1), steps=1, restarts=3).search(query, PerSample(0, batch.ids, "attack"))
    assert len(seen) == 3
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])
    assert float((seen[0] - batch.images).abs().max()) <= 0.1 + 1e-6


def test_targets_take_turns(network: nn.Module, batch: Batch) -> None:
    with torch.no_grad():
        logits = network(batch.images)
    wanted: list[torch.Tensor] = []
    query = Query(network, batch.images, batch.labels, Linf(0.1), "ce")
    original = query.gradient
    query.gradient = lambda points: (wanted.append(query.targets), original(points))[1]  # type: ignore[method-assign]
    PGD(Linf(0.1), steps=1, restarts=4, targeted=True).search(query, PerSample(0, batch.ids, "attack"))
    for row in range(len(batch)):
        label = int(batch.labels[row])
        ranking = [c for c in logits[row].argsort(descending=True).tolist() if c != label]
        assert [int(t[row]) for t in wanted] == [*ranking, ranking[0]]
    assert query.targets is None


def test_more_steps_find_more(network: nn.Module, batch: Batch) -> None:
    weak, strong = (PGD(L2(0.3), steps=s, random_start=False, early_stop=False)(network, batch).loss for s in (1, 40))
    assert bool((strong >= weak - 1e-4).all())
    assert float(strong.mean()) > float(weak.mean())


@pytest.mark.parametrize("threat", [L1(0.2), L2(0.1), Linf(0.03)], ids=str)
def test_conformance_with_momentum(threat: L1 | L2 | Linf) -> None:
    check_attack(PGD(threat, steps=6, momentum=0.9))


class Slopes(Query):
    """Answers with gradients from a list, whatever the point."""

    slopes: list[torch.Tensor]

    def gradient(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(len(points)), self.slopes.pop(0)


def walked(threat: L1 | L2 | Linf, momentum: float) -> torch.Tensor:
    images = torch.full((2, 1, 1, 2), 0.5)
    query = Slopes(nn.Identity(), images, torch.zeros(2).long(), threat, "ce")
    first = torch.tensor([[4.0, 1.0], [0.0, 0.0]]).reshape(2, 1, 1, 2)
    second = torch.tensor([[-3.0, 5.0], [0.0, -2.0]]).reshape(2, 1, 1, 2)
    query.slopes = [first, second]
    attack = PGD(threat, steps=2, step_size=0.1, random_start=False, momentum=momentum)
    return attack.search(query, PerSample(0, range(2), "attack")).flatten(1) - 0.5


def test_momentum_by_hand() -> None:
    """g1 = (4, 1) / 5, g2 = mu g1 + (-3, 5) / 8: with mu = 1/2 (0.025, 0.725), whose signs are not the gradient's."""
    torch.testing.assert_close(walked(Linf(0.4), 0.5), torch.tensor([[0.2, 0.2], [0.0, -0.1]]))
    torch.testing.assert_close(walked(Linf(0.4), 0.0), torch.tensor([[0.0, 0.2], [0.0, -0.1]]))
    first = torch.tensor([4.0, 1.0]) / 17**0.5
    second = torch.tensor([0.025, 0.725]) / (0.025**2 + 0.725**2) ** 0.5
    torch.testing.assert_close(walked(L2(0.4), 0.5)[0], 0.1 * (first + second))
    # with mu = 1 the first entry, 0.8 - 0.375, still loses to the second, 0.2 + 0.625
    torch.testing.assert_close(walked(L1(0.4), 1.0), torch.tensor([[0.1, 0.1], [0.0, -0.1]]))


@pytest.mark.parametrize("threat", [L1(2.0), L2(0.6), Linf(0.15)], ids=str)
def test_momentum_changes_the_walk_and_none_does_not(threat: L1 | L2 | Linf, network: nn.Module, batch: Batch) -> None:
    def walk(**settings: float) -> torch.Tensor:
        attack = PGD(threat, steps=9, step_size=0.2, random_start=False, **settings)
        return attack.perturb(network, batch.images, batch.labels, PerSample(0, batch.ids, "attack"))

    at = batch.images
    for _ in range(9):
        leaf = at.clone().requires_grad_(True)
        loss = nn.functional.cross_entropy(network(leaf), batch.labels, reduction="none").sum()
        (gradient,) = torch.autograd.grad(loss, leaf)
        at = threat.project(threat.ascend(at, gradient, 0.2), batch.images)
    assert torch.equal(walk(momentum=0.0), walk())
    torch.testing.assert_close(walk(), threat.project(at, batch.images), atol=1e-6, rtol=0)
    assert not torch.equal(walk(momentum=0.9), walk())


def test_a_tiny_gradient_has_momentum_too() -> None:
    images = torch.full((1, 1, 1, 2), 0.5)
    query = Slopes(nn.Identity(), images, torch.zeros(1).long(), Linf(0.4), "ce")
    query.slopes = [torch.full_like(images, 1e-30), torch.zeros_like(images)]
    attack = PGD(Linf(0.4), steps=2, step_size=0.1, random_start=False, momentum=1.0)
    points = attack.search(query, PerSample(0, range(1), "attack"))
    torch.testing.assert_close(points, images + 0.2)


def test_a_tiny_gradient_weighs_as_much_as_a_large_one() -> None:
    """g1 = (1, 1) / 2 and g2 = g1 + (-2, 3) / 5 = (0.1, 1.1): without the first the walk would turn back."""
    images = torch.full((1, 1, 1, 2), 0.5)
    query = Slopes(nn.Identity(), images, torch.zeros(1).long(), Linf(0.4), "ce")
    query.slopes = [torch.full_like(images, 1e-30), torch.tensor([-2.0, 3.0]).reshape(1, 1, 1, 2)]
    attack = PGD(Linf(0.4), steps=2, step_size=0.1, random_start=False, momentum=1.0)
    points = attack.search(query, PerSample(0, range(1), "attack"))
    torch.testing.assert_close(points, images + 0.2)


@pytest.mark.parametrize(
    "attack", [PGD(L1(0.5), steps=50), PGD(L1(0.5), steps=50, random_start=False), FGSM(L1(0.5), early_stop=False)],
    ids=["PGD", "PGD from the image", "FGSM"],
)  # fmt: skip
def test_in_l1_a_saturated_pixel_does_not_end_the_walk(attack: Attack) -> None:
    """Weights (1, 0.9): the first pixel has room for 0.1 alone, and the rest of the budget belongs to the second."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2)).eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, 0.9], [0.0, 0.0]]))
        net[1].bias.zero_()
    batch = Batch(torch.tensor([[[[0.1, 0.5]]]]), torch.tensor([0]), torch.tensor([0]))
    assert 0.09 - 1e-6 <= float(attack(net, batch).logit_margin[0]) <= 0.09 + 0.01
