"""DeepFool: true minimum norms of linear models, one step each, and no work after the first error."""

import pytest
import torch
from torch import Tensor, nn

from hauberk import registry
from hauberk.attacks.deepfool import DeepFool
from hauberk.batch import Batch
from hauberk.conformance import LinearOracle, check_attack
from hauberk.randomness import Shared
from hauberk.threats import L1, L2, Linf, Threat

THREATS = [L2(0.15), Linf(0.05)]


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize("early_stop", [False, True])
def test_conformance(threat: Threat, early_stop: bool) -> None:
    check_attack(DeepFool(threat, early_stop=early_stop))


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 3, 5)])
def test_the_true_radius_of_linear_models_in_one_step(threat: Threat, classes: int, shape: tuple[int, ...]) -> None:
    oracle = LinearOracle.random(shape, classes, seed=1)
    batch = oracle.batch(12, seed=2)
    true = oracle.true_radius(batch.images, threat.norm)
    found = DeepFool(threat)(oracle, batch)
    torch.testing.assert_close(found.nearest / 1.02, true, rtol=1e-4, atol=0)
    assert bool((found.nearest >= true).all())
    assert set(found.forwards.tolist()) == {3}  # the image, its gradients, the end of the step
    assert set(found.backwards.tolist()) == {2 * (classes - 1)}


def test_the_overshoot_is_applied_to_the_sum_of_the_steps() -> None:
    class Square(nn.Module):
        """The class changes at a mean of 0.5; Newton's steps on the square get there from above."""

        def forward(self, images: Tensor) -> Tensor:
            ahead = images.flatten(1).mean(1).square() - 0.25
            return torch.stack([torch.zeros_like(ahead), ahead], 1)

    batch = Batch(torch.full((1, 1, 2, 2), 0.9), torch.tensor([1]), torch.tensor([0]))
    found = DeepFool(Linf(0.5), overshoot=0.1)(Square().eval(), batch)
    point, change = 0.9, 0.0
    while point > 0.5:
        change -= (point**2 - 0.25) / (2 * point)
        point = 0.9 + 1.1 * change
    assert float(found.nearest) == pytest.approx(0.9 - point, rel=1e-5)


def test_steps_stay_in_the_box() -> None:
    # from (0.1, 0) to x_1 - x_0 = 0.2 in Linf: 0.15 from each pixel, but the first one has only 0.1
    oracle = LinearOracle(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), torch.tensor([0.2, -0.2]), (1, 1, 2))
    batch = Batch(torch.tensor([[[[0.1, 0.0]]]]), torch.tensor([0]), torch.tensor([0]))
    assert float(oracle.true_radius(batch.images, "linf")) == pytest.approx(0.15, rel=1e-5)
    found = DeepFool(Linf(0.9))(oracle, batch)
    assert float(found.nearest) == pytest.approx(1.02 * 0.2, rel=1e-5)
    assert int(found.forwards) == 3


def test_only_the_most_likely_classes_are_looked_at() -> None:
    oracle = LinearOracle.random((1, 3, 4), 6, seed=0)
    batch = oracle.batch(5)
    few, all_ = (DeepFool(L2(0.1), classes=n)(oracle, batch) for n in (3, 10))
    assert set(few.backwards.tolist()) == {2 * 2}  # one step to the nearer of two rivals is enough
    assert bool((few.nearest >= all_.nearest - 1e-6).all())
    assert set(all_.backwards.tolist()) == {2 * 5}


def test_training_gets_points_on_the_other_side(network: nn.Module, batch: Batch) -> None:
    randomness = Shared(torch.Generator().manual_seed(0), len(batch))
    points = DeepFool(Linf(1.0)).perturb(network, batch.images, batch.labels, randomness)
    assert bool((network(points).argmax(1) != batch.labels).all())
    assert torch.equal(points[0], batch.images[0])  # it was wrong from the start


def test_a_row_costs_nothing_after_its_first_error(network: nn.Module, batch: Batch) -> None:
    found = DeepFool(L2(0.5), steps=20)(network, batch)
    assert bool((found.forwards < 15).all())
    assert bool(found.nearest.isfinite().all())


def test_there_is_no_l1_version() -> None:
    with pytest.raises(ValueError, match="works in l2, linf"):
        DeepFool(L1(1.0))


def test_it_is_rebuilt_from_its_spec() -> None:
    attack = DeepFool(L2(0.5), steps=20, overshoot=0.1)
    assert registry.build(registry.spec(attack)) == attack
