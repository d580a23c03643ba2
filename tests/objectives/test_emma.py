"""EMMA: shifts by hand, in the three regimes of a rival; the margin loss; an independent formula; training."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

from hauberk.batch import Batch
from hauberk.conformance import check_objective
from hauberk.layers import AOLConv2d, AOLLinear, MaxMin, UnitRowLinear
from hauberk.objectives.base import Context
from hauberk.objectives.emma import EMMA, RELEASED, robust_accuracy, shifted
from hauberk.objectives.ramp import Ramp

PAIRWISE = torch.tensor([[0.0, 1.0, 4.0], [1.0, 0.0, 2.0], [4.0, 2.0, 0.0]])


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


@pytest.mark.parametrize("lipschitz", [1.0, "walk"])
def test_the_contract(lipschitz) -> None:
    check_objective(EMMA(lipschitz=lipschitz), net(), (1, 4, 4))


def test_the_contract_with_another_network() -> None:
    check_objective(EMMA(eps=0.5, least=1.0))


def test_shifts_by_hand() -> None:
    """Speeds 1 and 4; eps 0.5: a rival far behind is moved by eps K, one within reach becomes level, one ahead by s."""
    logits = torch.tensor([[5.0, 3.0, 1.0], [5.0, 4.75, 4.0], [5.0, 6.0, 9.0]])
    found = shifted(logits, torch.zeros(3, dtype=torch.int64), PAIRWISE, 0.5, least=0.1)
    wanted = [
        [0.0, -2.0 + 0.5 * 1, -4.0 + 0.5 * 4],  # distances 2 and 1, both beyond 0.5
        [0.0, 0.0, 0.0],  # distances 0.25 and 0.25
        [0.0, 1.0 + 0.05 * 1, 4.0 + 0.05 * 4],
    ]
    torch.testing.assert_close(found, torch.tensor(wanted))


def test_the_loss_by_hand() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))  # 5 apart
    batch = Batch(torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([0]), torch.tensor([0]))
    for eps, shift in ((0.2, 1.0), (0.9, 3.0)):  # beyond 3/5 the rival is level
        found = EMMA(eps=eps)(model, batch, context())
        assert float(found.total.detach()) == pytest.approx(math.log1p(math.exp(-3.0 + shift)), rel=1e-6)
        assert float(found.terms["robust_accuracy"]) == (eps < 0.6)
    fixed = EMMA(eps=0.9, least=1.0)(model, batch, context())
    assert float(fixed.total.detach()) == pytest.approx(math.log1p(math.exp(-3.0 + 4.5)), rel=1e-6)


def test_the_margin_loss_adds_a_fixed_shift_to_every_rival() -> None:
    model, batch = net(), rows()
    logits, w = model(batch.images), model[-1].weight
    pairwise = torch.stack([(w - row).norm(dim=1) for row in w])
    expected = functional.cross_entropy(logits + 0.4 * pairwise[batch.labels], batch.labels)
    torch.testing.assert_close(EMMA(eps=0.4, least=1.0)(model, batch, context()).total, expected)


def test_value_and_gradient_against_a_formula_with_loops() -> None:
    model, batch, eps, least = net(3).double(), rows(9), 0.15, 0.2
    batch = Batch(batch.images.double(), batch.labels, batch.ids)
    logits, w = model(batch.images), model[-1].weight
    total = 0.0
    regimes = set()
    for row, y in zip(logits, batch.labels.tolist(), strict=True):
        terms = []
        for i in range(3):
            if i == y:
                terms.append(torch.zeros((), dtype=torch.float64))
                continue
            speed = (w[y] - w[i]).norm()
            own = float(((row[y] - row[i]) / speed).detach())
            regimes.add("far" if own > eps else "near" if own > least * eps else "behind")
            terms.append(row[i] - row[y] + min(max(own, least * eps), eps) * speed)
        total = total + torch.stack(terms).logsumexp(0) / len(batch)
    assert regimes == {"far", "near", "behind"}
    found = EMMA(eps=eps, least=least)(model, batch, context()).total
    torch.testing.assert_close(found, total)
    for a, b in zip(*(torch.autograd.grad(v, list(model.parameters())) for v in (found, total)), strict=True):
        torch.testing.assert_close(a, b)


def test_the_radius_of_a_pair_has_no_gradient() -> None:
    """A near rival is level with the label, yet its gap keeps the full pull of cross-entropy."""
    logits = torch.tensor([[5.0, 4.9, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(shifted(logits, torch.tensor([0]), PAIRWISE, 0.5)[0, 1], logits)
    assert gradient.tolist() == [[-1.0, 1.0, 0.0]]


def test_without_eps_it_is_cross_entropy() -> None:
    model, batch = net(), rows()
    found = EMMA(eps=0.0)(model, batch, context())
    torch.testing.assert_close(found.total, functional.cross_entropy(model(batch.images), batch.labels))
    torch.testing.assert_close(found.terms["accuracy"], found.terms["robust_accuracy"])


def test_the_released_ramp() -> None:
    assert EMMA().eps == RELEASED
    found = [RELEASED.at(t) * 255 / 36 for t in (0.0, 0.25, 0.5, 1.0)]
    assert found == pytest.approx([0.1, 1.55, 3.0, 3.0])
    model, batch = net(), rows()
    for progress, eps in ((0.0, 0.1 * 36 / 255), (0.9, 3 * 36 / 255)):
        torch.testing.assert_close(
            EMMA()(model, batch, context(progress)).total, EMMA(eps=eps)(model, batch, context()).total
        )


def test_robust_accuracy_asks_for_more_than_a_tie() -> None:
    logits = torch.tensor([[5.0, 4.5, 0.0], [5.0, 4.4, 0.0], [5.0, 4.0, 2.9], [4.0, 5.0, 0.0]])
    found = robust_accuracy(logits, torch.zeros(4, dtype=torch.int64), PAIRWISE, 0.5)
    assert float(found) == 0.5  # level at 0.5; kept; kept; wrong


def test_level_rows_and_zero_weights_stay_numbers() -> None:
    model, batch = net(), rows()
    for p in model.parameters():
        nn.init.zeros_(p)
    loss = EMMA(eps=0.5)(model, batch, context())
    gradients = torch.autograd.grad(loss.total, list(model.parameters()), allow_unused=True)
    assert float(loss.total.detach()) == pytest.approx(math.log(3.0), rel=1e-6)
    assert all(g is None or bool(g.isfinite().all()) for g in gradients)


def test_settings_are_checked() -> None:
    for wrong in (
        {"least": 1.5},
        {"eps": Ramp(start=0.0, end=1.0), "lipschitz": 0.0},
        {"eps": {"start": -1.0, "end": 1.0}},
    ):
        with pytest.raises(ValidationError):
            EMMA(**wrong)
