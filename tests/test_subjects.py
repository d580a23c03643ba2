"""Subjects: a run is made with its first record, neither before nor after."""

from pathlib import Path

import pytest
import torch
from torch import nn

import hauberk
from hauberk.attacks import PGD
from hauberk.data import load
from hauberk.errors import HauberkError
from hauberk.recipes import Evaluation
from hauberk.runs import Run
from hauberk.subjects import Subject
from hauberk.threats import Linf

FEW = Evaluation(images=4, tile=4)


class Cut(nn.Module):
    def __init__(self, cut: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.cut = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), cut
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(images.detach() if self.cut else images)
        return logits


def subject(path: Path, cut: bool) -> Subject:
    recipe = {"name": "mine", "data": {"name": "digits"}, "model": {"factory": "mine:net"}}
    return Subject(Run(path), Cut(cut), load("digits"), recipe)


def test_a_run_is_there_with_its_first_record(tmp_path: Path) -> None:
    def stop(step: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hauberk.attack(subject(tmp_path / "run", cut=False), [PGD(Linf(0.5), steps=1)], FEW, report=stop)
    assert Run.open(tmp_path / "run").recipe["name"] == "mine"
    assert len(list((tmp_path / "run" / "records").glob("attack-*.parquet"))) == 1


def test_what_fails_before_leaves_none(tmp_path: Path) -> None:
    target = subject(tmp_path / "run", cut=True)
    batch = hauberk.evaluation_batch(target.dataset, "test", 400)
    assert int((target.model(batch.images).argmax(1) == batch.labels).sum()) > 0  # an image that has to be attacked
    with pytest.raises(HauberkError, match="gives no gradient"):
        hauberk.attack(target, [PGD(Linf(0.5), steps=1)], Evaluation())
    assert not (tmp_path / "run").exists()
