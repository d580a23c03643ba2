"""The dual bounds as a regulariser: the contract, its formula, and bounds that training makes tight."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from hauberk.batch import Batch
from hauberk.conformance import check_objective
from hauberk.errors import HauberkError
from hauberk.models import one_hidden_layer
from hauberk.objectives.base import Context
from hauberk.objectives.semidefinite_dual import SemidefiniteDual, dual_bounds, last_layer


def model_of(hidden: int = 6) -> nn.Module:
    torch.manual_seed(0)
    return one_hidden_layer((3, 2, 2), 3, (0.4,) * 3, (0.2,) * 3, hidden=hidden)


def context() -> Context:
    return Context(torch.Generator().manual_seed(0))


def test_the_contract() -> None:
    check_objective(SemidefiniteDual(), model_of(), (3, 2, 2))


def test_the_loss_is_cross_entropy_plus_the_mean_bound() -> None:
    model = model_of().double()
    batch = Batch(torch.rand(4, 3, 2, 2, dtype=torch.float64), torch.tensor([0, 1, 2, 0]), torch.arange(4))
    loss = SemidefiniteDual(weight=0.7)(model, batch, context())
    certified = model[-1].eval().pairwise_bounds((12,), "linf")
    from_norms = model[-1].duals(torch.float64)
    exact = 0.5 * torch.linalg.matrix_norm(from_norms[0], 2) * from_norms[1]
    expected = functional.cross_entropy(model(batch.images), batch.labels) + 0.7 * exact.mean()
    assert float(loss.total.detach()) == pytest.approx(float(expected.detach()), rel=1e-3)
    assert bool((certified[0, 1:] <= exact[:2] * (1 + 1e-6)).all())


def test_the_gradient_is_that_of_the_norm() -> None:
    layer = last_layer(model_of().double())
    with torch.no_grad():  # where all are equal, the lengths of p and q are stationary
        for logs in (layer.log_p, layer.log_q):
            logs.copy_(torch.randn(logs.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    found = torch.autograd.grad(dual_bounds(layer, context()).sum(), list(layer.parameters()), allow_unused=True)
    scaled, size, _ = layer.duals(torch.float64)
    exact = (0.5 * torch.linalg.matrix_norm(scaled, 2) * size).sum()
    wanted = torch.autograd.grad(exact, list(layer.parameters()), allow_unused=True)
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other, atol=2e-2 * float(other.abs().max()))


def test_training_the_dual_variables_alone_makes_bounds_smaller() -> None:
    model = model_of(16).double()
    layer = last_layer(model)
    before = layer.eval().pairwise_bounds((12,), "linf")
    product = copy.deepcopy(layer.net)
    optimiser, kept = torch.optim.Adam([layer.log_p, layer.log_q], lr=0.05), context()
    for _ in range(150):
        optimiser.zero_grad()
        dual_bounds(layer, kept).mean().backward()
        optimiser.step()
    after = layer.pairwise_bounds((12,), "linf")
    assert all(torch.equal(a, b) for a, b in zip(product.parameters(), layer.net.parameters(), strict=True))
    assert float(after.sum()) < 0.95 * float(before.sum())


def test_another_model_is_refused() -> None:
    with pytest.raises(HauberkError, match="OneHiddenLayer"):
        last_layer(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
