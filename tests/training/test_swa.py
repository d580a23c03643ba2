"""SWA: the mean of late epochs by hand, statistics of its own, and a resume to the last bit."""

import copy

import pytest
import torch
from torch import nn

from hauberk.batch import Batch
from hauberk.classifier import weights_hash
from hauberk.data import Augmentation
from hauberk.data.source import Source
from hauberk.objectives.standard import Standard
from hauberk.runs import Run
from hauberk.training import loop
from hauberk.training.config import Training
from hauberk.training.loop import fit
from hauberk.training.swa import SWA

SETTINGS = {
    "epochs": 4, "batch_size": 32, "lr": 0.05, "schedule": "constant", "warmup": 0.0, "swa": 0.4, "threads": 1,
    "validate_every": 0,
}  # fmt: skip


def images(seed: int = 0) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.rand(5, 1, 6, 6, generator=generator) for _ in range(3)]
    return [Batch(b, torch.zeros(5).long(), torch.arange(5)) for b in batches]


def test_late_epochs_have_equal_weights_and_early_ones_none():
    live = nn.Linear(2, 2)
    swa = SWA(live, start=0.5)
    assert swa.candidate() is None
    for value, progress in ((7.0, 0.25), (9.0, 0.5), (1.0, 0.75), (4.0, 1.0), (4.0, 1.0)):
        live.weight.data.fill_(value)
        swa.after_step(live)
        swa.after_epoch(live, progress, lambda: iter(()))
    torch.testing.assert_close(swa.candidate().weight, torch.full((2, 2), 3.0))


def test_the_statistics_are_those_of_the_mean_on_the_images(network):
    live = network()
    live.train()
    swa, batches = SWA(live, 0.0), images()
    for _ in range(2):
        live[0].weight.data.normal_()
        live[1].running_mean.fill_(9.0)
        live[1].num_batches_tracked.fill_(7)
        swa.after_epoch(live, 1.0, lambda: iter(batches))
    found = swa.candidate()
    hidden = [found[0](b.images) for b in batches]
    torch.testing.assert_close(found[1].running_mean, torch.stack([h.mean((0, 2, 3)) for h in hidden]).mean(0))
    variances = torch.stack([h.transpose(0, 1).flatten(1).var(1) for h in hidden])
    torch.testing.assert_close(found[1].running_var, variances.mean(0))
    assert found[1].momentum == live[1].momentum == 0.1
    assert not any(m.training for m in found.modules())
    assert live[1].training and bool((live[1].running_mean == 9.0).all())


def test_norms_of_frozen_parts_keep_their_statistics(network):
    live = network().train()
    live[1].eval().running_mean.fill_(9.0)
    swa = SWA(live, 0.0)
    swa.after_epoch(live, 1.0, lambda: iter(images()))
    assert bool((swa.candidate()[1].running_mean == 9.0).all())


def test_training_returns_the_mean_of_the_last_epochs(network, dataset, run, monkeypatch):
    ends, close = [], loop._Trainer._close_epoch

    def watched(self):
        ends.append(copy.deepcopy(self.model.state_dict()))
        close(self)

    monkeypatch.setattr(loop._Trainer, "_close_epoch", watched)
    model = fit(network(), Standard(), dataset, Training(**SETTINGS, augmentation=Augmentation(crop=2)), run)
    found, source = model.state_dict(), Source(dataset, (), 32, 0)
    hidden = [model[0](source.batch(index).images) for index in source.batches(3)]
    torch.testing.assert_close(found["1.running_mean"], torch.stack([h.mean((0, 2, 3)) for h in hidden]).mean(0))
    for name in ("0.weight", "5.weight"):
        torch.testing.assert_close(found[name], torch.stack([e[name] for e in ends[1:]]).mean(0))
    assert not torch.allclose(found["1.running_var"], torch.stack([e["1.running_var"] for e in ends[1:]]).mean(0))


def test_resuming_at_every_step_gives_the_same_bits(network, dataset, tmp_path, in_pieces):
    config = Training(**SETTINGS | {"checkpoint_minutes": 1e-9, "validate_every": 1, "validation_images": 16})
    whole, broken = (Run.create(tmp_path / name, {"name": "x", "data": {"name": "digits"}}) for name in "ab")
    expected = weights_hash(fit(network(), Standard(), dataset, config, whole, seed=4))
    found = in_pieces(lambda: fit(network(), Standard(), dataset, config, broken, seed=4))
    assert weights_hash(found) == expected


def test_one_average_alone():
    with pytest.raises(ValueError, match="one average"):
        Training(ema=0.9, swa=0.5)
