"""A model of the user's own, from the command line, in a process for each command: edited, retrained, verified."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from hauberk import audit as audit
from hauberk.cli import main

MODEL = """
    import torch
    from torch import nn
    SIGN = 1.0
    class Net(nn.Module):
        def __init__(self, seed):
            super().__init__()
            torch.manual_seed(seed)
            self.nets = [nn.Linear(64, 10)]  # in a plain list, where no state_dict finds them
        def forward(self, x):
            return SIGN * self.nets[0](x.flatten(1))
    def build():
        return Net(0).eval()
    """
CERTIFY = ["certify", "mine:build", "--data", "digits", "--images", "16", "--method", "smoothing", "--sigma", "0.25",
           "--n", "100"]  # fmt: skip
ATTACK = ["attack", "mine:build", "--data", "digits", "--images", "16", "--threat", "l2:0.1", "--attack", "fgsm"]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)  # a fork with more would wait for threads that it does not have


def hauberk(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own: a fork, which has torch but has never seen the model."""
    said = [folder / "stdout", folder / "stderr"]
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        sys.argv = ["hauberk", *arguments]
        sys.stdout, sys.stderr = (path.open("w") for path in said)
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(code or 0))  # type: ignore[call-overload]
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return subprocess.CompletedProcess(arguments, status, *(path.read_text() for path in said))


def records(folder: Path, kind: str) -> set[str]:
    return {path.name for path in (folder / "runs" / "mine-build-digits" / "records").glob(f"{kind}-*")}


@pytest.mark.parametrize(
    ("kind", "command", "old", "new"),
    [
        ("certificate", CERTIFY, "nets[0](x.flatten(1))", "nets[0](1 - x.flatten(1))"),
        ("attack", ATTACK, "Net(0)", "Net(1)"),
    ],
)
def test_the_same_command_after_an_edit_measures_again(
    kind: str, command: list[str], old: str, new: str, tmp_path: Path
) -> None:
    text = textwrap.dedent(MODEL)
    (tmp_path / "mine.py").write_text(text)
    for _ in range(2):
        done = hauberk(tmp_path, *command)
        assert done.returncode == 0, done.stderr
        first = records(tmp_path, kind)
        assert len(first) == 1
    (tmp_path / "mine.py").write_text(text.replace(old, new))
    assert hauberk(tmp_path, *command).returncode == 0
    assert len(records(tmp_path, kind)) == 2 and first < records(tmp_path, kind)


def test_records_of_ones_own_model_are_verified_from_the_weights(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(textwrap.dedent(MODEL))
    assert hauberk(tmp_path, *ATTACK).returncode == 0
    unnamed = hauberk(tmp_path, "verify", "runs/mine-build-digits", "--weights")
    assert unnamed.returncode == 1 and "--model mine:build" in unnamed.stderr
    named = hauberk(tmp_path, "verify", "runs/mine-build-digits", "--weights", "--model", "mine:build")
    assert named.returncode == 0, named.stdout + named.stderr
    (tmp_path / "mine.py").write_text(textwrap.dedent(MODEL).replace("SIGN = 1.0", "SIGN = -1.0"))
    changed = hauberk(tmp_path, "verify", "runs/mine-build-digits", "--weights", "--model", "mine:build")
    assert changed.returncode == 1 and "another model" in changed.stdout
