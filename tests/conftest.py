"""Fixtures for all tests: one thread, small trained runs on the embedded digits."""

from pathlib import Path

import pytest
import torch

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
    from hauberk import api, recipes

    run = api.train(recipes.read(tiny_recipe), tmp_path_factory.mktemp("runs") / "tiny")
    api.evaluate(run)
    return run.path
