"""Distillation from a robust run: its formula by hand, a teacher that stays as it is, and one that changed."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from hauberk.attacks.pgd import PGD
from hauberk.batch import Batch
from hauberk.classifier import weights_hash
from hauberk.conformance import check_objective
from hauberk.data.dataset import Dataset
from hauberk.data.split import Split
from hauberk.errors import HauberkError
from hauberk.models import small_cnn
from hauberk.models.of_run import run_model
from hauberk.objectives.ard import ARD
from hauberk.runs import Run
from hauberk.threats import Linf
from hauberk.training.config import Training
from hauberk.training.loop import fit

ATTACK = PGD(Linf(0.1), steps=2)


def net(seed: int, classes: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return small_cnn((3, 4, 4), classes, [0.5] * 3, [0.25] * 3, widths=(6,), strides=(1,))


def saved(model: nn.Module, folder: Path) -> str:
    run = Run.create(folder, {"name": folder.name, "data": {"name": "digits"}})
    run.save_model(model.eval(), {}, seed=0)
    return str(folder)


@pytest.fixture
def batch() -> Batch:
    images = torch.rand(16, 3, 4, 4, generator=torch.Generator().manual_seed(9))
    return Batch(images, torch.arange(16) % 4, torch.arange(16))


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    return saved(net(1), tmp_path / "teacher")


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_the_formula_by_hand(teacher: str, batch: Batch, context, weight: float) -> None:
    """No budget: the attacked image is the clean one."""
    student = net(2)
    found = ARD(PGD(Linf(0.0), steps=1), teacher=teacher, temperature=3.0, weight=weight)(student, batch, context)
    with torch.no_grad():
        wanted, said = (m(batch.images).double() for m in (net(1).eval(), student))
    kl = functional.kl_div((said / 3).log_softmax(1), (wanted / 3).softmax(1), reduction="batchmean")
    ce = functional.cross_entropy(said, batch.labels)
    assert float(found.total.detach()) == pytest.approx(float(weight * 9 * kl + (1 - weight) * ce), rel=1e-4)
    assert ("ce" in found.terms) == (weight < 1)


def test_the_teacher_sees_clean_images_and_stays_as_it_is(teacher: str, batch: Batch, context) -> None:
    seen, model = [], run_model(teacher)
    before = weights_hash(model)
    handle = model.register_forward_pre_hook(lambda m, given: seen.append((m.training, given[0])))
    student = net(2).train()
    ARD(ATTACK, teacher=teacher)(student, batch, context).total.backward()
    handle.remove()
    assert len(seen) == 1
    assert not seen[0][0] and torch.equal(seen[0][1], batch.images)
    assert weights_hash(model) == before
    assert all(p.grad is None for p in model.parameters())
    assert all(p.grad is not None for p in student.parameters())


def test_another_teacher_is_refused(teacher: str, batch: Batch, context, tmp_path: Path) -> None:
    with pytest.raises(HauberkError, match="expected 0123456789abcdef"):
        ARD(ATTACK, teacher=teacher, weights="0123456789abcdef")(net(2), batch, context)
    with pytest.raises(HauberkError, match="has 5 classes, but the student has 4"):
        ARD(ATTACK, teacher=saved(net(1, 5), tmp_path / "five"))(net(2), batch, context)
    with pytest.raises(HauberkError, match="not a run directory"):
        ARD(ATTACK, teacher=str(tmp_path / "none"))(net(2), batch, context)


def test_a_run_does_not_go_on_with_a_teacher_that_was_trained_again(tmp_path: Path) -> None:
    def split(name: str, count: int, first: int) -> Split:
        images = torch.randint(0, 256, (count, 3, 4, 4), generator=torch.Generator().manual_seed(first))
        return Split(name, images.to(torch.uint8), torch.arange(count) % 4, torch.arange(first, first + count))

    dataset = Dataset("noise", tuple("abcd"), split("train", 16, 0), split("val", 8, 16), split("test", 4, 0))
    config, run = Training(epochs=1, batch_size=8, threads=1), Run.create(tmp_path / "student", {})
    objective = ARD(ATTACK, teacher=saved(net(1), tmp_path / "teacher"))
    fit(net(2), objective, dataset, config, run)
    fit(net(2), objective, dataset, config, run)
    saved(net(3), tmp_path / "teacher")
    with pytest.raises(HauberkError, match="another training run: its objective"):
        fit(net(2), objective, dataset, config, run)


def test_the_contract(tmp_path: Path) -> None:
    path = saved(net(1, 3), tmp_path / "teacher")
    check_objective(ARD(ATTACK, teacher=path, weight=0.5), net(2, 3).train(), (3, 4, 4))
