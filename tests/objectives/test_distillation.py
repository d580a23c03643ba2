"""Distillation at the attacked image: its formula by hand, the teacher's input, and PLS as a sum of terms."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from hauberk.attacks.pgd import PGD
from hauberk.batch import Batch
from hauberk.conformance import check_objective
from hauberk.errors import HauberkError
from hauberk.models import small_cnn
from hauberk.models.of_run import run_hash, run_model
from hauberk.objectives.base import Context
from hauberk.objectives.distillation import Distillation
from hauberk.objectives.pgd_adversarial import PGDAdversarial
from hauberk.objectives.terms import Terms
from hauberk.runs import Run
from hauberk.threats import Linf

ATTACK = PGD(Linf(0.1), steps=2)


def net(seed: int, classes: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return small_cnn((3, 4, 4), classes, [0.5] * 3, [0.25] * 3, widths=(6,), strides=(1,))


@pytest.fixture
def batch() -> Batch:
    images = torch.rand(16, 3, 4, 4, generator=torch.Generator().manual_seed(9))
    return Batch(images, torch.arange(16) % 4, torch.arange(16))


@pytest.fixture
def teachers(tmp_path: Path) -> list[str]:
    for seed in (1, 2):
        run = Run.create(tmp_path / str(seed), {"name": str(seed), "data": {"name": "digits"}})
        run.save_model(net(seed).eval(), {}, seed=0)
    return [str(tmp_path / "1"), str(tmp_path / "2")]


def watched(model: nn.Module) -> list[torch.Tensor]:
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()) if module.training else None)
    return seen


@pytest.mark.parametrize("attack", [ATTACK, None], ids=["attacked", "clean"])
def test_the_formula_by_hand(teachers, batch, context, attack):
    student = net(3).train()
    seen = watched(student)
    found = Distillation(attack, teacher=teachers[0], temperature=3.0, weight=0.4)(student, batch, context)
    (points,) = seen
    assert torch.equal(points, batch.images) == (attack is None)
    with torch.no_grad():
        wanted, said = net(1).eval()(points).double(), student(points).double()
    kl = functional.kl_div((said / 3).log_softmax(1), (wanted / 3).softmax(1), reduction="batchmean")
    assert float(found.total.detach()) == pytest.approx(float(0.4 * 9 * kl), rel=1e-4)
    assert float(found.terms["distillation"]) == pytest.approx(float(9 * kl), rel=1e-4)


def test_pls_is_labels_and_two_teachers_at_the_same_points(teachers, batch):
    """The released weights; cross-entropy of the softened outputs has the same gradient as the divergence."""
    student = net(3).train()
    seen = watched(student)
    parts = [Distillation(ATTACK, teacher=t, weight=w) for t, w in zip(teachers, (0.1, 0.6), strict=True)]
    loss = Terms(PGDAdversarial(ATTACK), tuple(parts), weight=0.3)(
        student, batch, Context(torch.Generator().manual_seed(1))
    )
    found = torch.autograd.grad(loss.total, list(student.parameters()))
    (points,) = seen  # one pass for all three
    logits = student(points)
    total = 0.3 * functional.cross_entropy(logits, batch.labels)
    for seed, weight in ((1, 0.1), (2, 0.6)):
        soft = (net(seed).eval()(points) / 2).softmax(1).detach()
        total = total - weight * 4 * (soft * (logits / 2).log_softmax(1)).sum(1).mean()
    for a, b in zip(found, torch.autograd.grad(total, list(student.parameters())), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_teachers_are_named_outside_and_stay_as_they_are(teachers, batch, context):
    objective = Terms(PGDAdversarial(ATTACK), tuple(Distillation(ATTACK, teacher=t) for t in teachers))
    assert objective.outside() == f"{run_hash(teachers[0])} {run_hash(teachers[1])}"
    objective(net(3).train(), batch, context).total.backward()
    assert not run_model(teachers[0]).training
    assert all(p.grad is None for p in run_model(teachers[0]).parameters())


def test_another_teacher_and_another_task_are_refused(teachers, batch, context):
    with pytest.raises(HauberkError, match="weights"):
        Distillation(ATTACK, teacher=teachers[0], weights="00")(net(3), batch, context)
    with pytest.raises(HauberkError, match="4 classes, but the student has 5"):
        Distillation(teacher=teachers[0])(net(3, classes=5), batch, context)


def test_the_contract(teachers):
    check_objective(Distillation(ATTACK, teacher=teachers[0]), net(3), (3, 4, 4), 4)
