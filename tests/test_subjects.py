"""Subjects: a run is made with its first record, neither before nor after."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import hauberk
from hauberk.attacks import FGSM, PGD
from hauberk.audit import recompute
from hauberk.catalogue.model_files import FILES, KNOWN
from hauberk.cli import options
from hauberk.data import load
from hauberk.errors import HauberkError
from hauberk.evaluation.work import Step
from hauberk.models.source import is_file
from hauberk.recipes import Evaluation
from hauberk.runs import Run
from hauberk.subjects import Subject
from hauberk.threats import Linf
from hauberk.trust import trusting
from hauberk.verbs.evaluate import _target

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
    def stop(step: Step) -> None:
        if step.done:  # before, it is said what will be done
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


CODE = "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint and the code that it fills, which may be imported."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "net.pt")
    (tmp_path / "filled_net.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "filled_net", raising=False)
    return tmp_path


def judged(**more: str) -> Subject:
    target = hauberk.subject("net.pt", data="digits", arch="filled_net:build", **more)
    hauberk.attack(target, [FGSM(Linf(0.1))], FEW)
    return target


def test_a_checkpoint_is_judged_in_a_run_of_its_own_and_known_again(here: Path) -> None:
    run = judged().run
    assert run.recipe["model"]["factory"] == "filled_net:build" and len(run.recipe["model"]["sha256"]) == 64
    assert judged().run.path == run.path and len(list(run.records.glob("attack-*"))) == 1
    found = hauberk.subject(run.path, model="net.pt", arch="filled_net:build")
    assert not any(v.problems for v in recompute(found, None, np.random.default_rng(0)))
    torch.save({k: v + 1 for k, v in found.model.state_dict().items()}, here / "other.pt")
    with pytest.raises(HauberkError, match="SHA-256"):
        hauberk.subject(run.path, model="other.pt", arch="filled_net:build")
    torch.save(found.model.state_dict(), here / "net.pt")
    assert judged().run.path != run.path  # another content has another run


def test_the_code_that_a_run_names_for_a_checkpoint_needs_trust(here: Path) -> None:
    run = judged().run
    for words in ({}, {"model": "net.pt"}):
        with pytest.raises(HauberkError, match=r"not the model|runs only if you trust it"):
            hauberk.subject(run.path, **words)
    with trusting(everything=True):
        assert hauberk.subject(run.path).model(torch.rand(1, 1, 8, 8)).shape == (1, 10)


@pytest.mark.parametrize(
    ("source", "arch", "said"),
    [
        ("none.pt", "filled_net:build", "there is no file none.pt"),
        ("net.pt", None, "the code of their network is not known"),
        ("whole.pt", None, "holds more than weights"),
        ("junk.PTH", None, "is truncated or no checkpoint"),
        ("net.weights", "filled_net:build", "net.weights does not have the ending of a file that Hauberk opens"),
        ("filled_net:build", "filled_net:build", "--arch names the code of a checkpoint"),
        ("nothing", None, "there is no run directory nothing"),
    ],
)
def test_a_model_that_is_not_there(source: str, arch: str | None, said: str, here: Path) -> None:
    torch.save(nn.Flatten(), "whole.pt")
    for name in ("junk.PTH", "net.weights"):
        Path(name).write_bytes(b"junk")
    with pytest.raises(HauberkError, match=said):
        hauberk.subject(source, data="digits", arch=arch)
    assert not (here / "runs").exists()


def test_every_ending_is_said_where_models_are_named() -> None:
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "own_model.md").read_text()
    table = page[page.index("| You have |") : page.index("## Weights")]
    assert all(is_file(f"net{ending}") and ending in KNOWN and f"`{ending}`" in table for ending in FILES)
    assert KNOWN[1:] in options.MODELS
    assert set(re.findall(r"`(\.\w+)`", table)) == set(FILES)


def test_a_run_of_a_model_in_memory_says_how_to_go_on(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    run = Run.create(tmp_path / "mine", kept_recipe(net, tmp_path / "mine"))
    calls = (lambda: hauberk.subject(run.path), lambda: hauberk.subject(run.path, data="digits"),
             lambda: hauberk.evaluate(run), lambda: hauberk.evaluate(run, threat="linf:0.1"))  # fmt: skip
    for call in calls:
        with pytest.raises(HauberkError, match="were in memory") as raised:
            call()
        assert "out=" in raised.value.hint and "hauberk train" not in raised.value.hint


def kept_recipe(net: nn.Module, out: Path) -> dict[str, Any]:
    """What ``evaluate`` keeps of a model in memory."""
    return dict(_target(net, np.zeros((2, 1, 2, 2), np.uint8), [0, 1], out).recipe)
