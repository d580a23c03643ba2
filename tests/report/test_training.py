"""Curves of a training: what is drawn, which epoch was chosen, the robust gap, and long trainings thinned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hauberk.report import summary, write_report
from hauberk.report.bundle import write_bundle
from hauberk.report.charts import along_training
from hauberk.report.training import MOST, trainings
from hauberk.runs import Run


class Facts:
    def __init__(self, metrics: list[dict[str, Any]]) -> None:
        self.name, self.metrics = "run", metrics


OVERFITTED = [
    {"epoch": 0, "adversarial_accuracy": 0.30, "validation_accuracy": 0.5, "validation_robust_accuracy": 0.30},
    {"epoch": 1, "adversarial_accuracy": 0.45, "validation_accuracy": 0.6, "validation_robust_accuracy": 0.42},
    {"epoch": 2, "adversarial_accuracy": 0.60, "validation_accuracy": 0.5, "validation_robust_accuracy": 0.42},
    {"epoch": 3, "adversarial_accuracy": 0.80, "validation_accuracy": 0.7, "validation_robust_accuracy": 0.35},
]


def test_the_gap_and_what_overfitting_would_have_cost() -> None:
    (found,) = trainings([Facts(OVERFITTED)])
    assert (found.best, found.last, found.collapsed) == (2, 4, False)  # the earlier and cleaner of two equals
    assert found.robust_gap(found.best) == pytest.approx(0.03)
    assert found.robust_gap(found.last) == pytest.approx(0.45)
    assert found.lost == pytest.approx(0.07)
    assert [line.column for line in found.lines] == [
        "validation_accuracy", "adversarial_accuracy", "validation_robust_accuracy"
    ]  # fmt: skip
    assert found.summary()["robust_gap"] == {"best": pytest.approx(0.03), "last": pytest.approx(0.45)}


def test_training_images_under_the_validation_attack_come_first() -> None:
    rows = [row | {"training_robust_accuracy": 0.5} for row in OVERFITTED]
    (found,) = trainings([Facts(rows)])
    assert found.robust_gap(4) == pytest.approx(0.15)


def test_what_was_not_measured_is_not_made_up() -> None:
    clean = [{"epoch": k, "accuracy": 0.5 + 0.1 * k, "validation_accuracy": 0.6 - 0.1 * k} for k in range(3)]
    (found,) = trainings([Facts(clean)])
    assert found.best == 1 and found.lost is None and found.robust_gap(1) is None
    sparse = [row if row["epoch"] == 1 else {"epoch": row["epoch"], "accuracy": 0.3} for row in clean]
    (found,) = trainings([Facts(sparse)])
    assert (found.best, found.last) == (2, 2)
    for nothing in ([], clean[:1], [{"epoch": 0, "loss": 1.0}, {"epoch": 1, "loss": 0.5}], [{"note": 1}] * 3):
        assert trainings([Facts(nothing)]) == []


def test_a_collapse_is_told() -> None:
    (found,) = trainings([Facts([*OVERFITTED, OVERFITTED[-1] | {"epoch": 4, "collapsed": 1.0}])])
    assert found.collapsed


def test_a_long_training_keeps_the_epochs_that_count() -> None:
    rows = [{"epoch": k, "validation_accuracy": 0.5 + (k == 777)} for k in range(1234)]
    (found,) = trainings([Facts(rows)])
    (line,) = found.lines
    assert len(line.points) <= MOST + 2
    assert (found.best, found.last) == (778, 1234)
    assert line.at(778) == 1.5 and line.at(1234) == 0.5


def test_the_chart_holds_every_point() -> None:
    (found,) = trainings([Facts(OVERFITTED)])
    spec = along_training(found)
    rows = spec["datasets"]["epochs"]
    assert len(rows) == 12
    assert {(r["images"], r["kind"]) for r in rows} == {
        ("validation", "clean"), ("training", "attacked"), ("validation", "attacked")
    }  # fmt: skip
    assert {r["epoch"]: r["value"] for r in rows if r["line"] == "validation_robust_accuracy"} == {
        1: 0.30, 2: 0.42, 3: 0.42, 4: 0.35
    }  # fmt: skip


@pytest.fixture
def overfitted(tiny_run: Path, tmp_path: Path) -> Path:
    path = Path(shutil.copytree(tiny_run, tmp_path / "overfitted"))
    Run.open(path).keep_metrics(OVERFITTED)
    return path


def test_the_page_and_the_numbers(overfitted: Path, tmp_path: Path) -> None:
    text = write_report([overfitted], tmp_path / "page.html").read_text()
    assert "Accuracy epoch by epoch, overfitted" in text
    assert "+45.0 points" in text and "+7.0 points" in text
    (found,) = summary([overfitted])["training"]
    assert found["best_epoch"] == 2 and found["lines"]["validation_robust_accuracy"][-1] == [4, 0.35]
    bundle = write_bundle(Run.open(overfitted), tmp_path / "bundle")
    assert json.dumps(summary([bundle])["training"][0]["lines"]) == json.dumps(found["lines"])


def test_a_run_without_epochs_shows_none(tiny_run: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(tiny_run, tmp_path / "given"))
    Run.open(path).keep_metrics([])
    assert 'id="training"' not in write_report([path], tmp_path / "page.html").read_text()
    assert summary([path])["training"] == []
