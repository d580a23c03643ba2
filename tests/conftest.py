"""Fixtures for all tests: one thread, small trained runs on the embedded digits."""

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

torch.set_num_threads(1)

TINY = """
name: tiny
data: {name: digits}
model: {name: lip_convnet, widths: [8], depth: 1, hidden: 32}
objective: {name: standard, temperature: 0.25}
training: {epochs: 3, batch_size: 64, lr: 0.3, weight_decay: 0.0, validation_images: 64}
evaluation:
  images: 48
  tile: 16
  gallery: 4
  attacks:
    - {name: apgd, threat: "l2:0.5", steps: 6}
  certificates:
    - {name: lipschitz}
"""


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe that trains in a second."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def tiny_run(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained and evaluated run; tests must not change it."""
    import hauberk
    from hauberk import recipes

    run = hauberk.train(recipes.read(tiny_recipe), tmp_path_factory.mktemp("runs") / "tiny")
    hauberk.evaluate(run)
    return run.path


@pytest.fixture
def hauberk(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Type a command in this process, word by word: exit code, stdout, stderr."""
    from hauberk import cli

    def typed(*words: object) -> tuple[int, str, str]:
        old, sys.argv = sys.argv, ["hauberk", *map(str, words)]
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            sys.argv = old
        said = capsys.readouterr()
        return code, said.out, said.err

    return typed


@pytest.fixture
def typed(hauberk: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str]]:
    """Type a command: its exit code, and all that a person sees."""

    def said(*words: object) -> tuple[int, str]:
        code, *spoken = hauberk(*words)
        return code, "".join(spoken)

    return said


@pytest.fixture(scope="session")
def reader():
    """The module that reads the real images."""
    folder = os.environ.get("HAUBERK_TEST_DATA")
    if not folder:
        pytest.skip("no real images: set HAUBERK_TEST_DATA to a folder with read_data.py")
    source = Path(folder, "read_data.py").resolve()
    if not source.exists():
        pytest.skip(f"no real images in {folder}: it has no read_data.py")
    specification = importlib.util.spec_from_file_location("hauberk_test_reader", source)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], nn.Module]], nn.Module]:
    """What a training ends with that is stopped after 1, 2, 3 ... steps and begun again by the same call.

    Its checkpoints are to be written at every step.
    """
    from hauberk.training import loop

    class Interrupted(Exception):
        pass

    def run(train: Callable[[], nn.Module]) -> nn.Module:
        step = loop._Trainer._step

        def interrupted(self: loop._Trainer, index: int) -> None:
            step(self, index)
            if next(allowed) == 0:
                raise Interrupted

        with monkeypatch.context() as patch:
            patch.setattr(loop._Trainer, "_step", interrupted)
            for attempt in range(1, 60):
                allowed = iter([*([1] * (attempt % 3)), *([0] * 99)])
                try:
                    found = train()
                except Interrupted:
                    continue
                assert attempt > 3, "it was hardly stopped"
                return found
        pytest.fail("it does not get on")

    return run
