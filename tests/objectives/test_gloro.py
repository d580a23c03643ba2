"""GloRo: the bottom logit by definition and by enumeration, two forms of one loss, ties, top-k, affinity, training."""

import itertools
import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

from hauberk.batch import Batch
from hauberk.certificates import LipschitzCertificate
from hauberk.classifier import Normalize
from hauberk.conformance import check_objective
from hauberk.errors import HauberkError
from hauberk.objectives.base import Context
from hauberk.objectives.gloro import GloRo, bottom_logit, inside, margins
from hauberk.objectives.ramp import Ramp
from hauberk.objectives.standard import Standard

PAIRWISE = torch.tensor([[0.0, 1.0, 4.0], [1.0, 0.0, 2.0], [4.0, 2.0, 0.0]])


def context(progress: float = 0.0) -> Context:
    return Context(torch.Generator().manual_seed(0), progress=progress)


def conv_net(seed: int = 0) -> nn.Sequential:
    """Plain convolutions with ReLU: nothing but training keeps their norms small."""
    torch.manual_seed(seed)
    return nn.Sequential(
        Normalize([0.5], [0.5]), nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 4, stride=2, padding=1),
        nn.ReLU(), nn.Flatten(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3),
    )  # fmt: skip


def rows(count: int = 24) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(torch.rand(count, 1, 4, 4, generator=generator), torch.arange(count) % 3, torch.arange(count))


