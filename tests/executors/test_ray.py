"""A real local Ray with two workers, one of which is killed: the same bytes as inline."""

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

from hauberk.attacks import APGD, PGD, AutoAttack
from hauberk.batch import Batch
from hauberk.errors import HauberkError
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import attack_records
from hauberk.evaluation.work import Step, Work
from hauberk.executors import Executor, Inline, Ray
from hauberk.threats import L2

MODULE = """
import os
import sys
import signal
from pathlib import Path

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, folder):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.folder = nn.Linear(9, 3), folder

    def forward(self, images):
        killed = Path(self.folder, "kill")
        if killed.exists() and os.getpid() != int(Path(self.folder, "driver").read_text()):
            killed.rename(Path(self.folder, f"killed-{os.getpid()}"))
            os.kill(os.getpid(), signal.SIGKILL)
        values = self.layer(images.flatten(1))
        return values + 0.05 * torch.randn(values.shape)
"""
THREAT = L2(0.02)
SUITE = AutoAttack(THREAT, version="custom", attacks=(PGD(THREAT, steps=2), APGD(THREAT, steps=3)))


@pytest.fixture
def ray() -> Iterator[None]:
    found = pytest.importorskip("ray")
    yield
    found.shutdown()


def evaluated(model: nn.Module, folder: Path, executor: Executor, kill: Path | None = None) -> dict[str, bytes]:
    pixels = torch.rand(64, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    batch = Batch(pixels, torch.arange(64) % 3, torch.arange(64))

    def report(step: Step) -> None:
        if kill is not None and step.done == 1:
            kill.touch()

    work = Work(folder, executor=executor, report=report)
    attack_records(model.eval(), batch, SUITE, Setting("noise", "test", ("a", "b", "c"), tile=4, gallery=2), work)
    return {p.name: p.read_bytes() for p in folder.glob("attack-*.parquet")}


def test_a_ray_with_a_killed_worker_leaves_the_same_bytes(
    ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a random model, which stands in a module of one's own."""
    torch.set_num_threads(1)
    (tmp_path / "driver").write_text(str(os.getpid()))
    (tmp_path / "ray_test_net.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    net = import_module("ray_test_net").Net(str(tmp_path))
    expected = evaluated(net, tmp_path / "inline", Inline())
    assert len(expected) == 8
    assert evaluated(net, tmp_path / "ray", Ray(workers=2), tmp_path / "kill") == expected
    assert len(list(tmp_path.glob("killed-*"))) == 1


def test_without_ray_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(HauberkError, match="Ray is not installed"):
        evaluated(nn.Sequential(nn.Flatten(), nn.Linear(9, 3)), tmp_path, Ray())
