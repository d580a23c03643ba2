"""Logit annealing: by hand, as offset cross-entropy, its slope, and EMMA's shift below it."""

import math

import pytest
import torch
from torch import nn

from hauberk.batch import Batch
from hauberk.conformance import check_objective
from hauberk.layers import AOLConv2d, AOLLinear, MaxMin, UnitRowLinear
from hauberk.objectives.base import Context
from hauberk.objectives.emma import shifted
from hauberk.objectives.logit_annealing import LogitAnnealing, annealed
from hauberk.objectives.ramp import Ramp
from hauberk.objectives.standard import Standard


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        AOLConv2d(1, 4, 3, padding=1), MaxMin(), nn.Flatten(), AOLLinear(64, 8), MaxMin(), UnitRowLinear(8, 3)
    )


def rows(count: int = 24, seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(torch.rand(count, 1, 4, 4, generator=generator), torch.arange(count) % 3, torch.arange(count))


def context(progress: float = 1.0) -> Context:
    return Context(torch.Generator().manual_seed(0), progress=progress)


@pytest.mark.parametrize("objective", [LogitAnnealing(), LogitAnnealing(eps=0.3, power=0.5, lipschitz="walk")])
def test_the_contract(objective) -> None:
    check_objective(objective, net(), (1, 4, 4))


def test_the_contract_with_another_network() -> None:
    check_objective(LogitAnnealing(eps=Ramp(start=0.0, end=1.0)))


def test_by_hand() -> None:
    logits, labels = torch.tensor([[3.5, 0.0], [0.0, 2.0]], dtype=torch.float64), torch.tensor([0, 0])
    found = annealed(logits, labels, temperature=0.5, offset=2.0, power=3.0).tolist()
    for value, gap in zip(found, (1.5, -4.0), strict=True):  # 3.5 - 2 - 0 and 0 - 2 - 2
        p = 1.0 / (1.0 + math.exp(-gap / 0.5))
        assert value == pytest.approx(-0.5 * (1.0 - p) ** 3 * math.log(p), rel=1e-12)


def test_the_defaults_are_the_authors() -> None:
    found = LogitAnnealing()
    assert (found.temperature, found.offset, found.power, found.eps) == (0.75, 2.0, 5.0, 0.0)


def test_power_zero_is_offset_cross_entropy() -> None:
    model, batch = net(), rows()
    expected = Standard(temperature=0.4, offset=1.1)(model, batch, context()).total
    found = LogitAnnealing(temperature=0.4, offset=1.1, power=0.0)(model, batch, context()).total
    torch.testing.assert_close(found, expected)


def test_the_reward_fades_beyond_the_offset() -> None:
    """The slope in the margin: that of cross-entropy far below the offset, and a vanishing share of it above."""
    margins = torch.tensor([-6.0, 2.0, 5.0], dtype=torch.float64, requires_grad=True)
    logits, labels = torch.stack([margins, torch.zeros(3, dtype=torch.float64)], 1), torch.zeros(3, dtype=torch.int64)
    slopes = {}
    for power in (0.0, 5.0):
        loss = annealed(logits, labels, 0.75, 2.0, power).sum()
        (slopes[power],) = torch.autograd.grad(loss, margins, retain_graph=True)
    assert float(slopes[0.0][0]) == pytest.approx(-1.0, rel=1e-4)
    assert float(slopes[5.0][0]) == pytest.approx(-1.0, rel=2e-2)
    assert -1e-8 < float(slopes[5.0][2]) < 0.0
    assert float(slopes[5.0][2] / slopes[0.0][2]) < 1e-6


def test_it_sees_the_logits_that_emma_shifts() -> None:
    model, batch = net(2), rows()
    logits, w = model(batch.images), model[-1].weight
    pairwise = torch.stack([(w - row).norm(dim=1) for row in w])
    moved = shifted(logits, batch.labels, pairwise, 0.3, 0.05)
    expected = annealed(moved, batch.labels, 0.75, 2.0, 5.0).mean()
    found = LogitAnnealing(eps=Ramp(start=0.0, end=0.6, over=1.0), least=0.05)(model, batch, context(0.5))
    torch.testing.assert_close(found.total, expected)
    unmoved = annealed(logits, batch.labels, 0.75, 2.0, 5.0).mean()
    torch.testing.assert_close(LogitAnnealing()(model, batch, context()).total, unmoved)
    assert float((expected - unmoved).abs().detach()) > 1e-3


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_margins_have_finite_slopes(power: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([[1e4, 0.0], [-1e4, 0.0], [20.0, 0.0]], dtype=dtype, requires_grad=True)
    loss = annealed(logits, torch.zeros(3, dtype=torch.int64), 0.75, 2.0, power)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert bool(loss.isfinite().all())
    assert bool(gradient.isfinite().all())
    assert float(loss[0].detach()) == 0.0
    assert float(gradient[1, 0]) == pytest.approx(-1.0)
