"""`terms`: a base loss plus regularisers, the same numbers as the methods that it takes apart, and shared passes."""

import copy

import pytest
import torch
from torch import nn

from hauberk import registry
from hauberk.attacks.pgd import PGD
from hauberk.conformance import check_objective
from hauberk.errors import HauberkError
from hauberk.objectives.attacked_divergence import AttackedDivergence
from hauberk.objectives.base import Context, Loss, Objective
from hauberk.objectives.consistency import Consistency
from hauberk.objectives.curvature import Curvature
from hauberk.objectives.free_adversarial import FreeAdversarial
from hauberk.objectives.pgd_adversarial import PGDAdversarial
from hauberk.objectives.standard import Standard
from hauberk.objectives.terms import Terms
from hauberk.objectives.trades import TRADES
from hauberk.objectives.view_divergence import ViewDivergence
from hauberk.threats import Linf

KL = PGD(Linf(0.1), loss="kl", steps=3)
CE = PGD(Linf(0.1), steps=3)


def asked(objective, network, batch):
    """Total, gradients, the state that the step left, and how often the network was asked in train and in eval mode."""
    network, modes = copy.deepcopy(network), []
    network.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    context = Context(torch.Generator().manual_seed(3), augment=lambda: batch.images.flip(3))
    loss = objective(network, batch, context)
    gradients = torch.autograd.grad(loss.total, list(network.parameters()))
    return loss, gradients, network.state_dict(), (modes.count(True), modes.count(False))


def the_same(one, other):
    assert torch.equal(one[0].total, other[0].total)
    for a, b in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("settings", [{}, {"divergence": "ce"}, {"detach_target": True}], ids=str)
def test_standard_plus_attacked_divergence_is_trades_at_its_cost(network, batch, settings):
    whole = asked(TRADES(KL, 3.0, label_smoothing=0.1, **settings), network, batch)
    taken = asked(Terms(Standard(0.1), (AttackedDivergence(KL, 3.0, **settings),)), network, batch)
    the_same(whole, taken)
    assert whole[3] == taken[3]  # no pass more
    for name, value in whole[2].items():
        assert torch.equal(value, taken[2][name]), name  # batch norm's statistics too
    for name in ("ce", "divergence", "accuracy", "adversarial_accuracy"):
        assert torch.equal(whole[0].terms[name], taken[0].terms[name])


def test_two_views_plus_their_divergence_is_consistency(network, batch):
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    whole = asked(Consistency(CE, weight=0.7, temperature=0.25), network, batch)
    taken = asked(Terms(Consistency(CE, weight=0.0), (ViewDivergence(CE, 0.7, 0.25),)), network, batch)
    the_same(whole, taken)
    assert taken[3] == (2, whole[3][1])  # the attacks are shared


def test_the_total_is_the_weighted_sum_and_names_are_kept_apart(network, batch):
    parts = (AttackedDivergence(KL, 0.0), Curvature(2.0, h=0.1))
    loss = asked(Terms(PGDAdversarial(CE), parts, weight=0.3), network, batch)[0]
    base, bend = loss.terms["ce_adversarial"], loss.terms["curvature"]
    torch.testing.assert_close(loss.total, 0.3 * base + 2.0 * bend)
    names = {"ce_adversarial", "adversarial_accuracy", "divergence", "adversarial_accuracy_1", "curvature"}
    assert set(loss.terms) == names


def test_equal_attacks_are_made_once_and_others_anew(network, batch):
    parts = (ViewDivergence(CE, 1.0),)
    assert asked(Terms(PGDAdversarial(CE), parts), network, batch)[3][1] == 2 * CE.steps
    other = PGD(Linf(0.1), steps=2)
    assert asked(Terms(PGDAdversarial(other), parts), network, batch)[3][1] == 2 * CE.steps + other.steps


def test_nothing_is_shared_between_steps(network, batch):
    context = Context(torch.Generator().manual_seed(3))
    objective = Terms(Standard(), (AttackedDivergence(KL),))
    first, second = (objective(network, batch, context).terms["divergence"] for _ in range(2))
    assert context.shared is None
    assert not torch.equal(first, second)


def test_replays_and_what_stands_outside_come_from_the_parts(network, batch):
    class Taught(Objective):
        def outside(self) -> str:
            return "teacher"

        def __call__(self, model, batch, context) -> Loss:
            raise NotImplementedError

    objective = Terms(FreeAdversarial(Linf(0.1), replays=4), (Taught(), Taught()))
    assert (objective.replays, objective.outside()) == (4, "teacher teacher")
    with pytest.raises(ValueError, match="several steps"):
        Terms(Standard(), (FreeAdversarial(Linf(0.1)),))


def test_a_recipe_says_it_in_one_line():
    spec = {"name": "terms", "base": {"name": "standard"}, "terms": [{"name": "curvature", "weight": 2.0}]}
    assert registry.build(spec, kind="objective") == Terms(Standard(), (Curvature(2.0),))
    with pytest.raises(HauberkError, match="attack"):
        registry.build(spec | {"terms": [{"name": "pgd", "threat": "linf:0.1"}]})
    with pytest.raises(HauberkError, match="terms"):
        registry.build(spec | {"terms": []})


@pytest.mark.parametrize(
    "objective",
    [
        Terms(Standard(), (Curvature(h=0.1), AttackedDivergence(KL))),
        Terms(PGDAdversarial(CE), (ViewDivergence(CE),)),
        AttackedDivergence(KL),
        ViewDivergence(CE),
        ViewDivergence(),
    ],
    ids=lambda o: type(o).__name__,
)
def test_the_contract(objective):
    check_objective(objective)
