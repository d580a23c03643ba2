"""Numbers by class on the page and in the plain values, also where labels go beyond the names of classes."""

import numpy as np
import pytest
from tests.report.test_page import Reader

from hauberk import records
from hauberk.cli import results
from hauberk.evaluation.by_class import UNKNOWN
from hauberk.report import collect, summary, words, write_report
from hauberk.report.classes import class_view
from hauberk.runs import Run


@pytest.fixture(scope="module")
def robust(lab):
    parts = [p for run in collect.load(lab.runs) for p in run.parts]
    return next(s for s in collect.subjects(parts) if s.predictor == lab.robust.name)


def test_each_class_is_counted_before_and_after(lab, robust) -> None:
    x, y, _ = lab.data
    clean = lab.robust.logits(x).argmax(1)
    a = next(a for a in robust.attacked if (a.norm, a.eps) == ("l2", 0.5))
    broken = np.zeros(len(y), bool)
    for weaken in (0.8, 1.0):
        broken |= lab.robust.logits(lab.robust.attack(x, y, 0.5 * weaken, "l2")).argmax(1) != y
    for k in np.unique(y):
        before = next(s.accuracy for s in robust.by_class.shares if s.label == k)
        after = next(s.accuracy for s in a.by_class.shares if s.label == k)
        assert (before.value, before.n) == ((clean[y == k] == k).mean(), (y == k).sum())
        assert after.value == ((clean == y) & ~broken)[y == k].mean()
    cells = {(c.label, c.answer): c.count for c in robust.by_class.confusion}
    assert cells == {(k, j): n for k in range(10) for j in range(10) if (n := int(((y == k) & (clean == j)).sum()))}
    told = {(c.label, c.answer): c.count for c in a.by_class.confusion}
    assert sum(told.values()) == len(y)
    assert sum(n for (k, j), n in told.items() if k == j) == round(a.accuracy.value * len(y))
    assert UNKNOWN not in {j for _, j in told}


def test_every_share_of_the_page_has_its_interval(lab, robust) -> None:
    view = class_view(robust, robust.headline)
    values = [(row.attacked.value, row.clean.value) for row in view.rows]
    assert values == sorted(values)  # the worst first
    assert next(line for line in view.said if line.startswith("Balanced accuracy")).count("(") == 2
    found = summary(lab.runs)["subjects"]
    for subject in found:
        for by_class in (subject["by_class"], *(a["by_class"] for a in subject["attacked"])):
            shares = [s["accuracy"] for s in (by_class["worst"], *by_class["shares"])]
            for share in (by_class["balanced"], *shares):
                assert share["low"] <= share["value"] <= share["high"]
                assert share["high"] - share["low"] > 0


def relabelled(lab, folder, label=None, answer=None):
    """The robust model's attacks and certificate with other labels or answers."""
    run = Run.create(folder, {"name": "x", "data": {"name": "digits"}})
    for part in records.read_all(lab.runs[0] / "records"):
        columns = {n: part.table.column(n).to_pylist() for n in part.table.column_names}
        if label is not None:
            columns["label"] = [label(y) for y in columns["label"]]
        for name in ("clean_prediction", "prediction"):
            if name in columns and answer is not None:
                columns[name] = [answer(y) for y in columns[name]]
        for name in ("clean_probabilities", "probabilities"):
            if name in columns:
                columns[name] = [row + [0.0] * 10 for row in columns[name]]  # a model of 20 outputs on 10 classes
        records.write(run.records, records.part(part.kind, part.unit, part.facts, columns))
    return folder


def test_labels_beyond_the_names_of_classes_are_numbers(lab, tmp_path) -> None:
    run = relabelled(lab, tmp_path / "run", label=lambda y: y + 6, answer=lambda y: y + 10)
    reader = Reader(write_report([run], tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "class 15" in reader.text
    assert "class 19" in reader.text
    assert {s["label"] for s in summary([run])["subjects"][0]["by_class"]["shares"]} == set(range(6, 16))


def test_one_answer_for_every_image_is_called_out(lab, tmp_path) -> None:
    run = relabelled(lab, tmp_path / "run", answer=lambda y: 3)
    text = Reader(write_report([run], tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert "answers 3 for every image, so its accuracy is the share of that class" in text
    assert "Every image is taken for 3: this classifier does not look" in text
    assert summary([run])["subjects"][0]["by_class"]["constant"] == 3


def test_balanced_and_worst_are_explained() -> None:
    assert "Zou and Donner" in words.GLOSSARY["Balanced accuracy"]
    assert "Worst class" in words.GLOSSARY


def test_certified_accuracy_is_balanced_over_the_classes(lab, robust) -> None:
    """Against the labels and radii of the records, class by class."""
    told = next(s for s in summary(lab.runs)["subjects"] if s["predictor"] == robust.predictor)
    (parts,) = [p for p in told["certified"] if p["method"] == robust.certified[0].method][:1]
    rows = [
        row
        for part in records.read_all(lab.runs[0] / "records", "certificate")
        if part.unit["predictor"] == robust.predictor and part.facts["norm"] == robust.certified[0].norm
        for row in part.table.to_pylist()
    ]
    classes = sorted({row["label"] for row in rows})
    assert [x["eps"] for x in parts["balanced"]] == [x["eps"] for x in parts["levels"]]
    for level in parts["balanced"]:
        shares = []
        for k in classes:
            own = [row for row in rows if row["label"] == k]
            shares.append(sum(row["prediction"] == k and row["radius"] >= level["eps"] for row in own) / len(own))
        assert level["accuracy"]["value"] == pytest.approx(np.mean(shares))
        assert level["accuracy"]["low"] < level["accuracy"]["value"] or level["accuracy"]["value"] == 0.0
        assert level["accuracy"]["low"] < level["accuracy"]["high"]
    said = next(line for line in class_view(robust, robust.headline).said if "certified" in line)
    assert said.startswith("Balanced certified accuracy in ")
    assert "at least" in said


def test_the_terminal_says_balanced_accuracy_where_classes_are_uneven(lab, tmp_path) -> None:
    uneven = relabelled(lab, tmp_path / "uneven", label=lambda y: min(y, 1))
    for run, told in ((lab.runs[0], False), (uneven, True)):
        lines = results.lines(run)
        for word in ("  clean ", "  attacked ", "  certified "):
            found = [line for line in lines if line.startswith(word) and "whole levels" not in line]
            assert found
            assert all(("balanced" in line) == told for line in found)
