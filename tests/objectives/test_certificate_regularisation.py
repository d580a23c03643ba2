"""Certificate regularisation: radii by hand, against the certificate itself, and what it does to a linear model."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from hauberk.batch import Batch
from hauberk.certificates import LipschitzCertificate
from hauberk.conformance import LinearOracle, check_objective
from hauberk.layers import AOLConv2d, AOLLinear, MaxMin, UnitRowLinear
from hauberk.objectives.base import Context
from hauberk.objectives.certificate_regularisation import CertificateRegularisation, label_radius

PAIRWISE = torch.tensor([[0.0, 1.0, 4.0], [1.0, 0.0, 2.0], [4.0, 2.0, 0.0]])


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        AOLConv2d(1, 4, 3, padding=1), MaxMin(), nn.Flatten(), AOLLinear(64, 8), MaxMin(), UnitRowLinear(8, 3)
    )


def rows(count: int = 30, seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(torch.rand(count, 1, 4, 4, generator=generator), torch.arange(count) % 3, torch.arange(count))


def context() -> Context:
    return Context(torch.Generator().manual_seed(0))


@pytest.mark.parametrize("lipschitz", [1.0, "walk"])
def test_the_contract(lipschitz) -> None:
    check_objective(CertificateRegularisation(lipschitz=lipschitz), net(), (1, 4, 4))


def test_the_contract_with_another_network() -> None:
    check_objective(CertificateRegularisation())


def test_radii_by_hand() -> None:
    logits = torch.tensor([[5.0, 3.0, 1.0], [5.0, 3.0, 1.0], [5.0, 3.0, 1.0], [2.0, 2.0, 0.0]])
    found = label_radius(logits, torch.tensor([0, 1, 2, 0]), PAIRWISE)
    # min(2/1, 4/4); min(-2/1, 2/2); min(-4/4, -2/2); min(0/1, 2/4)
    assert found.tolist() == [1.0, -2.0, -1.0, 0.0]


def test_a_rival_that_never_moves_counts_only_where_it_is_level_or_ahead() -> None:
    pairwise = PAIRWISE.clone()
    pairwise[0, 1] = pairwise[1, 0] = 0.0
    logits = torch.tensor([[5.0, 3.0, 1.0], [3.0, 3.0, 1.0], [3.0, 5.0, 1.0]], requires_grad=True)
    found = label_radius(logits, torch.tensor([0, 0, 0]), pairwise)
    assert found.tolist() == [1.0, 0.0, 0.0]
    assert label_radius(logits, torch.tensor([0, 1, 2]), torch.zeros(3, 3)).tolist() == [0.0, 0.0, 0.0]
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert bool(gradient.isfinite().all())


def test_the_loss_by_hand() -> None:
    """Logits are pixels times the rows: two classes 3-4-5 apart, and Normalize scales by 1/min(std)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    images = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 1.0]]]])
    batch = Batch(images, torch.tensor([0, 0]), torch.arange(2))  # the second is wrong, by 4
    found = CertificateRegularisation(gamma=0.5, temperature=2.0)(model, batch, context())
    ce = (2.0 * math.log1p(math.exp(-1.5)) + 2.0 * math.log1p(math.exp(2.0))) / 2
    assert float(found.total.detach()) == pytest.approx(ce - 0.5 * (3 / 5) / 2, rel=1e-6)
    terms = {k: float(v) for k, v in found.terms.items()}
    assert terms == pytest.approx({"ce": ce, "radius": 0.3, "radius_of_correct": 0.6, "accuracy": 0.5}, rel=1e-6)


def test_without_weight_it_is_cross_entropy() -> None:
    batch, model = rows(), net()
    expected = functional.cross_entropy(model(batch.images), batch.labels)
    torch.testing.assert_close(CertificateRegularisation(gamma=0.0)(model, batch, context()).total, expected)


@pytest.mark.parametrize("lipschitz", ["walk", 1.0])
def test_the_radius_in_training_is_that_of_the_certificate(lipschitz) -> None:
    oracle = LinearOracle.random((1, 4, 4), 3, seed=2)
    batch = oracle.batch(20)
    terms = CertificateRegularisation(lipschitz=lipschitz)(oracle.layers, batch, context()).terms
    certified = LipschitzCertificate()(oracle.layers.eval(), batch)
    assert float(terms["radius"]) == pytest.approx(float(certified.radius.mean()), rel=1e-4)
    wrong = Batch(batch.images, (batch.labels + 1) % 3, batch.ids)
    assert float(CertificateRegularisation()(oracle.layers, wrong, context()).terms["radius"]) == 0.0


def test_misclassified_images_get_no_gradient_from_the_radius() -> None:
    model, batch = net(), rows()
    wrong = Batch(batch.images, (model(batch.images).argmax(1) + 1) % 3, batch.ids)
    parameters = list(model.parameters())
    with_it, without = (
        torch.autograd.grad(CertificateRegularisation(gamma=g)(model, wrong, context()).total, parameters)
        for g in (1.0, 0.0)
    )
    for a, b in zip(with_it, without, strict=True):
        torch.testing.assert_close(a, b)


def test_a_step_against_the_gradient_enlarges_the_radius() -> None:
    model, batch = net(), rows()
    with torch.no_grad():
        batch = Batch(batch.images, model(batch.images).argmax(1), batch.ids)
    objective = CertificateRegularisation(gamma=1.0)
    before = objective(model, batch, context())
    (before.terms["ce"].new_zeros(()) + before.total).backward()
    with torch.no_grad():
        for p in model.parameters():
            p.sub_(0.05 * p.grad)
    assert float(objective(model, batch, context()).terms["radius"]) > float(before.terms["radius"])


def test_zero_weights_stay_numbers() -> None:
    model, batch = net(), rows()
    for p in model.parameters():
        nn.init.zeros_(p)
    loss = CertificateRegularisation()(model, batch, context())
    gradients = torch.autograd.grad(loss.total, list(model.parameters()), allow_unused=True)
    assert float(loss.total.detach()) == pytest.approx(math.log(3.0), rel=1e-6)
    assert all(g is None or bool(g.isfinite().all()) for g in gradients)
