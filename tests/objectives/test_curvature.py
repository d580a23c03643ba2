"""CURE: a quadratic and a linear loss in closed form, unit directions, and independence from the batch."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from hauberk.batch import Batch
from hauberk.conformance import check_objective
from hauberk.objectives.base import Context
from hauberk.objectives.curvature import Curvature, bends, directions, slopes
from hauberk.objectives.ramp import Ramp
from hauberk.randomness import Shared

KINDS = ["sign", "grad", "gaussian"]


def randomness(rows: int = 8) -> Shared:
    return Shared(torch.Generator().manual_seed(4), rows)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(8, 3, 2, 2, generator=torch.Generator().manual_seed(6), dtype=torch.float64)


@pytest.fixture
def matrix() -> torch.Tensor:
    a = torch.randn(12, 12, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return a + a.T


@pytest.mark.parametrize("kind", KINDS)
def test_a_quadratic_loss_has_its_closed_form(images, matrix, kind):
    """l = x'Ax/2 has the slope Ax, so that the regulariser is h^2 |Az|^2."""
    found = bends(lambda x: 0.5 * ((x.flatten(1) @ matrix) * x.flatten(1)).sum(1), images, kind, 0.3, randomness())
    slope = images.flatten(1) @ matrix
    z = {"sign": slope.sign(), "grad": slope, "gaussian": randomness().normal(3, 2, 2).double().flatten(1)}[kind]
    z = z / z.square().sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(found, 0.09 * (z @ matrix).square().sum(1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_linear_loss_does_not_bend(images, kind):
    w = torch.randn(12, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    assert torch.equal(bends(lambda x: x.flatten(1) @ w, images, kind, 0.3, randomness()), torch.zeros(8).double())


@pytest.mark.parametrize("kind", KINDS)
def test_directions_have_unit_length_and_no_gradient(images, kind):
    gradient = (1e-4 * images).requires_grad_(True)
    z = directions(kind, gradient, randomness())
    torch.testing.assert_close(z.flatten(1).norm(dim=1), torch.ones(8).double())
    assert not z.requires_grad


def test_no_gradient_is_no_direction():
    assert torch.equal(directions("grad", torch.zeros(2, 1, 2, 2), randomness(2)), torch.zeros(2, 1, 2, 2))


def test_the_lecture_as_printed_has_no_unit_length(linear, inner_batch):
    """It divides the gradient by the loss instead of by the gradient's own length."""
    losses = functional.cross_entropy(linear(inner_batch.images), inner_batch.labels, reduction="none").detach()
    gradient = slopes(
        lambda x: functional.cross_entropy(linear(x), inner_batch.labels, reduction="none"), inner_batch.images
    )
    printed = (gradient.detach().flatten(1) / losses[:, None]).norm(dim=1)
    assert float((printed - 1).abs().min()) > 0.02
    ours = directions("grad", gradient, randomness()).flatten(1).norm(dim=1)
    torch.testing.assert_close(ours, torch.ones(8).double())


def test_two_classes_in_closed_form(linear, inner_batch):
    """CE of the logits (0, f), f = w.x + b, has the slope (s(f) - y) w: it bends by (s(f + h w.z) - s(f))^2 |w|^2."""
    loss = Curvature(weight=2.0, h=0.3)(linear, inner_batch, Context(torch.Generator()))
    w, y = linear.weight.detach(), inner_batch.labels
    f = inner_batch.images.flatten(1) @ w + linear.bias.detach()
    along = (w.sign() * (1.0 - 2.0 * y[:, None])) / 12**0.5  # of (s - y) w: minus w's where y = 1
    wanted = ((f + 0.3 * (along @ w)).sigmoid() - f.sigmoid()).square() * w.square().sum()
    torch.testing.assert_close(loss.terms["curvature"], wanted.mean())
    torch.testing.assert_close(loss.total.detach(), 2.0 * wanted.mean())


def test_it_does_not_depend_on_the_batch_size(network, batch):
    """Running statistics, not those of the batch; gradients of a sum, not of a mean."""

    def found(rows: slice) -> torch.Tensor:
        return Curvature(h=0.2)(network, batch.select(rows), Context(torch.Generator())).terms["curvature"]

    halves = [found(slice(0, 8)), found(slice(8, 16))]
    torch.testing.assert_close(found(slice(0, 16)), sum(halves) / 2)
    assert network.training
    assert int(network[1].num_batches_tracked) == 0


def test_a_pass_that_moves_the_statistics_afterwards_changes_no_gradient(batch):
    torch.manual_seed(8)
    # smooth, so that the slopes' gradients ask for the statistics
    network = nn.Sequential(nn.Conv2d(3, 6, 2), nn.BatchNorm2d(6), nn.Tanh(), nn.Flatten(), nn.Linear(6, 4)).train()
    parameters = list(network.parameters())
    loss = Curvature(h=0.2)(network, batch, Context(torch.Generator()))
    wanted = torch.autograd.grad(loss.total, parameters, allow_unused=True, retain_graph=True)
    network(5.0 * batch.images)
    found = torch.autograd.grad(loss.total, parameters, allow_unused=True)
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True) if a is not None)
    assert float(wanted[0].abs().max()) > 1e-6


def test_h_grows_along_its_ramp(linear, inner_batch):
    objective = Curvature(h=Ramp(0.0, 0.3, 0.5))
    at = [
        objective(linear, inner_batch, Context(torch.Generator(), progress=p)).terms["curvature"]
        for p in (0, 0.25, 0.5)
    ]
    assert float(at[0]) == 0.0
    assert torch.equal(at[1], Curvature(h=0.15)(linear, inner_batch, Context(torch.Generator())).terms["curvature"])
    assert torch.equal(at[2], Curvature(h=0.3)(linear, inner_batch, Context(torch.Generator())).terms["curvature"])


def test_parameter_gradients_are_central_differences(inner_batch):
    torch.manual_seed(2)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    labels = torch.arange(8) % 3
    batch = Batch(inner_batch.images, labels, inner_batch.ids)
    objective = Curvature(h=0.3, direction="gaussian")  # whose direction does not move with the weights
    total = lambda: objective(network, batch, Context(torch.Generator().manual_seed(1))).total  # noqa: E731
    weight = network[1].weight
    (gradient,) = torch.autograd.grad(total(), weight)
    for place in ((0, 0), (3, 7)):
        ends = []
        for step in (1e-5, -1e-5):
            weight.data[place] += step
            ends.append(float(total().detach()))
            weight.data[place] -= step
        assert float(gradient[place]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_contract(kind):
    check_objective(Curvature(direction=kind, h=0.1))
