"""AutoAttack: the published sequences, survivors only, and the worst case over its stages."""

import pytest
import torch
from torch import nn

from hauberk.attacks import APGD, FAB, PGD, Attack, AutoAttack, Square
from hauberk.batch import Batch
from hauberk.conformance import LinearOracle
from hauberk.errors import HauberkError
from hauberk.randomness import PerSample
from hauberk.threats import L1, L2, Linf, Threat

THREATS = [Linf(0.05), L2(0.3), L1(1.5)]


def small(threat: Threat, **settings: object) -> AutoAttack:
    """All kinds of stages, few steps."""
    stages: tuple[Attack, ...] = (
        APGD(threat, steps=5), APGD(threat, steps=5, loss="dlr", targets=2), FAB(threat, steps=4, targets=2),
        Square(threat, queries=30),
    )  # fmt: skip
    return AutoAttack(threat, version="custom", attacks=stages, **settings)


@pytest.mark.parametrize("threat", [Linf(8 / 255), L2(0.5)], ids=str)
def test_the_published_budgets(threat: Threat) -> None:
    def stages(version: str) -> tuple[Attack, ...]:
        return AutoAttack(threat, version=version).stages()

    ce, targeted = APGD(threat, steps=100), APGD(threat, loss="dlr", steps=100, targets=9)
    fab = FAB(threat, steps=100, targets=9, early_stop=True)
    square = Square(threat, queries=5000, p_init=0.8, rescale_schedule=False)
    assert stages("fast") == (ce, targeted)
    assert stages("standard") == (ce, targeted, fab, square)
    assert stages("plus") == (
        APGD(threat, restarts=5), APGD(threat, loss="dlr", restarts=5), FAB(threat, restarts=5, early_stop=True),
        square, targeted, fab,
    )  # fmt: skip
    assert stages("rand") == (APGD(threat, eot=20), APGD(threat, loss="dlr", eot=20))


def test_the_published_budgets_of_l1() -> None:
    threat = L1(12.0)
    assert AutoAttack(threat, version="standard").stages() == (
        APGD(threat, restarts=5, shrinking=True),
        APGD(threat, loss="dlr", targets=5, shrinking=True),
        FAB(threat, targets=9, early_stop=True),
        Square(threat, queries=5000),
    )


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_it_is_the_worst_case_over_its_stages(threat: Threat, network: nn.Module, batch: Batch) -> None:
    suite = small(threat)
    together = suite(network, batch, seed=3, tile=4)
    alone = [stage(network, batch, seed=3, tile=4) for stage in suite.stages()]
    assert torch.equal(together.success, torch.stack([a.success for a in alone]).any(0))
    assert torch.equal(together.prediction != batch.labels, together.success)
    least = torch.stack([a.logit_margin for a in alone]).amin(0)
    survived = ~together.success
    torch.testing.assert_close(together.logit_margin[survived], least[survived])
    with torch.no_grad():
        assert torch.equal(network(together.adversarial).argmax(1), together.prediction)
    assert torch.equal(together.distance, threat.distance(together.adversarial, batch.images))


def test_a_later_stage_costs_the_broken_images_nothing(network: nn.Module, batch: Batch) -> None:
    threat = Linf(0.05)
    first = APGD(threat, steps=5)(network, batch)
    assert bool(first.success[1:].any())
    assert not bool(first.success.all())
    together = small(threat)(network, batch)
    assert torch.equal(together.forwards[first.success], first.forwards[first.success])
    assert bool((together.forwards[~together.success] > first.forwards[~together.success] + 30).all())


def test_it_stops_when_nothing_is_left(network: nn.Module, batch: Batch) -> None:
    found = small(Linf(1.0))(network, batch)
    assert found.success.all()
    assert int(found.forwards.max()) <= 7


def test_it_needs_no_clean_error_to_start_with() -> None:
    oracle = LinearOracle.random((1, 3, 5), 2, seed=1)  # two classes: one target, and no dlr
    for threat in (Linf(0.05), L2(0.15), L1(0.3)):
        # images inside the ball of 0.8 of the budget fall, those at 1.1 stand
        near, far = (oracle.at_distance(f * threat.eps, threat.norm) for f in (0.8, 1.1))
        suite = small(threat) if threat.norm != "l1" else AutoAttack(threat)
        assert suite(oracle, near).success.all()
        assert not suite(oracle, far).success.any()


def test_settings_reach_every_stage() -> None:
    threat = Linf(0.1)
    stages = AutoAttack(threat, version="standard", early_stop=False, eot=3).stages()
    assert {(s.early_stop, s.eot) for s in stages} == {(False, 3)}


def test_mistakes(network: nn.Module, batch: Batch) -> None:
    threat = Linf(0.1)
    with pytest.raises(ValueError, match="at least one"):
        AutoAttack(threat, version="custom")
    with pytest.raises(ValueError, match="version custom"):
        AutoAttack(threat, attacks=(PGD(threat),))
    with pytest.raises(ValueError, match=r"linf:0\.1"):
        AutoAttack(threat, version="custom", attacks=(PGD(Linf(0.2)),))
    with pytest.raises(HauberkError, match="cannot be used in training"):
        AutoAttack(threat).perturb(network, batch.images, batch.labels, PerSample(0, batch.ids, "attack"))
