"""Friendly adversarial training: the schedule of tau, its two ends, and the nearest errors of DDN and FMN."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from hauberk import registry
from hauberk.attacks.ddn import DDN
from hauberk.attacks.fmn import FMN
from hauberk.attacks.friendly_pgd import FriendlyPGD
from hauberk.attacks.pgd import PGD
from hauberk.batch import Batch
from hauberk.classifier import weights_hash
from hauberk.conformance import check_objective
from hauberk.objectives.base import Context
from hauberk.objectives.friendly_adversarial import FriendlyAdversarial
from hauberk.objectives.pgd_adversarial import PGDAdversarial
from hauberk.objectives.standard import Standard
from hauberk.objectives.trades import TRADES
from hauberk.randomness import Shared
from hauberk.threats import L1, L2, Linf

ATTACK = FriendlyPGD(Linf(0.1), steps=4)


def test_tau_rises_at_its_moments_and_not_beyond_all_steps():
    method = FriendlyAdversarial(PGDAdversarial(replace(ATTACK, tau=1)), raises=(0.25, 0.5, 0.75, 0.9))
    assert [method.tau(t) for t in (0.0, 0.24, 0.25, 0.49, 0.5, 0.8, 0.95, 1.0)] == [1, 1, 2, 2, 3, 4, 4, 4]
    assert FriendlyAdversarial(PGDAdversarial(ATTACK)).raises == (50 / 120, 90 / 120)  # the authors' epochs


@pytest.mark.parametrize("kind", ["adversarial", "trades"])
def test_with_tau_of_all_steps_it_is_the_objective_with_pgd(network, batch, kind):
    loss = "kl" if kind == "trades" else "ce"
    make = TRADES if kind == "trades" else PGDAdversarial
    friendly = FriendlyAdversarial(make(replace(ATTACK, tau=4, loss=loss)))
    plain = make(PGD(Linf(0.1), steps=4, loss=loss))
    found, expected = (
        m(copy.deepcopy(network), batch, Context(torch.Generator().manual_seed(1))) for m in (friendly, plain)
    )
    assert torch.equal(found.total, expected.total)
    assert all(torch.equal(found.terms[name], value) for name, value in expected.terms.items())


def test_the_tau_of_the_moment_is_attacked_with(network, batch):
    method = FriendlyAdversarial(PGDAdversarial(ATTACK), raises=(0.5,))
    for progress, tau in ((0.4, 0), (0.6, 1)):
        own, other = (Context(torch.Generator().manual_seed(1), progress=progress) for _ in range(2))
        expected = PGDAdversarial(replace(ATTACK, tau=tau))(copy.deepcopy(network), batch, other)
        found = method(copy.deepcopy(network), batch, own)
        assert torch.equal(found.total, expected.total)
        assert float(found.terms["tau"]) == tau


def test_it_counts_the_passes_of_each_image(network, batch, context):
    """Nobody is right here: all stop at their starting points.  Nobody is ever wrong there: all four steps."""
    network.eval()
    with torch.no_grad():
        told = network(batch.images).argmax(1)
    network.train()
    small = replace(ATTACK, threat=Linf(1e-6))
    for labels, passes in (((told + 1) % 4, 1.0), (told, 4.0)):
        loss = FriendlyAdversarial(PGDAdversarial(small))(network, Batch(batch.images, labels, batch.ids), context)
        assert float(loss.terms["attack_passes"]) == passes
    assert not network._forward_pre_hooks


def test_the_contract():
    check_objective(FriendlyAdversarial(PGDAdversarial(ATTACK)))
    check_objective(FriendlyAdversarial(TRADES(FriendlyPGD(L2(0.3), loss="kl", steps=2)), raises=(0.1, 0.2, 0.3)))


def test_it_is_its_spec_and_what_cannot_be_is_refused():
    method = FriendlyAdversarial(PGDAdversarial(ATTACK), raises=(0.1, 0.6))
    assert registry.build(registry.spec(method), kind="objective") == method
    for wrong in (PGDAdversarial(PGD(Linf(0.1))), Standard()):
        with pytest.raises(ValueError, match="friendly_pgd"):
            FriendlyAdversarial(wrong)
    for raises in ((0.5, 0.5), (0.6, 0.5), (0.0,), (1.0,)):
        with pytest.raises(ValueError, match="raises"):
            FriendlyAdversarial(PGDAdversarial(ATTACK), raises=raises)


# --- the nearest errors: what pgd_adversarial trains on with DDN or FMN ---------------------------------------------

NEAREST = [
    (DDN(L2(0.2), steps=200, init_norm=0.1), 2), (FMN(L2(0.2), steps=100, step_size=0.1), 2),
    (FMN(Linf(0.06), steps=100, step_size=0.1), 1), (FMN(L1(0.3), steps=100, step_size=0.1), torch.inf),
]  # fmt: skip


@pytest.mark.parametrize(("attack", "dual"), NEAREST, ids=lambda v: f"{type(v).__name__} {getattr(v, 'threat', '')}")
def test_training_gets_the_nearest_error_cut_to_the_budget(linear, inner_batch, attack, dual):
    """On a linear model an image falls at |f| / ||w||_q: to there the image moves, and no farther than the budget."""
    for parameter in linear.parameters():
        parameter.data = parameter.data.float()
    images = inner_batch.images.float()
    f = linear(images)[:, 1].detach()
    labels = (f > 0).long()
    points = attack.perturb(linear, images, labels, Shared(torch.Generator().manual_seed(2), len(images)))
    true = f.abs() / torch.linalg.vector_norm(linear.weight.detach(), ord=dual)
    near = true < attack.threat.eps
    assert 2 <= int(near.sum()) <= 6
    distance = attack.threat.distance(points, images).float()
    torch.testing.assert_close(distance[near], true[near], rtol=0.02, atol=0)
    torch.testing.assert_close(distance[~near], torch.full_like(true, attack.threat.eps)[~near], rtol=1e-4, atol=0)
    assert bool(((points >= 0) & (points <= 1)).all())
    batch, context = Batch(images, labels, inner_batch.ids), Context(torch.Generator().manual_seed(2))
    loss = PGDAdversarial(attack)(linear, batch, context)
    torch.testing.assert_close(loss.total, functional.cross_entropy(linear(points), labels))


def test_images_that_are_wrong_stay_where_they_are(linear, inner_batch):
    """The nearest error of an image that is wrong is the image itself."""
    images = inner_batch.images.float()
    for parameter in linear.parameters():
        parameter.data = parameter.data.float()
    wrong = (linear(images)[:, 1] <= 0).long()
    for attack in (DDN(L2(0.2), steps=20), FMN(Linf(0.06), steps=20)):
        points = attack.perturb(linear, images, wrong, Shared(torch.Generator(), len(images)))
        torch.testing.assert_close(points, images, rtol=0, atol=1e-6)


def test_a_friendly_training_is_pgd_training_to_the_last_bit(tmp_path):
    from hauberk.data.dataset import Dataset
    from hauberk.data.split import Split
    from hauberk.runs import Run
    from hauberk.training.config import Training
    from hauberk.training.loop import fit

    def split(name: str, count: int, first: int) -> Split:
        generator = torch.Generator().manual_seed(first)
        images = torch.randint(0, 256, (count, 1, 4, 4), generator=generator).to(torch.uint8)
        return Split(name, images, torch.arange(count) % 2, torch.arange(first, first + count))

    def net() -> torch.nn.Module:
        torch.manual_seed(1)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))

    dataset = Dataset("noise", ("a", "b"), split("train", 48, 0), split("val", 8, 48), split("test", 4, 0))
    config = Training(epochs=2, batch_size=16, lr=0.1, threads=1, validate_every=0)
    friendly = FriendlyAdversarial(PGDAdversarial(replace(ATTACK, tau=4)))
    found, expected = (
        weights_hash(fit(net(), method, dataset, config, Run.create(tmp_path / str(i), {})))
        for i, method in enumerate((friendly, PGDAdversarial(PGD(Linf(0.1), steps=4))))
    )
    assert found == expected
