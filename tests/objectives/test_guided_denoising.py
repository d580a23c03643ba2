"""Guided denoising: the four guides by hand, a classifier that stays as it is, and what is refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from hauberk.attacks import PGD
from hauberk.batch import Batch
from hauberk.classifier import weights_hash
from hauberk.conformance import check_classifier, check_objective
from hauberk.defences.guided_denoiser import guided_denoiser
from hauberk.defences.purified import PurifiedClassifier
from hauberk.errors import HauberkError
from hauberk.models import small_cnn
from hauberk.models.dncnn import dncnn
from hauberk.models.dunet import dunet
from hauberk.objectives.base import Context
from hauberk.objectives.guided_denoising import GuidedDenoising
from hauberk.threats import Linf

ATTACK = PGD(Linf(0.1), steps=2)
GUIDES = ("pixel", "feature", "logit", "class")


def fresh():
    return Context(torch.Generator().manual_seed(7))


def cnn():
    torch.manual_seed(0)
    return small_cnn((1, 8, 8), 3, (0.5,), (0.2,), widths=(4, 6), strides=(1, 2))


def model(spread=0.1):
    made = guided_denoiser(cnn(), dunet(1, (4, 6), 1))
    nn.init.normal_(made.purifier.last.weight, std=spread)
    return made.train()


def images(rows=6):
    batch = torch.rand(rows, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return Batch(batch, torch.arange(rows) % 3, torch.arange(rows))


@pytest.mark.parametrize("guide", GUIDES)
def test_the_contract(guide):
    base = small_cnn((3, 5, 4), 3, (0.5,) * 3, (0.2,) * 3, widths=(4,), strides=(1,))
    check_objective(GuidedDenoising(ATTACK, guide), guided_denoiser(base, dncnn(3, 4, 3, batch_norm=False)))


@pytest.mark.parametrize("guide", GUIDES)
def test_it_is_the_formula_on_images_attacked_within_budgets_of_their_own(guide):
    net, batch, told = model(), images(), fresh().randomness(6)
    budget = 0.1 * told.uniform()
    attacked = ATTACK.perturb(net.base, batch.images, batch.labels, told, budget)
    away = (attacked - batch.images).abs().amax((1, 2, 3))
    assert bool((away <= budget + 1e-6).all()) and bool((away >= 0.9 * budget).all())
    clean, body = net.purifier(attacked), nn.Sequential(*list(net.base)[:5])  # up to the second convolution
    assert isinstance(body[-1], nn.Conv2d)
    wanted = {
        "pixel": (clean - batch.images).abs().mean(),
        "feature": (body(clean) - body(batch.images)).abs().mean(),
        "logit": (net.base(clean) - net.base(batch.images)).abs().mean(),
        "class": functional.cross_entropy(net.base(clean), batch.labels),
    }[guide]
    found = GuidedDenoising(ATTACK, guide)(net, batch, fresh())
    assert torch.allclose(found.total, wanted, rtol=1e-5)
    assert float(found.terms["accuracy"]) == float((net.base(clean).argmax(1) == batch.labels).float().mean())


@pytest.mark.parametrize("guide", ["pixel", "feature", "logit"])
def test_the_loss_is_zero_on_clean_images_behind_the_identity(guide):
    found = GuidedDenoising(PGD(Linf(0.0), steps=1), guide)(
        guided_denoiser(cnn(), dunet(1, (4, 6), 1)), images(), fresh()
    )
    assert float(found.total.detach()) == 0.0


@pytest.mark.parametrize("guide", GUIDES)
def test_the_denoiser_alone_is_trained_and_no_hook_stays(guide):
    net = model()
    before = weights_hash(net.base)
    GuidedDenoising(ATTACK, guide)(net, images(), fresh()).total.backward()
    assert weights_hash(net.base) == before
    assert not net.base.training and net.purifier.training
    assert all(p.grad is None for p in net.base.parameters())
    assert all(p.grad is not None for p in net.purifier.parameters())
    assert not any(m._forward_hooks for m in net.modules())


def test_the_defence_is_a_classifier_and_its_denoiser_goes_before_another():
    net = model().eval()
    check_classifier(net, (1, 8, 8))
    other = guided_denoiser(cnn(), net)
    assert other.purifier is net.purifier
    assert guided_denoiser(cnn(), PurifiedClassifier(cnn(), dunet(1, (4,), 1)).purifier).guided
    plain = dunet(1, (4,), 1)
    plain.beside = PurifiedClassifier(cnn(), dunet(1, (6,), 1))
    assert guided_denoiser(cnn(), plain).purifier is plain  # what it holds is no guided denoiser
    with pytest.raises(HauberkError, match="holds 2 guided denoisers"):
        guided_denoiser(cnn(), nn.Sequential(net, other))


def test_another_model_and_a_base_without_convolutions_are_refused():
    for wrong in (cnn(), PurifiedClassifier(cnn(), dunet(1, (4,), 1))):
        with pytest.raises(HauberkError, match="expected a classifier with a guided denoiser"):
            GuidedDenoising(ATTACK)(wrong, images(), fresh())
    flat = PurifiedClassifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), dunet(1, (4,), 1), guided=True)
    with pytest.raises(HauberkError, match="no convolution whose output could guide"):
        GuidedDenoising(ATTACK, "feature")(flat, images(), fresh())
