"""Speeds of logits in training: dense matrices, closed forms, gradients, memory; and no word of certificates."""

import copy
import io
import itertools
import math

import pytest
import torch
from torch import nn

from hauberk.classifier import Normalize
from hauberk.errors import HauberkError
from hauberk.layers import AOLConv2d, MaxMin, UnitRowLinear, pairwise_bounds
from hauberk.layers.bound import Bound
from hauberk.objectives.base import Context
from hauberk.objectives.logit_speeds import MEMORY, measure, rivals, training_pairwise
from hauberk.objectives.ramp import Ramp, amount

SHAPE = (2, 6, 5)


def fresh(seed: int = 0, **others) -> Context:
    return Context(torch.Generator().manual_seed(seed), **others)


def dense(layer: nn.Module, shape: tuple[int, ...]) -> torch.Tensor:
    """The matrix of an affine layer, differentiable in its weights."""
    size = math.prod(shape)
    basis = torch.eye(size, dtype=layer.weight.dtype).reshape(size, *shape)
    return (layer(basis) - layer(torch.zeros_like(basis))).flatten(1).T


def plain_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        Normalize([0.5, 0.4], [0.5, 0.25]),
        nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU()),
        nn.Conv2d(4, 4, 3, stride=2), MaxMin(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3),
    ).double()  # fmt: skip


def distances(rows: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.stack([(a - b).norm() for b in rows]) for a in rows])


# --- ramps -----------------------------------------------------------------------------------------------------


def test_a_ramp_is_a_line_and_then_its_end() -> None:
    ramp = Ramp(start=1.0, end=3.0, over=0.5)
    assert [ramp.at(t) for t in (0.0, 0.125, 0.25, 0.5, 0.7, 1.0)] == [1.0, 1.5, 2.0, 3.0, 3.0, 3.0]
    assert Ramp(start=1.0, end=0.0, over=1.0).at(0.75) == 0.25
    assert Ramp(start=1.0, end=2.0, over=0.0).at(0.0) == 2.0
    assert (amount(0.3, 0.1), amount(ramp, 0.25)) == (0.3, 2.0)


# --- a number --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1.0, 2.5])
def test_a_number_times_the_input_scale_times_distances_of_rows(number: float) -> None:
    net = plain_net()
    found = training_pairwise(net, SHAPE, 3, number)
    torch.testing.assert_close(found, number * 4.0 * distances(net[-1].weight))  # 1 / min(0.5, 0.25)
    assert bool((found.diagonal() == 0).all())
    (gradient,) = torch.autograd.grad(found[0, 1], net[-1].weight)
    direction = net[-1].weight[0] - net[-1].weight[1]
    torch.testing.assert_close(gradient[0], number * 4.0 * direction / direction.norm())


def test_without_a_last_linear_layer_two_logits_count_sqrt_two() -> None:
    net = nn.Sequential(Normalize([0.0], [0.1]), nn.Flatten(), nn.ReLU())
    torch.testing.assert_close(
        training_pairwise(net, (1, 1, 3), 3, 2.0), 2.0 * math.sqrt(2.0) * 10.0 * (1 - torch.eye(3))
    )


