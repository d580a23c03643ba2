"""Training a detector: its loss in closed form, a base that does not move, and the two adversaries."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hauberk import registry
from hauberk.attacks.pgd import PGD
from hauberk.batch import Batch
from hauberk.classifier import weights_hash
from hauberk.conformance import check_objective
from hauberk.defences.detector import DetectedClassifier, DetectorJoint
from hauberk.errors import HauberkError
from hauberk.objectives.base import Context
from hauberk.objectives.detector import Detector
from hauberk.threats import Linf

EPS = 0.1


@pytest.fixture
def model() -> DetectedClassifier:
    torch.manual_seed(2)
    base = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(16, 4)
    )
    return DetectedClassifier(base, nn.Sequential(nn.Flatten(), nn.Linear(16, 1)), "2", 0.0)


def test_the_contract(model: DetectedClassifier) -> None:
    wide = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(80, 3))
    for loss in ("ce", DetectorJoint()):
        guarded = DetectedClassifier(wide, nn.Sequential(nn.Flatten(), nn.Linear(80, 1)), "1", 0.0)
        check_objective(Detector(PGD(Linf(EPS), steps=2, loss=loss)), guarded)


def test_the_loss_is_the_closed_form_of_a_linear_model(inner_batch: Batch, context: Context) -> None:
    """Logits (0, w.x): the attack moves each pixel by eps along -+sign(w); the head reads the image itself."""
    generator = torch.Generator().manual_seed(1)
    w, v = (torch.randn(12, generator=generator, dtype=torch.float64) for _ in range(2))

    class Sided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            z = x.flatten(1) @ w
            return torch.stack([torch.zeros_like(z), z], 1)

    head = nn.Sequential(nn.Flatten(), nn.Linear(12, 1).double())
    with torch.no_grad():
        head[1].weight.copy_(v[None])
        head[1].bias.fill_(0.2)
    guarded = DetectedClassifier(nn.Sequential(nn.Identity(), Sided()), head, "0", 7.0).train()
    found = Detector(PGD(Linf(EPS), steps=5, step_size=3 * EPS))(guarded, inner_batch, context)
    clean = inner_batch.images.flatten(1)
    attacked = clean + EPS * torch.where(inner_batch.labels == 1, -1.0, 1.0)[:, None] * w.sign()
    scores = torch.cat([clean, attacked]) @ v + 0.2
    answers = torch.cat([torch.zeros(8), torch.ones(8)]).double()
    expected = functional.binary_cross_entropy_with_logits(scores, answers)
    torch.testing.assert_close(found.total, expected)
    torch.testing.assert_close(found.terms["bce"], expected)
    assert float(found.terms["false_positives"]) == int((scores[:8] > 0).sum()) / 8
    assert float(found.terms["true_positives"]) == int((scores[8:] > 0).sum()) / 8
    gradient = torch.autograd.grad(found.total, head[1].weight)[0].flatten()
    residual = (scores.sigmoid() - answers) / 16
    torch.testing.assert_close(gradient, residual @ torch.cat([clean, attacked]))


def test_the_base_gets_no_gradient_and_keeps_weights_and_statistics(
    model: DetectedClassifier, batch: Batch, context: Context
) -> None:
    model.train()
    before, head = weights_hash(model.base), weights_hash(model.head)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        Detector(PGD(Linf(EPS), steps=2))(model, batch, context).total.backward()
        optimizer.step()
    assert weights_hash(model.base) == before
    assert int(model.base[1].num_batches_tracked) == 0
    assert all(p.grad is None for p in model.base.parameters())
    assert weights_hash(model.head) != head
    assert all(m.training for m in model.modules())


def test_the_head_sees_the_base_as_it_is_in_eval_mode(
    model: DetectedClassifier, batch: Batch, context: Context
) -> None:
    """No dropout, running statistics: the activations that it will read later."""
    found = Detector(PGD(Linf(0.0), steps=1, step_size=0.1))(model.train(), batch, context)
    scores = copy.deepcopy(model).eval().outputs(batch.images)["detector"]
    expected = 0.5 * (functional.softplus(scores) + functional.softplus(-scores)).mean()
    torch.testing.assert_close(found.total, expected)


def test_an_attack_with_the_joint_loss_knows_the_head(context: Context) -> None:
    """Classes and detector look at one pixel each; only the dynamic adversary darkens the detector's pixel."""

    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            first = x.flatten(1)[:, 0]
            return torch.stack([torch.zeros_like(first), first], 1)

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * x.flatten(1)[:, -1:]

    guarded = DetectedClassifier(nn.Sequential(nn.Identity(), Two()), Last(), "0", 0.0).train()
    rows = Batch(torch.full((4, 1, 1, 2), 0.5), torch.ones(4).long(), torch.arange(4))

    def bce(loss: str | DetectorJoint) -> float:
        attack = PGD(Linf(EPS), steps=4, step_size=EPS, random_start=False, loss=loss)
        return float(Detector(attack)(guarded, rows, context).total.detach())

    def softplus(z: float) -> float:
        return math.log1p(math.exp(z))

    assert bce("ce") == pytest.approx(0.5 * (softplus(0.5) + softplus(-0.5)))
    assert bce(DetectorJoint()) == pytest.approx(0.5 * (softplus(0.5) + softplus(-0.4)))


def test_a_model_without_a_detector_is_named(batch: Batch, context: Context) -> None:
    with pytest.raises(HauberkError, match="with a detector, got Flatten"):
        Detector(PGD(Linf(EPS)))(nn.Flatten(), batch, context)


def test_it_is_its_spec() -> None:
    objective = Detector(PGD(Linf(8 / 255), steps=7, loss=DetectorJoint(weight=0.3)))
    assert registry.build(registry.spec(objective), kind="objective") == objective
