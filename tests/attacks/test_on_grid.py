"""Points of whole levels: within the budget to the last bit, towards the image, and judged again."""

import pytest
import torch

from hauberk.attacks import APGD, FMN, AutoAttack, OnGrid
from hauberk.attacks.wrapping import is_sequence, stages_of
from hauberk.batch import Batch
from hauberk.classifier import decide
from hauberk.conformance import LinearOracle
from hauberk.errors import HauberkError
from hauberk.threats import L1, L2, Linf, Threat

THREATS = [Linf(3 / 255), L2(4.3 / 255), L1(9.5 / 255)]


def on_levels(batch: Batch, white: int = 255) -> Batch:
    return Batch((batch.images * white).round() / white, batch.labels, batch.ids)


@pytest.fixture
def oracle() -> LinearOracle:
    return LinearOracle.random((1, 3, 4), 3, seed=2)


@pytest.fixture
def batch(oracle: LinearOracle) -> Batch:
    found = on_levels(oracle.batch(40, seed=1))
    return Batch(found.images, torch.where(found.ids % 7 == 0, (found.labels + 1) % 3, found.labels), found.ids)


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize("white", [255, 65535])
def test_points_have_whole_levels_and_stay_within_the_budget(oracle: LinearOracle, threat: Threat, white: int) -> None:
    batch = on_levels(oracle.batch(40, seed=1), white)
    found = OnGrid(threat, attack=APGD(threat, steps=10), white=white)(oracle, batch, tile=16)
    levels = found.adversarial.double() * white
    assert float((levels - levels.round()).abs().max()) < 1e-2
    change = levels.round() - (batch.images.double() * white).round()
    flat = change.flatten(1).abs()
    length = {"linf": flat.amax(1), "l1": flat.sum(1), "l2": flat.square().sum(1).sqrt()}[threat.norm] / white
    assert torch.allclose(found.distance, length, rtol=1e-12)
    assert bool((found.distance <= threat.eps).all())


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_a_success_is_one_after_rounding(oracle: LinearOracle, batch: Batch, threat: Threat) -> None:
    plain = APGD(threat, steps=20)
    found, free = OnGrid(threat, attack=plain)(oracle, batch, tile=16), plain(oracle, batch, tile=16)
    now = decide(oracle, Batch(found.adversarial, batch.labels, batch.ids), tile=16)
    assert torch.equal(now, found.prediction)
    assert torch.equal(found.success, now != batch.labels)
    assert bool((free.success | ~found.success).all())  # what falls on the grid falls without it
    assert 5 < int(found.success.sum()) <= int(free.success.sum())
    wrong = found.clean_prediction != batch.labels
    assert torch.equal(found.adversarial[wrong], batch.images[wrong])
    assert set(found.stopped) <= {"misclassified", "found", "steps"}
    assert torch.equal(found.nearest[found.success], found.distance[found.success])
    assert bool(found.nearest[~found.success].isinf().all())


def test_rounding_goes_towards_the_image_and_never_beyond(oracle: LinearOracle) -> None:
    image = torch.full((1, 1, 3, 4), 100 / 255)
    change = torch.tensor([2.9, -2.9, 2.0, -2.0, 0.4, -0.4, 0.0, 1.0, -1.0, 0.99, 3.0, -3.0])
    moved = image + change.view(1, 1, 3, 4) / 255
    rounded, distance = OnGrid(Linf(3 / 255)).rounded(moved, image)
    assert (rounded.double() * 255 - 100).round().flatten().tolist() == [2, -2, 2, -2, 0, 0, 0, 1, -1, 0, 3, -3]
    assert distance.tolist() == [3 / 255]
    # a budget that float32 oversteps at a whole level is not overstepped
    just_below = OnGrid(Linf(3 / 255 - 1e-9))
    assert just_below.rounded(moved, image)[1].tolist() == [2 / 255]


def test_nearest_errors_that_rounding_takes_back_are_found_again(oracle: LinearOracle, batch: Batch) -> None:
    threat = L2(12 / 255)
    walk = FMN(threat, steps=40)
    free = walk(oracle, batch, tile=16)
    truncated = OnGrid(threat).rounded(free.adversarial, batch.images)[0]
    still = decide(oracle, Batch(truncated, batch.labels, batch.ids), tile=16) != batch.labels
    found = OnGrid(threat, attack=walk)(oracle, batch, tile=16)
    assert int(still.sum()) < int(found.success.sum())
    assert int(found.success.sum()) >= 0.9 * int(free.success.sum())


def test_a_sequence_is_one_of_wrapped_stages(oracle: LinearOracle, batch: Batch) -> None:
    threat = Linf(3 / 255)
    suite = AutoAttack(threat, version="custom", attacks=(APGD(threat, steps=3), APGD(threat, "margin", steps=5)))
    wrapped = OnGrid(threat, attack=suite)
    assert is_sequence(wrapped)
    assert stages_of(wrapped) == tuple(OnGrid(threat, attack=a) for a in suite.stages())
    assert not is_sequence(OnGrid(threat))


def test_images_between_levels_are_refused(oracle: LinearOracle) -> None:
    with pytest.raises(HauberkError, match="whole levels of 1/255"):
        OnGrid(Linf(0.01))(oracle, oracle.batch(4))


def test_the_attack_inside_has_the_same_threat_and_rounds_itself_not() -> None:
    with pytest.raises(ValueError, match="attack inside has the threat"):
        OnGrid(Linf(0.01), attack=APGD(Linf(0.02)))
    with pytest.raises(ValueError, match="an attack with a goal of its own"):
        OnGrid(Linf(0.01), attack=OnGrid(Linf(0.01)))
