"""Executors: the same records wherever units are done, and a worker that dies costs its unit only."""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hauberk.attacks import APGD, PGD, AutoAttack
from hauberk.batch import Batch
from hauberk.certificates import LipschitzCertificate, SmoothingCertificate
from hauberk.errors import HauberkError
from hauberk.evaluation import work
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import attack_records, certificate_records
from hauberk.evaluation.work import Step, Work
from hauberk.executors import Executor, Inline, Processes
from hauberk.layers import AOLLinear, MaxMin
from hauberk.noises import Gaussian
from hauberk.records import Part
from hauberk.threats import L2

THREAT = L2(0.1)
SUITE = AutoAttack(THREAT, version="custom", attacks=(PGD(THREAT, steps=2), APGD(THREAT, steps=4)))
SETTING = Setting("noise", "test", ("a", "b", "c"), tile=4, gallery=2)


class Net(nn.Module):
    """A linear net, with noise a random one."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.noise = nn.Linear(9, 3), noise

    def forward(self, images: Tensor) -> Tensor:
        values: Tensor = self.layer(images.flatten(1))
        return values + self.noise * torch.randn(values.shape) if self.noise else values


def in_workers(monkeypatch: pytest.MonkeyPatch, first: Callable[[], None]) -> None:
    """Let every worker do something before each of its units."""
    plain, driver = work.execute, os.getpid()

    def watched(task: work.Task, unit: work.Unit) -> Part:
        if os.getpid() != driver:
            first()
        return plain(task, unit)

    monkeypatch.setattr(work, "execute", watched)


def dying(folder: Path) -> None:
    """Die once for every file that tells so."""
    for told in folder.glob("deaths-*"):
        with contextlib.suppress(FileNotFoundError):  # another one has died of it
            told.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


def images(rows: int = 36) -> Batch:
    pixels = torch.rand(rows, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return Batch(pixels, Net()(pixels).argmax(1), torch.arange(rows))


def evaluated(model: nn.Module, folder: Path, executor: Executor, shards: int = 1, **how: Any) -> dict[str, bytes]:
    for shard in range(shards):
        there = Work(folder, (shard, shards), executor=executor, **how)
        attack_records(model.eval(), images(), SUITE, SETTING, there)
        certificate_records(Net().eval(), images(), SmoothingCertificate(Gaussian(0.25), n0=8, n=32), SETTING, there)
    return records(folder)


def records(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.glob("*.parquet") if not p.name.startswith("fingerprint")}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize(("noise", "shards"), [(0.0, 1), (0.1, 4)], ids=["deterministic", "random-in-shards"])
def test_processes_leave_the_same_bytes(noise: float, shards: int, tmp_path: Path) -> None:
    expected = evaluated(Net(noise), tmp_path / "inline", Inline())
    assert len(expected) >= 3 + 9
    assert evaluated(Net(noise), tmp_path / "processes", Processes(workers=3), shards) == expected
    assert multiprocessing.active_children() == []


def test_a_worker_that_dies_costs_its_unit_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = evaluated(Net(), tmp_path / "inline", Inline())
    in_workers(monkeypatch, lambda: dying(tmp_path))
    for number in range(2):
        (tmp_path / f"deaths-{number}").touch()
    assert evaluated(Net(), tmp_path / "processes", Processes(workers=3)) == expected
    assert list(tmp_path.glob("deaths-*")) == []


def test_a_unit_that_kills_its_workers_is_an_error_and_what_was_finished_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = evaluated(Net(), tmp_path / "inline", Inline())
    seen = []

    def deadly(step: Step) -> None:
        seen.append(step.done)
        for number in range(100 if len(seen) == 2 else 0):
            (tmp_path / f"deaths-{number}").touch()

    with monkeypatch.context() as patched:
        in_workers(patched, lambda: dying(tmp_path))
        said = r"3 workers died at the images \d+ to \d+ \(.*\), the last one by SIGKILL"
        with pytest.raises(HauberkError, match=said):
            evaluated(Net(), tmp_path / "processes", Processes(workers=2), report=deadly)
    kept = records(tmp_path / "processes")
    assert 2 <= len(kept) < len(expected)
    assert kept.items() <= expected.items()
    assert evaluated(Net(), tmp_path / "processes", Processes(workers=2)) == expected


def test_an_error_of_the_users_code_names_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing() -> None:
        raise ValueError("no such thing")

    in_workers(monkeypatch, failing)
    with pytest.raises(HauberkError, match=r"test_processes\.py:\d+: ValueError: no such thing"):
        evaluated(Net(), tmp_path, Processes(workers=2))
    assert multiprocessing.active_children() == []


def test_ctrl_c_ends_all_workers(tmp_path: Path) -> None:
    def stopped(step: Step) -> None:
        assert multiprocessing.active_children()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluated(Net(), tmp_path, Processes(workers=3), report=stopped)
    assert multiprocessing.active_children() == []


def test_workers_end_with_a_driver_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def long() -> None:
        (tmp_path / f"worker-{os.getpid()}").touch()
        time.sleep(600)

    driver = os.fork()
    if driver == 0:
        with contextlib.suppress(BaseException):
            in_workers(monkeypatch, long)
            evaluated(Net(), tmp_path, Processes(workers=2))
        os._exit(0)
    until(lambda: len(list(tmp_path.glob("worker-*"))) == 2)
    os.kill(driver, signal.SIGKILL)
    os.waitpid(driver, 0)
    workers = [int(path.name.removeprefix("worker-")) for path in tmp_path.glob("worker-*")]
    until(lambda: not any(alive(pid) for pid in workers))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(said: Any) -> None:
    for _ in range(2000):
        if said():
            return
        time.sleep(0.005)
    raise AssertionError("it did not happen")


def test_new_processes_get_the_model_pickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there are no forks, and where a GPU is in use."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), AOLLinear(9, 6), MaxMin(), nn.Linear(6, 3)).eval()
    few = images(12)
    for name, executor in (("inline", Inline()), ("spawned", Processes(workers=1))):
        monkeypatch.setattr("hauberk.executors.processes.FORKS", False)
        certificate_records(net, few, LipschitzCertificate(), SETTING, Work(tmp_path / name, executor=executor))
    assert len(records(tmp_path / "inline")) == 3
    assert records(tmp_path / "spawned") == records(tmp_path / "inline")


def test_two_threads_of_one_process_do_no_units_together() -> None:
    assert work._alone.acquire(blocking=False)
    try:
        with pytest.raises(HauberkError, match="a second thread"):
            work.execute(None, None)  # type: ignore[arg-type]
    finally:
        work._alone.release()