def test_near_rows_keep_their_digits() -> None:
    """A difference of squares would be all rounding at this distance."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[100.0, 0.0, 0.0, 0.0], [100.0, 1e-3, 0.0, 0.0]]))
    assert float(training_pairwise(net, (1, 2, 2), 2)[0, 1].detach()) == pytest.approx(1e-3, rel=1e-6)


def test_level_rows_have_a_gradient_that_is_a_number() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    nn.init.zeros_(net[1].weight)
    found = training_pairwise(net, (1, 2, 2), 3)
    (gradient,) = torch.autograd.grad(found.sum(), net[1].weight)
    assert bool((found == 0).all())
    assert bool(gradient.isfinite().all())


# --- the walk --------------------------------------------------------------------------------------------------

LAYERS = [
    nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
    nn.Conv2d(2, 4, 3, padding=2, padding_mode="replicate"), nn.Conv2d(2, 4, (3, 2), stride=2, padding=1),
    nn.Conv2d(2, 4, 3, groups=2, padding="same"), nn.Conv2d(2, 2, 3, dilation=2, padding=2, bias=False),
    AOLConv2d(2, 4, 3, padding=1),
]  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_the_factor_of_a_convolution_is_its_largest_singular_value_with_its_gradient(layer: nn.Module) -> None:
    layer = copy.deepcopy(layer).double()
    with torch.no_grad():
        for p in layer.parameters():
            # shifted from 0, so that one singular value stands out and the vectors settle
            p.copy_(0.8 + torch.randn(p.shape, generator=torch.Generator().manual_seed(3)))
    head = nn.Linear(math.prod(layer(torch.zeros(1, *SHAPE).double()).shape), 2).double()
    net, context = nn.Sequential(layer, nn.Flatten(), head), fresh()
    for _ in range(60):
        found = training_pairwise(net, SHAPE, 2, "walk", context)[0, 1]
    free = next(p for p in layer.parameters() if p.dim() == 4)
    norm = torch.linalg.matrix_norm(dense(layer, SHAPE), 2)
    wanted = norm * (head.weight[0] - head.weight[1]).norm()
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)
    slopes = (torch.autograd.grad(v, [free, head.weight], retain_graph=True) for v in (found, wanted))
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_the_walk_is_the_product_of_all_factors() -> None:
    net, context = plain_net(1), fresh()
    for _ in range(40):
        found = training_pairwise(net, SHAPE, 3, "walk", context)
    shapes = [(2, 6, 5), (4, 6, 5), (4,)]
    norms = [torch.linalg.matrix_norm(dense(m, s), 2) for m, s in zip((net[1][0], net[2], net[6]), shapes, strict=True)]
    wanted = 4.0 * 0.5 * math.prod(norms) * distances(net[-1].weight)  # 1/min(std); means of 4 values
    torch.testing.assert_close(found, wanted, rtol=2e-3, atol=0)  # two singular values are 0.1 % apart
    certified = pairwise_bounds(net.eval(), SHAPE)
    assert bool((found <= certified).all())  # power iteration is from below: no certificate
    (gradient,) = torch.autograd.grad(found[0, 1], net[1][0].weight)
    assert bool((gradient != 0).any())


def test_the_cold_start_is_good_at_once_and_the_warm_one_follows_the_weights() -> None:
    net, context = plain_net(2), fresh()
    for step in range(12):
        found = float(training_pairwise(net, SHAPE, 3, "walk", context)[0, 1].detach())
        norms = [dense(net[1][0], (2, 6, 5)), dense(net[2], (4, 6, 5)), dense(net[6], (4,))]
        wanted = 2.0 * math.prod(float(torch.linalg.matrix_norm(m, 2).detach()) for m in norms)
        wanted *= float((net[-1].weight[0] - net[-1].weight[1]).norm().detach())
        assert 0.97 * wanted <= found <= wanted * (1 + 1e-9), step
        with torch.no_grad():
            for p in net.parameters():
                p.add_(0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(step)))


def test_a_kernel_that_maps_ones_to_zero_is_seen() -> None:
    """(5, -5) has norm sqrt(50); a start from ones says 0, that is an infinite radius."""
    net = nn.Sequential(nn.Conv2d(2, 1, 1, bias=False), nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([5.0, -5.0]).reshape(1, 2, 1, 1))
        net[2].weight.copy_(torch.eye(4)[:2])
    assert float(training_pairwise(net, (2, 2, 2), 2, "walk")[0, 1].detach()) == pytest.approx(10.0, rel=1e-5)


def test_zero_weights_stay_numbers_and_wake_up_again() -> None:
    net, context = plain_net(), fresh()
    kept = net[2].weight.detach().clone()
    nn.init.zeros_(net[2].weight)
    found = training_pairwise(net, SHAPE, 3, "walk", context)
    gradients = torch.autograd.grad(found.sum(), [net[1][0].weight, net[2].weight, net[-1].weight])
    assert bool((found == 0).all())
    assert all(bool(g.isfinite().all()) for g in gradients)
    with torch.no_grad():
        net[2].weight.copy_(kept)
    for _ in range(30):
        found = training_pairwise(net, SHAPE, 3, "walk", context)
    torch.testing.assert_close(found, training_pairwise(net, SHAPE, 3, "walk"), rtol=1e-3, atol=0)


def test_parametrised_weights_keep_their_gradient() -> None:
    """``measure`` computes them once for both; a value from a pass without gradients must not be reused."""
    torch.manual_seed(0)
    net = nn.Sequential(AOLConv2d(1, 4, 3, padding=1), MaxMin(), nn.Flatten(), UnitRowLinear(36, 3)).double()
    images = torch.rand(2, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for lipschitz in (1.0, "walk"):
        measured = measure(net, images, lipschitz, fresh())
        torch.testing.assert_close(measured.logits, net(images))
        torch.testing.assert_close(measured.pairwise, training_pairwise(net, (1, 3, 3), 3, lipschitz))
        free = [p for n, p in net.named_parameters() if "original" in n]
        found = torch.autograd.grad(measured.logits.square().sum() + measured.pairwise.sum(), free)
        wanted = torch.autograd.grad(
            net(images).square().sum() + training_pairwise(net, (1, 3, 3), 3, lipschitz).sum(), free
        )
        assert all(float(w.abs().max()) > 1e-3 for w in wanted)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b)
    assert float(measured.speed.detach()) == pytest.approx(float(measured.pairwise[0, 1].detach()) / float(
        (net[3].weight[0] - net[3].weight[1]).norm().detach()))  # fmt: skip


class Scaled(nn.Module):
    """x times a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.factor * features

    def lipschitz_bound(self, input_shape, norm="l2") -> Bound:
        return Bound(float(self.factor.detach().abs()), "factor", True)