def random_case(classes: int, seed: int, count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(classes, 5, generator=generator, dtype=torch.float64)
    logits = 2 * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    logits[0, 1] = logits[0, 0]  # ties
    logits[1] = 0.0
    return logits, torch.stack([(w - row).norm(dim=1) for row in w])


def by_definition(logits: list[float], pairwise: torch.Tensor, eps: float, k: int) -> float:
    """m_k with nothing but loops over the members and the rest."""
    order = sorted(range(len(logits)), key=lambda i: -logits[i])
    members, rest = order[:k], order[k:]
    return min(logits[j] - max(logits[i] + eps * float(pairwise[j, i]) for i in rest) for j in members)


@pytest.mark.parametrize(
    "objective",
    [
        GloRo(eps=0.1), GloRo(eps=0.1, weight=2.0), GloRo(eps=0.1, top_k=2),
        GloRo(eps=Ramp(start=0.0, end=0.5), affinity=((0, 1), (2,))),
    ],
)  # fmt: skip
def test_the_contract(objective) -> None:
    check_objective(objective)


def test_the_contract_of_the_walk() -> None:
    check_objective(GloRo(eps=0.1, lipschitz="walk"), conv_net(), (1, 4, 4))


# --- the bottom logit ------------------------------------------------------------------------------------------


def test_by_hand() -> None:
    logits = torch.tensor([[5.0, 3.0, 1.0], [1.0, 2.0, 3.5]])
    # j = 0: max(3 + 0.5 * 1, 1 + 0.5 * 4); j = 2: max(1 + 0.5 * 4, 2 + 0.5 * 2)
    assert bottom_logit(logits, PAIRWISE, 0.5).tolist() == [3.5, 3.0]
    assert bottom_logit(logits, PAIRWISE, 0.0).tolist() == [3.0, 2.0]
    # k = 2 of the first row: members 0 and 1 against 2: min(5 - 3, 3 - 2) = 1 < 1.5; of the second: {2, 1} against 0
    assert margins(logits, PAIRWISE, 0.5, 2).tolist() == [[1.5, 1.0], [0.5, 0.5]]


def test_a_tie_is_never_robust() -> None:
    """Code that masks logits by value sees no rival at [0, 0]."""
    logits = torch.tensor([[0.0, 0.0, -9.0], [2.0, 2.0, 2.0]])
    for top_k in (1, 2):
        bottom = bottom_logit(logits, PAIRWISE, 0.1, top_k)
        assert bool(bottom[1] >= 2.0)
    assert bool(bottom_logit(logits, PAIRWISE, 0.1)[0] >= 0.0)
    assert bool(bottom_logit(logits, PAIRWISE, 0.1, 2)[0] < 0.0)  # the set {0, 1} is safe from 2


@pytest.mark.parametrize("classes", [2, 3, 5, 8])
def test_margins_are_their_definition(classes: int) -> None:
    logits, pairwise = random_case(classes, classes)
    for eps in (0.0, 0.1, 0.7):
        found = margins(logits, pairwise, eps, classes - 1)
        for row, own in zip(logits.tolist(), found.tolist(), strict=True):
            for k in range(1, classes):
                assert own[k - 1] == pytest.approx(by_definition(row, pairwise, eps, k), abs=1e-12)
        torch.testing.assert_close(margins(logits, pairwise, eps, 1), found[:, :1])


def test_the_bottom_is_below_the_top_exactly_where_the_radius_exceeds_eps() -> None:
    logits, pairwise = random_case(5, 3)
    gaps, top = logits.max(1, keepdim=True).values - logits, logits.argmax(1)
    reach = (gaps / pairwise[top]).scatter(1, top[:, None], math.inf).amin(1)
    for eps in (0.05, 0.2, 0.5):
        robust = bottom_logit(logits, pairwise, eps) < logits.amax(1)
        assert torch.equal(robust, reach > eps)


def test_the_lectures_form_is_looser() -> None:
    """K_i + K_j >= K_ij by the triangle inequality."""
    generator = torch.Generator().manual_seed(4)
    w = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    logits, pairwise = torch.randn(9, 5, generator=generator, dtype=torch.float64), torch.cdist(w, w)
    lecture = (w.norm(dim=1)[:, None] + w.norm(dim=1)).fill_diagonal_(0.0)
    assert bool((bottom_logit(logits, lecture, 0.3) > bottom_logit(logits, pairwise, 0.3)).all())


@pytest.mark.parametrize("affinity", [((0, 1), (2, 3), (4,)), ((0, 1, 2), (2, 3), (4, 0)), ((0,), (1,), (2,), (3, 4))])
def test_affinity_by_enumeration(affinity) -> None:
    logits, pairwise = random_case(5, 7, 40)
    most = max(map(len, affinity))
    found, allowed = bottom_logit(logits, pairwise, 0.2, affinity=affinity), inside(logits, affinity, most)
    for index, row in enumerate(logits.tolist()):
        order = sorted(range(5), key=lambda i: -row[i])
        kin = [any(set(order[:k]) <= set(s) for s in affinity) for k in range(1, most + 1)]
        assert allowed[index].tolist() == kin
        values = [by_definition(row, pairwise, 0.2, k) for k in range(1, most + 1) if kin[k - 1]]
        assert float(found[index]) == pytest.approx(max(row) - max(values), abs=1e-12)


def test_relaxations_only_relax() -> None:
    logits, pairwise = random_case(6, 5, 30)
    bottoms = [bottom_logit(logits, pairwise, 0.2, k) for k in range(1, 6)]
    assert all(bool((b <= a).all()) for a, b in itertools.pairwise(bottoms))
    alone = bottom_logit(logits, pairwise, 0.2, affinity=tuple((i,) for i in range(6)))
    torch.testing.assert_close(alone, bottoms[0])
    torch.testing.assert_close(bottom_logit(logits, pairwise, 0.2, affinity=(tuple(range(6)),)), bottoms[-1])


def test_gradients_by_finite_differences() -> None:
    logits, pairwise = random_case(4, 11)
    logits = (logits + 0.01 * torch.arange(4)).requires_grad_(True)  # away from ties
    for top_k in (1, 3):
        assert torch.autograd.gradcheck(
            lambda z, p, k=top_k: bottom_logit(z, p, 0.3, k), (logits, pairwise.requires_grad_(True))
        )


# --- the loss --------------------------------------------------------------------------------------------------


def test_weight_one_is_cross_entropy_with_one_more_logit() -> None:
    model, batch = conv_net(), rows()
    logits = model(batch.images)
    w = model[-1].weight
    pairwise = 2.0 * torch.stack([(w - row).norm(dim=1) for row in w])
    bottom = bottom_logit(logits, pairwise, 0.3)
    expected = functional.cross_entropy(torch.cat([logits, bottom[:, None]], 1), batch.labels)
    torch.testing.assert_close(GloRo(eps=0.3)(model, batch, context()).total, expected)


def test_the_collapsed_divergence_is_the_divergence() -> None:
    model, batch = conv_net(2), rows()
    logits = model(batch.images)
    w = model[-1].weight
    pairwise = 2.0 * torch.stack([(w - row).norm(dim=1) for row in w])
    longer = torch.cat([logits, bottom_logit(logits, pairwise, 0.7)[:, None]], 1).log_softmax(1)
    p = logits.softmax(1)
    kl = (p * (p.log() - longer[:, :-1])).sum(1).mean()  # 0 log 0 = 0 for the last entry
    found = GloRo(eps=0.7, weight=3.0)(model, batch, context())
    torch.testing.assert_close(found.terms["divergence"], kl.detach())
    torch.testing.assert_close(found.total, functional.cross_entropy(logits, batch.labels) + 3.0 * kl)


def test_by_hand_with_two_classes() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    batch = Batch(torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([0]), torch.tensor([0]))
    found = GloRo(eps=0.2, weight=0.5, lipschitz=1.0)(model, batch, context())
    e3, e1 = math.exp(3.0), math.exp(1.0)  # logits 3 and 0, bottom 0 + 0.2 * 5
    ce, kl = math.log((e3 + 1) / e3), math.log((e3 + 1 + e1) / (e3 + 1))
    assert float(found.total.detach()) == pytest.approx(ce + 0.5 * kl, rel=1e-6)
    assert {k: float(found.terms[k]) for k in ("accuracy", "robust_accuracy", "speed")} == {
        "accuracy": 1.0, "robust_accuracy": 1.0, "speed": 1.0,
    }  # fmt: skip
    level = Batch(torch.zeros(1, 1, 1, 2), torch.tensor([0]), torch.tensor([0]))
    assert float(GloRo(eps=0.0)(model, level, context()).terms["robust_accuracy"]) == 0.0
    beyond = GloRo(eps=0.7)(model, batch, context())  # 0 + 0.7 * 5 > 3
    assert (float(beyond.terms["accuracy"]), float(beyond.terms["robust_accuracy"])) == (1.0, 0.0)


def test_eps_and_weight_follow_their_ramps() -> None:
    model, batch = conv_net(), rows()
    ramped = GloRo(eps=Ramp(start=0.1, end=0.5, over=0.5), weight=Ramp(start=0.0, end=2.0, over=1.0))
    for progress, eps, weight in ((0.0, 0.1, 0.0), (0.25, 0.3, 0.5), (0.75, 0.5, 1.5)):
        torch.testing.assert_close(
            ramped(model, batch, context(progress)).total, GloRo(eps=eps, weight=weight)(model, batch, context()).total
        )


def test_settings_are_checked() -> None:
    model, batch = conv_net(), rows()
    with pytest.raises(HauberkError, match=r"1\.\.2"):
        GloRo(eps=0.1, top_k=3)(model, batch, context())
    for affinity in (((0, 1),), ((0, 1), (2, 3))):
        with pytest.raises(HauberkError, match=r"classes 0\.\.2"):
            GloRo(eps=0.1, affinity=affinity)(model, batch, context())
    for wrong in (
        {"top_k": 2, "affinity": ((0, 1), (2,))},
        {"affinity": ((0, 1, 2), ())},
        {"lipschitz": "guess"},
        {"eps": -1.0},
    ):
        with pytest.raises(ValidationError):
            GloRo(**{"eps": 0.1} | wrong)


def test_plain_values_make_a_ramp() -> None:
    assert GloRo(eps={"start": 0.0, "end": 0.5}) == GloRo(eps=Ramp(start=0.0, end=0.5))


def test_training_makes_plain_layers_certifiable() -> None:
    """Cross-entropy lets the norms grow and leaves nothing to certify; the same net under GloRo keeps a radius."""
    centres = torch.tensor([[0.2, 0.2], [0.8, 0.2], [0.5, 0.8]])
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(60) % 3
    flat = (centres[labels].repeat(1, 8) + 0.05 * torch.randn(60, 16, generator=generator)).clamp(0, 1)
    batch = Batch(flat.reshape(60, 1, 4, 4), labels, torch.arange(60))
    radius = {}
    for objective in (Standard(), GloRo(eps=0.5, lipschitz="walk")):
        model, state = conv_net(4), context()
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(100):
            optimizer.zero_grad()
            loss = objective(model, batch, state)
            loss.total.backward()
            optimizer.step()
        assert float(loss.terms["accuracy"]) == 1.0
        certified = LipschitzCertificate()(model.eval(), batch)
        radius[type(objective).__name__] = float(certified.radius.mean())
    assert float(loss.terms["robust_accuracy"]) > 0.9
    assert radius["GloRo"] > 2.0 * radius["Standard"], radius
