"""A model with more outputs than the data has classes: the page names what has no name of its own."""

from pathlib import Path

import pytest

import hauberk
from hauberk.attacks import FGSM
from hauberk.recipes import Evaluation
from hauberk.report import write_report
from hauberk.report.words import class_name
from hauberk.subjects import subject
from hauberk.threats import Linf

TWENTY = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 20))
    with torch.no_grad():
        net[1].bias[15] = 9.0
    return net
"""


@pytest.mark.parametrize(("k", "name"), [(0, "cat"), (1, "dog"), (2, "class 2"), (15, "class 15"), (-1, "no decision")])
def test_every_answer_has_a_name(k: int, name: str) -> None:
    assert class_name(k, ("cat", "dog")) == name


def test_the_page_of_a_model_with_twenty_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "twenty_outputs.py").write_text(TWENTY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    target = subject("twenty_outputs:build", tmp_path / "run", "digits")
    hauberk.attack(target, [FGSM(Linf(0.1))], Evaluation(images=8, tile=16, gallery=4))
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "class 15" in page
