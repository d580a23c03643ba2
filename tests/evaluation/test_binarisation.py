"""The binarisation test: ridge against scikit-learn, planted points by closed form, blind attacks that fail it."""

import pytest
import torch
from pydantic.dataclasses import dataclass
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from hauberk.attacks import APGD, PGD, Attack, AutoAttack, Query
from hauberk.batch import Batch
from hauberk.classifier import frozen
from hauberk.evaluation import binarisation
from hauberk.evaluation.binarisation import RIDGE, binarise, border_point, discriminator, feature_map
from hauberk.randomness import PerSample, Randomness
from hauberk.threats import CONFIG, L1, L2, Linf, Threat, norms


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(25, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    return net.requires_grad_(False)


@pytest.fixture
def batch(network: nn.Module) -> Batch:
    images = torch.rand(12, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    return Batch(images, network(images).argmax(1), torch.arange(12) + 3)


def test_the_discriminator_is_ridge_regression() -> None:
    generator = torch.Generator().manual_seed(0)
    inner = torch.randn(3, 20, 6, generator=generator, dtype=torch.float64)
    planted = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    weight = discriminator(inner, planted)
    for k in range(3):
        rows = torch.cat([inner[k], planted[k : k + 1]]) - inner[k].mean(0)
        strength = RIDGE * float(rows.square().sum(1).mean())
        ridge = Ridge(alpha=strength, fit_intercept=False).fit(rows, [0.0] * 20 + [1.0])
        expected = torch.from_numpy(ridge.coef_)
        torch.testing.assert_close(weight[k], expected / expected.norm(), atol=1e-10, rtol=0)


@pytest.mark.parametrize("threat", [L1(0.5), L2(0.3), Linf(0.1)], ids=str)
def test_border_points_lie_on_the_border_of_the_ball_or_the_box(threat: Threat) -> None:
    images = torch.full((40, 1, 3, 3), 0.5)
    points = border_point(threat, images, PerSample(0, range(40), "test"))
    torch.testing.assert_close(norms(points - images, threat.norm), torch.full((40,), threat.eps))
    half = border_point(threat, images, PerSample(0, range(40), "test"), 0.5)
    torch.testing.assert_close(norms(half - images, threat.norm), torch.full((40,), 0.5 * threat.eps))


def test_features_are_the_input_of_a_linear_head(network: nn.Module, batch: Batch) -> None:
    torch.testing.assert_close(feature_map(network, batch.images)(batch.images), network[:-1](batch.images))


def test_features_are_the_logits_where_the_head_is_not_the_end(network: nn.Module, batch: Batch) -> None:
    scaled = nn.Sequential(network, nn.Softplus())
    torch.testing.assert_close(feature_map(scaled, batch.images)(batch.images), scaled(batch.images))
    shared = nn.Linear(4, 4)
    twice = nn.Sequential(network, shared, shared)
    torch.testing.assert_close(feature_map(twice, batch.images)(batch.images), twice(batch.images))


def test_a_planted_point_is_adversarial_by_closed_form() -> None:
    # the features of a linear model are its pixels, so the best point of the Linf ball is a corner of it
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).eval().requires_grad_(False)
    images = torch.rand(16, 1, 6, 6, generator=torch.Generator().manual_seed(2))
    batch = Batch(images, net(images).argmax(1), torch.arange(16))
    threat = Linf(0.1)
    binary, planted = binarisation._plant(net, feature_map(net, images), batch, threat, 0, 16)
    assert int(planted.sum()) >= 15
    low, high = (images - 0.1).clamp(0, 1), (images + 0.1).clamp(0, 1)
    weight = binary.weight.reshape(images.shape)
    best = torch.where(weight > 0, high, low)
    score = ((best - images) * weight).flatten(1).sum(1) - binary.offset
    assert bool((score[planted] > 0).all())
    clean = binary(images)
    torch.testing.assert_close((clean[:, 0] - clean[:, 1])[planted], margin(net, batch)[planted])
    found = binarise(net, batch, threat, PGD(threat, steps=20))
    assert torch.equal(found.planted, planted)
    assert torch.equal(found.found, planted)
    assert int(found.guessed.sum()) <= 2


def margin(net: nn.Module, batch: Batch) -> Tensor:
    top = net(batch.images).topk(2, dim=1).values
    return top[:, 0] - top[:, 1]


@pytest.mark.parametrize("threat", [L1(1.5), L2(0.5), Linf(0.1)], ids=str)
def test_a_good_attack_finds_nearly_all_of_them_and_guessing_does_not(
    network: nn.Module, batch: Batch, threat: Threat
) -> None:
    with frozen(network):
        test = binarise(network, batch, threat, APGD(threat, steps=40))
    assert int(test.planted.sum()) >= 10
    assert int(test.found.sum()) >= int(test.planted.sum()) - 1
    assert int(test.guessed.sum()) < int(test.found.sum())


@dataclass(frozen=True, config=CONFIG)
class Idle(Attack):
    """Finds nothing."""

    def search(self, query: Query, randomness: Randomness) -> Tensor:
        return query.images


def test_a_sequence_finds_what_any_of_its_attacks_finds(network: nn.Module, batch: Batch) -> None:
    attack, idle = APGD(Linf(0.1), steps=20), Idle(Linf(0.1))
    alone = binarise(network, batch, Linf(0.1), attack).found
    assert int(alone.sum()) >= 9
    for stages in ((attack, idle), (idle, attack)):
        sequence = AutoAttack(Linf(0.1), version="custom", attacks=stages)
        assert torch.equal(binarise(network, batch, Linf(0.1), sequence).found, alone)


class Blind(nn.Module):
    """The right values, with the gradient's sign turned."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return 2 * logits.detach() - logits


def test_a_blind_attack_fails(network: nn.Module, batch: Batch) -> None:
    test = binarise(Blind(network), batch, Linf(0.1), APGD(Linf(0.1), steps=20))
    assert int(test.planted.sum()) >= 4  # of 12: its features are four logits
    assert not bool(test.found.any())


def test_saturation_of_the_model_is_kept(network: nn.Module, batch: Batch) -> None:
    loud = nn.Sequential(network, Times(1e5))
    assert int(binarise(loud, batch, Linf(0.1), APGD(Linf(0.1), steps=20)).found.sum()) <= 1
    margin_attack = APGD(Linf(0.1), steps=20, loss="margin")
    test = binarise(loud, batch, Linf(0.1), margin_attack)
    assert int(test.found.sum()) >= int(test.planted.sum()) - 1


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, values: Tensor) -> Tensor:
        return self.factor * values


def test_rows_do_not_depend_on_their_neighbours(network: nn.Module, batch: Batch) -> None:
    attack = PGD(Linf(0.1), steps=10, loss="kl")
    together = binarise(network, batch, Linf(0.1), attack, tile=4)
    some = torch.tensor([7, 2, 9])
    apart = binarise(network, batch.select(some), Linf(0.1), attack, tile=4)
    for name in ("planted", "found", "guessed"):
        assert torch.equal(getattr(apart, name), getattr(together, name)[some])


def test_nothing_can_be_planted_in_a_constant(batch: Batch) -> None:
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor([1.0, 0.0]).expand(len(images), 2) + 0.0 * images.flatten(1).sum(1, keepdim=True)

    labels = torch.zeros(len(batch), dtype=torch.int64)
    test = binarise(Constant(), Batch(batch.images, labels, batch.ids), Linf(0.1), PGD(Linf(0.1)))
    assert not bool(test.planted.any() | test.found.any() | test.guessed.any())
