"""Lipschitz bounds and input gradients: from the command line into the run, and from the run onto the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import hauberk
from hauberk.report import summary, write_report
from hauberk.report.bundle import write_bundle
from hauberk.report.lipschitz import gradients, views
from hauberk.runs import Run


@pytest.fixture
def looked_at(tiny_run: Path, tmp_path: Path) -> Path:
    path = Path(shutil.copytree(tiny_run, tmp_path / "looked_at"))
    hauberk.lipschitz(hauberk.subject(path), images=3)
    return path


def test_the_page_shows_layers_and_pictures(looked_at: Path, tmp_path: Path) -> None:
    text = write_report([looked_at], tmp_path / "page.html").read_text()
    assert "Input gradients side by side" in text
    found = summary([looked_at])["lipschitz"]
    assert found[0]["run"] == "looked_at"
    for layer in found[0]["layers"]:
        assert layer["kind"] in text
    kept = Run(looked_at).info["lipschitz"]["l2"]["pictures"]
    assert len(kept) == 3
    for picture in kept:
        assert picture["image"] in text
        assert picture["gradient"] in text
    assert text.count(kept[0]["gradient"]) == 1  # not once more among the versions and hashes


def test_a_bundle_keeps_it_and_runs_without_it_show_nothing(looked_at: Path, tiny_run: Path, tmp_path: Path) -> None:
    bundle = write_bundle(Run.open(looked_at), tmp_path / "bundle")
    assert views([_Named("b", Run.open(bundle).info)])[0].layers
    assert views([_Named("t", Run.open(tiny_run).info)]) == []
    assert gradients([_Named("t", Run.open(tiny_run).info)]) is None
    assert json.dumps(Run.open(bundle).info["lipschitz"]) == json.dumps(Run.open(looked_at).info["lipschitz"])


class _Named:
    def __init__(self, name: str, info: dict) -> None:
        self.name, self.info = name, info


def test_side_by_side_by_id() -> None:
    def run(name: str, ids: list[int]) -> _Named:
        pictures = [{"id": i, "image": f"image{i}", "gradient": f"{name}{i}"} for i in ids]
        return _Named(name, {"lipschitz": {"l2": {"layers": [], "pictures": pictures}}})

    table = gradients([run("a", [0, 1]), run("b", [1, 2])])
    assert table.runs == ("a", "b")
    assert [(r.id, r.original, r.gradients) for r in table.rows] == [
        (0, "image0", ("a0", "")), (1, "image1", ("a1", "b1")), (2, "image2", ("", "b2")),
    ]  # fmt: skip


def test_a_layer_beyond_its_bound_is_shouted(looked_at: Path, tmp_path: Path) -> None:
    run = Run(looked_at)
    assert "Contradiction" not in write_report([looked_at], tmp_path / "page.html").read_text()
    facts = run.info["lipschitz"]
    facts["l2"]["layers"][1]["reached"] = 1.01 * facts["l2"]["layers"][1]["bound"]
    run.update(lipschitz=facts)
    assert "was found steeper than" in write_report([looked_at], tmp_path / "page.html").read_text()
