import pytest
import torch
from torch import nn

from hauberk.attacks.pgd import PGD
from hauberk.batch import Batch
from hauberk.data.dataset import Dataset
from hauberk.data.split import Split
from hauberk.threats import Linf
from hauberk.training.config import Training
from hauberk.training.distributed import World
from hauberk.training.validation import Judge, Score, collapsed, held_out, validate


class Ramp(nn.Module):
    """Two classes with f = mean(x) - 1/2: an Linf budget eps turns exactly the images within eps of the border."""

    def forward(self, images):
        f = images.flatten(1).mean(1) - 0.5
        return torch.stack([-f, f], 1)


@pytest.fixture
def batch():
    level = torch.linspace(0.3, 0.7, 201)
    images = level[:, None, None, None].expand(-1, 1, 4, 4).contiguous()
    labels = (level > 0.5).long()
    labels[:10] = 1  # ten clean errors, far from the border
    return Batch(images, labels, torch.arange(201))


def test_clean_and_robust_accuracy_of_a_model_with_a_known_radius(batch):
    eps = 0.0501
    score = validate(Ramp().train(), batch, PGD(Linf(eps), steps=3), World())
    level = batch.images[:, 0, 0, 0]
    right = (level > 0.5).long() == batch.labels
    assert score.clean == pytest.approx(float(right.double().mean()))
    assert score.robust == pytest.approx(float((right & ((level - 0.5).abs() > eps)).double().mean()))


def test_without_an_attack_only_clean_accuracy(batch):
    score = validate(Ramp(), batch, None, World())
    assert score.robust is None
    assert score.key == (score.clean,)
    assert list(score.row()) == ["validation_accuracy"]


def test_processes_share_the_tiles(batch, monkeypatch):
    """The counts of all processes, added up, are those of one."""
    attack = PGD(Linf(0.05), steps=3)
    whole = validate(Ramp(), batch, attack, World())
    parts = []
    for size in (2, 3, 5):
        monkeypatch.setattr(World, "sum", lambda self, values: values)
        shares = [validate(Ramp(), batch, attack, World(rank, size)) for rank in range(size)]
        parts.append((sum(s.clean for s in shares), sum(s.robust for s in shares)))
    for clean, robust in parts:
        assert clean == pytest.approx(whole.clean) and robust == pytest.approx(whole.robust)


def test_selection_compares_robust_accuracy_first():
    assert Score(0.5, 0.4).key > Score(0.9, 0.3).key
    assert Score(0.6, 0.4).key > Score(0.5, 0.4).key


def test_held_out_images_are_a_fixed_subset(dataset):
    first, second = held_out(dataset.val, 20, seed=1), held_out(dataset.val, 20, seed=1)
    assert torch.equal(first.ids, second.ids) and len(set(first.ids.tolist())) == 20
    assert not torch.equal(first.ids, held_out(dataset.val, 20, seed=2).ids)
    assert len(held_out(dataset.val, 0, seed=1)) == len(held_out(dataset.val, 999, seed=1)) == len(dataset.val)


@pytest.mark.parametrize(
    ("robust", "one_step", "fallen"),
    [(0.29, 0.71, True), (0.31, 0.71, False), (0.29, 0.69, False), (0.0, 1.0, True), (0.5, 0.9, False)],
)
def test_a_collapse_is_a_fall_of_robust_accuracy_while_that_of_one_step_rises(robust, one_step, fallen):
    assert collapsed(robust, one_step, {"score": [0.4, 0.8], "one_step": 0.7}, 0.1) is fallen


class Masked(Ramp):
    """The same decisions, with a ripple that turns the gradient: one step goes the wrong way, and PGD does not stay."""

    def forward(self, images):
        level = images.flatten(1).mean(1)
        f = level - 0.5 - 0.004 * torch.sin(1000 * (level - 0.5))
        return torch.stack([-f, f], 1)


def judge(dataset, attack=PGD(Linf(0.05), steps=10), **more):
    config = Training(validation_attack=attack, validation_images=32, **more)
    return Judge(dataset.train, dataset.val, config, 3, torch.device("cpu"))


def test_a_judge_measures_the_gap_and_one_step_where_it_is_asked(dataset, network):
    model = network().eval()
    plain, asked = judge(dataset)(model, World()), judge(dataset, gap_images=16, collapse=0.1)(model, World())
    assert plain.row().keys() == {"validation_accuracy", "validation_robust_accuracy"}
    assert (asked.clean, asked.robust) == (plain.clean, plain.robust)
    learnt = validate(model, held_out(dataset.train, 16, 3), PGD(Linf(0.05), steps=10), World(), 3)
    assert asked.training == learnt.robust
    assert asked.row()["robust_gap"] == asked.training - asked.robust
    assert asked.row()["validation_one_step_accuracy"] >= asked.robust - 1e-9
    assert not asked.collapsed


def seen_data(batch):
    images = (255 * batch.images).round().to(torch.uint8)
    splits = [Split(name, images, (images[:, 0, 0, 0] > 127).long(), torch.arange(201) + 300 * i)
              for i, name in enumerate(("train", "val", "test"))]  # fmt: skip
    return Dataset("levels", ("dark", "light"), *splits)


def test_a_judge_sees_a_model_that_hides_from_one_step(batch):
    """Decisions and true radii are the same: only the attack that follows one gradient is led astray."""
    seen = judge(seen_data(batch), collapse=0.1)
    before = seen(Ramp(), World())
    after = seen(Masked(), World(), {"score": [before.robust + 0.2, 1.0], "one_step": before.one_step})
    assert after.one_step > before.one_step
    assert after.robust < before.robust + 0.1
    assert after.collapsed
    assert not seen(Ramp(), World(), {"score": [before.robust, 1.0], "one_step": before.one_step}).collapsed
    standing = judge(seen_data(batch), PGD(Linf(0.05), steps=1, step_size=1e-9, random_start=False), collapse=0.1)
    still = standing(Ramp(), World())
    assert still.robust == still.clean > still.one_step == before.one_step  # one step of the whole budget