def test_a_layer_of_another_kind_counts_with_its_bound_of_the_epoch() -> None:
    net, context = nn.Sequential(Scaled(), nn.Flatten(), nn.Linear(4, 2)), fresh()
    apart = float((net[2].weight[0] - net[2].weight[1]).norm().detach())

    def speed() -> float:
        return float(training_pairwise(net, (1, 2, 2), 2, "walk", context)[0, 1].detach())

    assert speed() == pytest.approx(2.0 * apart)
    with torch.no_grad():
        net[0].factor.fill_(3.0)
    assert speed() == pytest.approx(2.0 * apart)
    context.epoch = 1
    assert speed() == pytest.approx(3.0 * apart)
    assert net.training


def test_processes_have_the_memory_of_one_to_the_last_bit() -> None:
    net, contexts = plain_net(3), [fresh(5), fresh(5, offset=0, total=8), fresh(5, offset=4, total=8)]
    for _ in range(3):
        one, *both = (training_pairwise(net, SHAPE, 3, "walk", context) for context in contexts)
        assert all(torch.equal(other, one) for other in both)
    kept, *others = (context.state[MEMORY]["vectors"] for context in contexts)
    assert all(torch.equal(other[name], vector) for other in others for name, vector in kept.items())


def test_memory_survives_a_checkpoint_to_the_last_bit() -> None:
    net, context = plain_net(4), fresh(1)
    training_pairwise(net, SHAPE, 3, "walk", context)
    buffer = io.BytesIO()
    torch.save(context.state, buffer)
    buffer.seek(0)
    resumed = fresh(99, state=torch.load(buffer, weights_only=True))
    assert set(resumed.state[MEMORY]["vectors"]) == {"1", "3", "7"}
    for _ in range(3):
        left, right = (training_pairwise(net, SHAPE, 3, "walk", c) for c in (context, resumed))
        assert torch.equal(left, right)


@pytest.mark.parametrize("lipschitz", [1.0, "walk"])
@pytest.mark.parametrize("model", [nn.Linear(4, 2), nn.Sequential(), nn.ModuleList([nn.Linear(4, 2)])], ids=str)
def test_what_cannot_be_looked_into_is_refused(model: nn.Module, lipschitz: float | str) -> None:
    with pytest.raises(HauberkError, match="Sequential"):
        training_pairwise(model, (1, 2, 2), 2, lipschitz)


def test_a_layer_without_a_bound_is_refused_by_the_walk_alone() -> None:
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 2), nn.GELU(), nn.Flatten(), nn.Linear(2, 2)).train()
    before = copy.deepcopy(net.state_dict())
    training_pairwise(net, (1, 2, 2), 2)
    with pytest.raises(HauberkError, match="GELU"):
        training_pairwise(net, (1, 2, 2), 2, "walk")
    assert net[0].training
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_rivals_are_told_by_index() -> None:
    assert rivals(torch.tensor([2, 0]), 3).tolist() == [[True, True, False], [False, True, True]]


def test_single_precision_is_kept() -> None:
    net = plain_net().float()
    for lipschitz, _ in itertools.product((1.0, "walk"), range(2)):
        assert training_pairwise(net, SHAPE, 3, lipschitz).dtype == torch.float32
