"""Friendly PGD: its two ends (PGD, and no step after the first error), against a walk written row by row."""

import pytest
import torch
from torch import Tensor, nn

from hauberk.attacks import PGD
from hauberk.attacks.friendly_pgd import FriendlyPGD
from hauberk.batch import Batch
from hauberk.conformance import check_attack
from hauberk.randomness import PerSample
from hauberk.threats import L1, L2, Linf, Threat

THREATS = [L1(2.0), L2(0.6), Linf(0.15)]


@pytest.mark.parametrize("threat", [L1(0.2), L2(0.1), Linf(0.03)], ids=str)
def test_conformance(threat: Threat) -> None:
    check_attack(FriendlyPGD(threat, steps=6))
    check_attack(FriendlyPGD(threat, steps=6, tau=2, loss="margin"))


def perturb(attack: PGD | FriendlyPGD, network: nn.Module, batch: Batch) -> Tensor:
    return attack.perturb(network, batch.images, batch.labels, PerSample(1, batch.ids, "attack"))


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize("random_start", [True, False])
def test_with_tau_of_all_steps_it_is_pgd(threat: Threat, random_start: bool, network: nn.Module, batch: Batch) -> None:
    ours = FriendlyPGD(threat, steps=7, tau=7, random_start=random_start)
    theirs = PGD(threat, steps=7, random_start=random_start)
    assert torch.equal(perturb(ours, network, batch), perturb(theirs, network, batch))
    assert torch.equal(ours(network, batch).adversarial, theirs(network, batch).adversarial)


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize("tau", [0, 1, 3])
def test_every_row_walks_until_it_has_been_wrong_often_enough(
    threat: Threat, tau: int, network: nn.Module, batch: Batch
) -> None:
    points = perturb(FriendlyPGD(threat, steps=8, tau=tau, step_size=0.1), network, batch)
    lengths = []
    for row in range(len(batch)):
        own = batch.select(slice(row, row + 1))
        at, seen, moved = threat.random_point(own.images, PerSample(1, own.ids, "attack")), 0, 0
        for _ in range(8):
            leaf = at.clone().requires_grad_(True)
            logits = network(leaf)
            wrong = int(logits.argmax()) != int(own.labels)
            if wrong and seen == tau:
                break
            seen, moved = seen + wrong, moved + 1
            (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(logits, own.labels), leaf)
            at = threat.project(threat.ascend(at, gradient, 0.1), own.images)
        lengths.append(moved)
        torch.testing.assert_close(points[row : row + 1], threat.project(at, own.images), atol=1e-5, rtol=0)
    assert lengths[0] == tau  # this image is wrong from the start
    assert len(set(lengths)) > 2


def test_rows_that_have_stopped_cost_no_model_calls(network: nn.Module, batch: Batch) -> None:
    calls: list[int] = []
    network.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    perturb(FriendlyPGD(Linf(0.15), steps=8, step_size=0.1), network, batch)
    assert calls[0] == len(batch)
    assert calls == sorted(calls, reverse=True)
    assert calls[-1] < len(batch)
    calls.clear()
    wrong = Batch(batch.images, (network(batch.images).argmax(1) + 1) % 4, batch.ids)
    calls.clear()
    perturb(FriendlyPGD(Linf(0.001), steps=8), network, wrong)  # all stop at once, and no exception leaves training
    assert calls == [len(batch)]


def test_the_mode_and_the_weights_are_restored(network: nn.Module, batch: Batch) -> None:
    network.train()
    perturb(FriendlyPGD(Linf(0.1)), network, batch)
    assert network.training
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
