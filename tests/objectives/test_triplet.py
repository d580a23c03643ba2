"""TLA: the formula in numpy, negatives of other classes only, scale invariance, and a hinge that ends."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from hauberk.attacks.pgd import PGD
from hauberk.batch import Batch
from hauberk.conformance import check_objective
from hauberk.defences.activations import last_features
from hauberk.errors import HauberkError
from hauberk.objectives.base import Context
from hauberk.objectives.pgd_adversarial import PGDAdversarial
from hauberk.objectives.terms import Terms
from hauberk.objectives.triplet import Triplet, class_mates, nearest_negatives, similarities
from hauberk.randomness import Shared
from hauberk.threats import Linf

STILL = PGD(Linf(0.0), steps=1)


class Features(nn.Module):
    """The pixels are the features, times a scale, less an offset that makes some of them negative."""

    def __init__(self, scale: float = 1.0, offset: float = 0.4) -> None:
        super().__init__()
        self.scale, self.offset = nn.Parameter(torch.tensor(scale)), offset
        self.head = nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.scale * (images.flatten(1) - self.offset))


@pytest.fixture
def batch() -> Batch:
    images = torch.rand(9, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    return Batch(images, torch.arange(9) % 3, torch.arange(9))


def asked(objective, model, batch):
    return objective(model, batch, Context(torch.Generator().manual_seed(2)))


def by_hand(h: np.ndarray, labels: np.ndarray, margin: float, absolute: bool) -> tuple[float, list[int]]:
    """The hinge of unattacked images, whose positive is at distance 0, and the negatives, by loops."""
    unit = h / np.linalg.norm(h, axis=1, keepdims=True)
    hinges, places = [], []
    for i in range(len(h)):
        near = {j: unit[i] @ unit[j] for j in range(len(h)) if labels[j] != labels[i]}
        near = {j: abs(c) if absolute else c for j, c in near.items()}
        places.append(max(near, key=near.__getitem__))
        hinges.append(max(0.0, near[places[-1]] - 1.0 + margin))
    return float(np.mean(hinges)), places


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("norm", ["l2", "squared"])
def test_the_formula_by_hand(batch, absolute, norm):
    objective = Triplet(STILL, weight=0.7, margin=1.2, norm_weight=0.3, norm=norm, absolute=absolute)
    found = asked(objective, Features(), batch)
    h = batch.images.flatten(1).double().numpy() - 0.4
    triplet, places = by_hand(h, batch.labels.numpy(), 1.2, absolute)
    length = (h**2).mean(1) if norm == "squared" else np.linalg.norm(h, axis=1)
    norms = (2 * length + length[places]).mean()
    assert float(found.terms["triplet"]) == pytest.approx(triplet, rel=1e-5)
    assert float(found.terms["feature_norm"]) == pytest.approx(norms, rel=1e-5)
    assert float(found.total.detach()) == pytest.approx(0.7 * triplet + 0.3 * norms, rel=1e-5)


def test_negatives_have_another_class_also_where_every_cosine_is_negative():
    labels = torch.tensor([0, 0, 1])
    anchors = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, -0.2]])
    near = similarities(anchors, torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0]]))
    assert float(near[0, 2]) < 0
    found = nearest_negatives(near, labels)
    assert found.place.tolist()[:2] == [2, 2] and int(found.place[2]) in (0, 1)
    assert found.there.all()
    assert bool((labels[found.place] != labels).all())


def test_opposite_features_are_near_for_the_lecture_alone():
    one, opposite = torch.tensor([[1.0, 2.0]]), torch.tensor([[-2.0, -4.0]])
    torch.testing.assert_close(similarities(one, opposite), torch.tensor([[-1.0]]))
    torch.testing.assert_close(similarities(one, opposite, absolute=True), torch.tensor([[1.0]]))


def test_a_batch_of_one_class_has_no_hinge(batch):
    same = Batch(batch.images, torch.zeros_like(batch.labels), batch.ids)
    model = Features()
    found = asked(Triplet(STILL, norm_weight=0.1), model, same)
    h = batch.images.flatten(1) - 0.4
    assert float(found.terms["triplet"]) == 0.0
    torch.testing.assert_close(found.terms["feature_norm"], 2 * h.norm(dim=1).mean())  # no negative to count
    assert bool(torch.autograd.grad(found.total, model.scale)[0].isfinite())


def test_the_loss_does_not_see_the_scale_of_features(batch):
    objective = Triplet(STILL, margin=1.0, norm_weight=0.0)
    small, large = (asked(objective, Features(s), batch) for s in (1.0, 64.0))
    torch.testing.assert_close(small.total, large.total)
    ones = Triplet(STILL, margin=1.0, norm_weight=1.0)
    small, large = (asked(ones, Features(s), batch) for s in (1.0, 64.0))
    torch.testing.assert_close(64 * small.terms["feature_norm"], large.terms["feature_norm"])


def test_the_hinge_ends_past_its_margin():
    images = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]], [[[0.0, 1.0], [0.0, 0.0]]]])  # of cosine 0
    batch = Batch(images, torch.tensor([0, 1]), torch.arange(2))
    model = Features(offset=0.0)
    below, above = (Triplet(STILL, weight=1.0, margin=m, norm_weight=0.0) for m in (0.99, 1.25))
    assert float(asked(below, model, batch).total.detach()) == 0.0
    assert float(asked(above, model, batch).total.detach()) == pytest.approx(0.25)


def test_the_second_positive_is_another_image_of_the_class():
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    seen = {i: set() for i in range(6)}
    for seed in range(40):
        mates = class_mates(labels, Shared(torch.Generator().manual_seed(seed), 6))
        assert mates.there.tolist() == [True] * 5 + [False]
        for i in range(5):
            seen[i].add(int(mates.place[i]))
    assert [seen[i] for i in range(5)] == [{1, 2}, {0, 2}, {0, 1}, {4}, {3}]


def test_the_second_hinge_is_added(batch):
    model = Features()
    first = Batch(batch.images[:4], torch.tensor([0, 0, 1, 1]), batch.ids[:4])  # one mate each
    h = first.images.flatten(1).double().numpy() - 0.4
    unit = h / np.linalg.norm(h, axis=1, keepdims=True)
    c = unit @ unit.T
    rival = [max(c[i, j] for j in range(4) if (i < 2) != (j < 2)) for i in range(4)]
    wanted = np.mean([max(0, r - 1 + 0.9) + max(0, r - c[i, [1, 0, 3, 2][i]] + 0.9) for i, r in enumerate(rival)])
    found = asked(Triplet(STILL, margin=0.9, second_positive=True), model, first)
    assert float(found.terms["triplet"]) == pytest.approx(wanted, rel=1e-5)
    alone = Batch(first.images, torch.tensor([0, 0, 1, 2]), first.ids)  # the last two have no mate, so one hinge each
    rival = [max(c[i, j] for j in range(4) if j != i and (i > 1 or j > 1)) for i in range(4)]
    mates = {0: 1, 1: 0}
    wanted = np.mean([
        max(0, r - 1 + 0.9) + (max(0, r - c[i, mates[i]] + 0.9) if i in mates else 0) for i, r in enumerate(rival)
    ])  # fmt: skip
    found = asked(Triplet(STILL, margin=0.9, second_positive=True), model, alone)
    assert float(found.terms["triplet"]) == pytest.approx(wanted, rel=1e-5)


def test_anchors_are_attacked_and_gradients_reach_all_three(network):
    images = torch.rand(16, 3, 2, 2, generator=torch.Generator().manual_seed(9))
    batch, seen = Batch(images, torch.arange(16) % 4, torch.arange(16)), []
    network.register_forward_pre_hook(lambda module, given: seen.append((module.training, given[0].detach())))
    asked(Triplet(PGD(Linf(0.1), steps=2), margin=2.0), network, batch)
    assert [training for training, _ in seen] == [False, False, True]
    attacked, clean = seen[-1][1].chunk(2)
    assert torch.equal(clean, images)
    assert 0.05 < float((attacked - images).abs().max()) <= 0.1 + 1e-6
    a, c = (torch.randn(2, 3, requires_grad=True) for _ in range(2))
    near = similarities(a, c)
    (near[0, 1] - near[0, 0]).backward()
    assert float(a.grad[0].abs().max()) > 0 and all(float(row.abs().max()) > 0 for row in c.grad)


def test_a_named_layer_is_taken_and_the_last_linear_layer_is_the_default(network):
    images = torch.rand(6, 3, 2, 2, generator=torch.Generator().manual_seed(9))
    network.eval()
    torch.testing.assert_close(last_features(network, images), network[:4](images))
    batch = Batch(images, torch.arange(6) % 4, torch.arange(6))
    first, second = (asked(Triplet(STILL, layer=layer), network, batch) for layer in (None, "3"))
    assert torch.equal(first.total, second.total)
    with pytest.raises(HauberkError, match="no module"):
        asked(Triplet(STILL, layer="33"), network, batch)
    with pytest.raises(HauberkError, match="no linear layer"):
        last_features(nn.Flatten(), images)
    two = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Linear(5, 3))
    torch.testing.assert_close(last_features(two, images), two[:2](images))
    twice = nn.Linear(12, 12)
    with pytest.raises(HauberkError, match="ran 2 times"):
        last_features(nn.Sequential(nn.Flatten(), twice, twice), images)


def test_the_base_shares_its_attack(network):
    images = torch.rand(16, 3, 2, 2, generator=torch.Generator().manual_seed(9))
    batch, modes = Batch(images, torch.arange(16) % 4, torch.arange(16)), []
    network.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    attack = PGD(Linf(0.1), steps=3)
    loss = asked(Terms(PGDAdversarial(attack), (Triplet(attack),)), network, batch)
    assert modes.count(False) == 3
    parts = loss.terms["ce_adversarial"] + 2.0 * loss.terms["triplet"] + 1e-3 * loss.terms["feature_norm"]
    assert math.isclose(float(loss.total.detach()), float(parts), rel_tol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"second_positive": True, "absolute": True, "norm": "squared"}], ids=str)
def test_the_contract(settings):
    check_objective(Triplet(PGD(Linf(0.05), steps=2), **settings))
