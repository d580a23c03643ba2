"""What there is to know about data and answers reaches the terminal, the run and the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hauberk.report.page import write_report
from hauberk.runs import Run

MODEL = """
import torch
from torch import nn

class Always(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        first = images.flatten(1).mean(1) * self.weight
        return torch.stack([2 + first, -1 - first, 0 * first], 1)

def build():
    return Always()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model that always answers class 0, and data sorted by class with copies across its splits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("always_first.py").write_text(MODEL)
    images = np.random.default_rng(0).integers(0, 256, (60, 6, 6), dtype=np.uint8)
    labels = np.arange(60) // 20
    np.savez("own.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    return tmp_path


@pytest.fixture
def run(here: Path, typed: Callable[..., tuple[int, str]]) -> Callable[..., str]:
    """One command: all that it prints."""
    return lambda *words: typed(*words)[1]


DATA = ["--data", "npz,file=own.npz,layout=NHW,root=.,val_size=0", "-o", "runs/own"]


def test_a_net_that_always_says_one_class(here: Path, run: Callable[..., str]) -> None:
    """All 20 of the first images are of that class; the sample is not, and both facts are said."""
    smoothing = ["--method", "smoothing", "--sigma", "0.25", "--n", "50", "--images", "21"]
    said = run("certify", "always_first:build", *DATA, *smoothing)
    assert "60 images of the test split are in the train split too" in said
    assert "answers 0 for every image" in said and "33.3 %" in said
    page = write_report([here / "runs/own"], here / "page.html").read_text()
    assert "answers 0 for every image" in page
    assert "60 images of the test split are in the train split too" in page
    assert Run.open(here / "runs/own").info["notes"]


def test_the_first_images_on_request(here: Path, run: Callable[..., str]) -> None:
    arguments = ["--attack", "fgsm", "--threat", "linf:1/255", "--one-norm", "--images", "20", "--first"]
    said = run("attack", "always_first:build", *DATA, *arguments)
    assert "All 20 images are of one class, 0: nothing here is about the other 2." in said


def test_check_says_it_too(here: Path, run: Callable[..., str]) -> None:
    assert "in the train split too" in run("check", "always_first:build", *DATA)


@pytest.mark.parametrize("verb", [["attack", "--threat", "linf:8"], ["certify", "--method", "smoothing,sigma=0.5,n=9"]])
def test_what_makes_no_sense_leaves_nothing(here: Path, run: Callable[..., str], verb: list[str]) -> None:
    said = run(verb[0], "always_first:build", *DATA, *verb[1:])
    assert "did you mean linf:8/255?" in said or "10 votes are needed" in said
    assert not (here / "runs").exists()
