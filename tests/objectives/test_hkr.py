"""HKR: transport by hand and by linear programming, classes that are absent, shards, soft weights, a binary radius."""

import math

import numpy as np
import pytest
import torch
import torch.distributed
from scipy import optimize
from torch import nn
from torch.nn import functional

from hauberk.batch import Batch
from hauberk.certificates import LipschitzCertificate
from hauberk.classifier import Normalize
from hauberk.conformance import check_objective
from hauberk.layers import AOLConv2d, AOLLinear, MaxMin, UnitRowLinear
from hauberk.objectives.base import Context
from hauberk.objectives.hkr import HKR, MEMORY, hinge, transport


def identity(classes: int) -> nn.Sequential:
    """Logits are the pixels."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(classes, classes, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(classes))
    return model


def of(logits: list[list[float]], labels: list[int]) -> Batch:
    table = torch.tensor(logits)
    return Batch(table[:, None, None, :], torch.tensor(labels), torch.arange(len(labels)))


def net(classes: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        AOLConv2d(1, 4, 3, padding=1), MaxMin(), nn.Flatten(), AOLLinear(64, 8), MaxMin(), UnitRowLinear(8, classes)
    )


def context(**others) -> Context:
    return Context(torch.Generator().manual_seed(0), **others)


@pytest.mark.parametrize(
    "objective", [HKR(), HKR(alpha=0.0), HKR(alpha=1.0, soft=True), HKR(soft=True, lipschitz="walk")]
)
@pytest.mark.parametrize("classes", [2, 3])
def test_the_contract(objective, classes: int) -> None:
    check_objective(objective, net(classes), (1, 4, 4), classes)


def test_the_contract_with_another_network() -> None:
    check_objective(HKR())


# --- transport -------------------------------------------------------------------------------------------------


def test_transport_is_a_difference_of_means() -> None:
    scores = torch.tensor([[1.0, 5.0], [2.0, 6.0], [4.0, 9.0]])
    positive = torch.tensor([[True, False], [False, False], [False, True]])
    found = transport(scores, positive, positive.sum(0), 3)
    assert float(found) == pytest.approx(((1 - 3) + (9 - 5.5)) / 2)


def test_a_side_without_images_counts_nothing() -> None:
    scores = torch.tensor([[1.0], [2.0]], requires_grad=True)
    for side, sign in ((True, 1.0), (False, -1.0)):
        positive = torch.full((2, 1), side)
        found = transport(scores, positive, positive.sum(0), 2)
        assert float(found.detach()) == sign * 1.5
        (gradient,) = torch.autograd.grad(found, scores)
        assert gradient.flatten().tolist() == [sign * 0.5] * 2


def test_shards_average_to_the_whole_batch() -> None:
    """Rows of one process may lack a class, or hold most of it; with the counts of all, nothing changes."""
    generator = torch.Generator().manual_seed(0)
    scores, labels = torch.randn(10, 3, generator=generator), torch.tensor([0, 0, 0, 0, 1, 1, 2, 1, 2, 1])
    positive = functional.one_hot(labels, 3) > 0
    counts = positive.sum(0)
    whole = transport(scores, positive, counts, 10)
    parts = [(3, transport(scores[:3], positive[:3], counts, 10)), (7, transport(scores[3:], positive[3:], counts, 10))]
    torch.testing.assert_close(sum(n * v for n, v in parts) / 10, whole)


def test_processes_add_up_their_counts() -> None:
    batch, model = of([[0.9, 0.1, 0.4], [0.2, 0.7, 0.3]], [0, 1]), identity(3)
    asked = []

    def add(rows: torch.Tensor) -> torch.Tensor:
        asked.append(rows.tolist())
        return rows + functional.one_hot(torch.tensor([0, 0, 0, 0, 2]), 3) * torch.tensor([[0], [0], [1], [1], [1]])

    found = HKR(alpha=0.0)(model, batch, context(offset=0, total=5, add=add))
    assert asked == [[[1, 0, 0], [0, 1, 0], *[[0, 0, 0]] * 3]]
    logits, positive = model(batch.images), functional.one_hot(batch.labels, 3) > 0
    torch.testing.assert_close(found.total, -transport(logits, positive, torch.tensor([3, 1, 1]), 5))


def test_its_supremum_is_the_cost_of_transport() -> None:
    """Kantorovich-Rubinstein on a line, where the distance is an integral of |F - G| and a linear programme agrees."""
    rng = np.random.default_rng(0)
    up, down = np.sort(rng.uniform(0, 1, 6)), np.sort(rng.uniform(0, 1, 6))
    points = np.sort(np.concatenate([up, down]))
    signs = np.where(np.isin(points, up), 1 / 6, -1 / 6)
    steps = np.diff(np.eye(12), axis=0)
    bounds = np.concatenate([np.diff(points)] * 2)
    best = optimize.linprog(-signs, A_ub=np.vstack([steps, -steps]), b_ub=bounds, bounds=[(0, None)] * 12)
    cost = np.abs(up - down).mean()  # sorted points are matched in order
    scores = torch.tensor(best.x)[:, None]
    positive = torch.tensor(signs > 0)[:, None]
    found = float(transport(scores, positive, positive.sum(0), 12))
    assert found == pytest.approx(cost, rel=1e-9)
    assert float(transport(torch.tensor(points)[:, None], positive, positive.sum(0), 12)) <= cost


# --- hinge and the whole loss ----------------------------------------------------------------------------------


def test_hinge_by_hand() -> None:
    found = hinge(torch.tensor([[0.2, 0.2, -0.9]]), torch.tensor([[True, False, False]]), margin=1.0)
    torch.testing.assert_close(found, torch.tensor([[0.3, 0.7, 0.0]]))


def test_many_classes_by_hand() -> None:
    batch = of([[0.9, 0.1, 0.4], [0.2, 0.3, 0.8]], [0, 1])
    found = HKR(alpha=0.25, margin=1.0)(identity(3), batch, context())
    kr = ((0.9 - 0.2) + (0.3 - 0.1) - (0.4 + 0.8) / 2) / 3  # class 2 has no image
    lacks = [2 * 0.0, 0.6, 0.9, 0.7, 2 * 0.2, 1.3]  # the own score counts K - 1 = 2 times
    assert float(found.terms["kr"]) == pytest.approx(kr, rel=1e-6)
    assert float(found.terms["hinge"]) == pytest.approx(sum(lacks) / 6, rel=1e-6)
    assert float(found.total.detach()) == pytest.approx(0.25 * sum(lacks) / 6 - 0.75 * kr, rel=1e-6)
    assert float(found.terms["accuracy"]) == 0.5


def test_two_classes_share_one_score_in_pixel_units() -> None:
    """Rows 3 and 4 long and at right angles: the score is the gap over 5; Normalize doubles the speed."""
    model = nn.Sequential(Normalize([0.0], [0.5]), nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    batch = of([[0.1, 0.9], [0.8, 0.2], [0.5, 0.5]], [1, 0, 0])
    f = [(4 * b - 3 * a) * 2 / 10 for a, b in ((0.1, 0.9), (0.8, 0.2), (0.5, 0.5))]
    found = HKR(alpha=0.5, margin=0.4)(model, batch, context())
    kr = f[0] - (f[1] + f[2]) / 2
    lack = (max(0.2 - f[0], 0) + max(0.2 + f[1], 0) + max(0.2 + f[2], 0)) / 3
    assert float(found.terms["kr"]) == pytest.approx(kr, rel=1e-6)
    assert float(found.terms["hinge"]) == pytest.approx(lack, rel=1e-6)
    certified = LipschitzCertificate()(model.eval(), batch)
    assert certified.radius.tolist() == pytest.approx([abs(v) for v in f], rel=1e-6)


def test_scores_are_divided_by_the_speed_of_the_features() -> None:
    batch = of([[0.9, 0.1, 0.4], [0.2, 0.3, 0.8]], [0, 1])
    plain = HKR()(identity(3), batch, context()).total
    scaled = nn.Sequential(Normalize([0.0], [0.25]), *identity(3))
    torch.testing.assert_close(HKR()(scaled, batch, context()).total, plain)
    linear = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), *identity(3))
    nn.init.constant_(linear[0].weight, 7.0)
    torch.testing.assert_close(HKR(lipschitz="walk")(linear, batch, context()).total, plain)


@pytest.mark.parametrize("classes", [2, 3])
def test_training_separates_within_the_speed_of_one(classes: int) -> None:
    torch.manual_seed(1)
    model = net(classes)
    labels = torch.arange(30) % classes
    images = 0.1 * torch.rand(30, 1, 4, 4) + 0.8 * torch.eye(4)[labels][:, None, :, None] * torch.ones(4)
    batch = Batch(images.clamp(0, 1), labels, torch.arange(30))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        loss = HKR(alpha=0.7, margin=0.5)(model, batch, context())
        loss.total.backward()
        optimizer.step()
    assert float(loss.terms["accuracy"]) == 1.0
    farthest = float(torch.cdist(images.flatten(1), images.flatten(1)).max())
    assert 0.5 * farthest < float(loss.terms["kr"]) <= farthest  # no 1-Lipschitz score goes beyond


# --- soft weights ----------------------------------------------------------------------------------------------


def test_soft_weights_by_hand() -> None:
    batch, state = of([[0.9, 0.1, 0.4], [0.2, 0.3, 0.8]], [0, 1]), context()
    found = HKR(alpha=0.25, margin=0.5, soft=True, temperature=3.0, memory=0.75)(identity(3), batch, state)
    size = 0.75 * 0.5 + 0.25 * (0.9 + 0.1 + 0.4 + 0.2 + 0.3 + 0.8) / 6
    t = 3.0 * 0.5 / max(size, 0.5)
    kr = lack = 0.0
    for own, others in ((0.9, (0.1, 0.4)), (0.3, (0.2, 0.8))):
        total = sum(math.exp(t * v) for v in others)
        weights = [math.exp(t * v) / total for v in others]
        kr += (own - sum(w * v for w, v in zip(weights, others, strict=True))) / 2
        lack += (max(0.25 - own, 0) + sum(w * (0.25 + v) for w, v in zip(weights, others, strict=True))) / 2
    assert state.state == {MEMORY: pytest.approx(size)}
    assert float(found.terms["kr"]) == pytest.approx(kr, rel=1e-5)
    assert float(found.terms["hinge"]) == pytest.approx(lack, rel=1e-5)
    assert float(found.total.detach()) == pytest.approx(0.25 * lack - 0.75 * kr, rel=1e-5)


def test_the_running_size_remembers_and_tames_the_softmax() -> None:
    batch, state = of([[900.0, 100.0, 400.0]], [0]), context()
    objective = HKR(margin=1.0, soft=True, memory=0.5)
    for _ in range(40):
        found = objective(identity(3), batch, state)
    mean = 1400.0 / 3
    assert state.state[MEMORY] == pytest.approx(mean, rel=1e-6)
    weights = np.exp(np.array([100.0, 400.0]) / mean)
    soft = float(weights @ [100.0, 400.0] / weights.sum())
    assert float(found.terms["kr"]) == pytest.approx(900.0 - soft, rel=1e-5)


def test_a_hot_softmax_takes_the_largest_rival_and_two_classes_need_none() -> None:
    batch = of([[0.9, 0.1, 0.4]], [0])
    found = HKR(alpha=0.0, soft=True, temperature=500.0)(identity(3), batch, context())
    assert float(found.total.detach()) == pytest.approx(-(0.9 - 0.4), rel=1e-6)
    two = of([[0.9, 0.1], [0.2, 0.6]], [0, 1])
    plain, soft = (HKR(soft=s)(identity(2), two, context()).total for s in (False, True))
    assert torch.equal(plain, soft)


def test_the_running_size_is_that_of_all_processes() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.4], [0.3, 0.2, 0.7], [0.5, 0.6, 0.8]])
    whole, own = context(), context(offset=1, total=3, add=lambda rows: torch.where(rows == 0, scores, rows))
    sizes = [HKR(soft=True)._running_size(s, c) for s, c in ((scores, whole), (scores[1:2], own))]
    assert sizes[0] == sizes[1] == whole.state["hkr"] == own.state["hkr"]


def test_zero_weights_stay_numbers() -> None:
    for classes in (2, 3):
        model = net(classes)
        for p in model.parameters():
            nn.init.zeros_(p)
        batch = Batch(
            torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(4).long(), torch.arange(4)
        )
        for objective in (HKR(), HKR(soft=True, lipschitz="walk")):
            loss = objective(model, batch, context())
            gradients = torch.autograd.grad(loss.total, list(model.parameters()), allow_unused=True)
            assert bool(loss.total.isfinite())
            assert all(g is None or bool(g.isfinite().all()) for g in gradients)
