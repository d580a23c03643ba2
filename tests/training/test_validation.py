import pytest
import torch
from torch import nn

from hauberk.attacks.pgd import PGD
from hauberk.batch import Batch
from hauberk.threats import Linf
from hauberk.training.distributed import World
from hauberk.training.validation import Score, held_out, validate


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
