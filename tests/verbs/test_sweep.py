"""Sweeps: predicted first, resumable cell by cell, a table with intervals."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import hauberk
from hauberk import recipes
from hauberk.certificates import SmoothingCertificate
from hauberk.errors import HauberkError
from hauberk.noises import Gaussian
from hauberk.recipes import Evaluation, Recipe
from hauberk.runs import Run
from hauberk.storage import LOCK
from hauberk.verbs import sweep


@pytest.fixture
def table(tiny_recipe: Path, tmp_path: Path) -> Path:
    path = tmp_path / "table.yaml"
    path.write_text(yaml.safe_dump({
        "name": "t", "summary": "two rows", "seeds": [0, 1],
        "set": {"training.epochs": 1, "evaluation.images": 16},
        "rows": [
            {"recipe": str(tiny_recipe)},
            {"recipe": str(tiny_recipe), "label": "cold", "set": {"training.lr": 0.01}},
        ],
    }))  # fmt: skip
    return path


def test_a_table_runs_resumes_and_is_saved(table: Path, tmp_path: Path) -> None:
    plan = sweep.read(table)
    cells = sweep.cells(plan, tmp_path / "out")
    assert [(c.label, c.seed) for c in cells] == [("tiny", 0), ("tiny", 1), ("cold", 0), ("cold", 1)]
    assert cells[2].recipe.training.lr == 0.01
    assert cells[1].recipe.seed == 1
    cost = sweep.predict(cells[0].recipe)
    assert 0 < cost.train < 1
    assert 0 < cost.evaluate < 1
    for cell in cells[:3]:
        assert not cell.done
        sweep.run_cell(cell)
        assert cell.done
    before = Run(cells[0].path).info
    evaluation = cells[0].recipe.evaluation.model_copy(update={"images": 7})
    other = replace(cells[0], recipe=cells[0].recipe.model_copy(update={"evaluation": evaluation}))
    assert not other.done  # another evaluation is planned now
    part = next(Run(cells[1].path).records.iterdir())
    kept = part.read_bytes()
    part.unlink()
    assert not cells[1].done  # a record is gone
    part.write_bytes(kept)
    sweep.run_cell(cells[0])
    assert Run(cells[0].path).info["timings"]["train_seconds"] == before["timings"]["train_seconds"]
    left = cells[0].path / LOCK
    left.touch()  # as a process leaves it that is killed between its last write and its end
    sweep.tidy([c for c in cells if c.done])
    assert not left.exists()
    lines = sweep.results([c for c in cells if c.done])
    assert [line["seeds"] for line in lines] == [[0, 1], [0]]
    clean = lines[0]["columns"]["clean"]
    assert clean["low"] < clean["value"] < clean["high"]
    saved = sweep.save(plan, lines, tmp_path / "out")
    assert "| cold | 0 |" in saved.read_text()
    assert json.loads(saved.with_name("table.json").read_text())["lines"] == lines


def test_a_run_written_before_a_setting_existed_is_the_same_run(tiny_recipe: Path, tmp_path: Path) -> None:
    recipe = recipes.read(str(tiny_recipe), ["training.epochs=1"])
    run = hauberk.train(recipe, tmp_path / "run")
    written = tmp_path / "run" / "recipe.yaml"
    known = yaml.safe_load(written.read_text())
    del known["training"]["steps_per_epoch"], known["objective"]
    written.write_text(yaml.safe_dump(known | {"objective": recipe.objective}))
    assert hauberk.train(recipe, tmp_path / "run").info == run.info
    with pytest.raises(HauberkError, match="another recipe"):
        hauberk.train(recipes.read(str(tiny_recipe), ["training.epochs=2"]), tmp_path / "run")


@pytest.mark.parametrize(
    ("setting", "said"),
    [({"training.steps_per_epoch": 10**6}, "cold: an epoch of"), ({"evaluation.images": 10**6}, "cold: .* requested")],
)
def test_what_a_later_cell_cannot_do_is_said_before_the_first(
    setting: dict[str, int], said: str, table: Path, tmp_path: Path
) -> None:
    content = yaml.safe_load(table.read_text())
    content["rows"][1]["set"] |= setting
    content["set"] = {key: value for key, value in content["set"].items() if key not in setting}
    table.write_text(yaml.safe_dump(content))
    with pytest.raises(HauberkError, match=said):
        sweep.foretold(sweep.cells(sweep.read(table), tmp_path / "out"))


def test_a_table_names_seeds_itself(table: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(table.read_text())
    content["rows"][1]["set"]["seed"] = 3
    table.write_text(yaml.safe_dump(content))
    with pytest.raises(HauberkError, match=r"seed is in set(.|\n)*seeds: \[0, 1, 2\]"):
        sweep.cells(sweep.read(table), tmp_path / "out")


def test_seeds_of_a_line_are_timed_once(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells, timed = sweep.cells(sweep.read(table), tmp_path / "out"), []

    def predict(recipe: Recipe, trained: bool) -> sweep.Cost:
        timed.append((recipe.training.lr, recipe.seed, trained))
        return sweep.Cost(float(recipe.training.lr), 1.0)

    monkeypatch.setattr(sweep, "predict", predict)
    costs = sweep.foretold(cells)
    assert len(timed) == 2 and list(costs) == [cell.path for cell in cells]
    assert [costs[cell.path].train for cell in cells] == [cell.recipe.training.lr for cell in cells]


def test_what_takes_long_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds, calls in ((0.5, 4), (1.5, 1)):
        now = iter(range(100))
        monkeypatch.setattr(sweep.time, "perf_counter", lambda now=now, seconds=seconds: next(now) * seconds)
        found: list[None] = []
        assert sweep._median_seconds(lambda found=found: found.append(None)) == seconds and len(found) == calls


def test_a_line_is_about_the_runs_own_predictor(tiny_run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    before = sweep._measured(copy)
    found = hauberk.subject(copy)
    hauberk.certify(found, [SmoothingCertificate(Gaussian(0.5), n0=4, n=16, alpha=0.1)], Evaluation(images=16))
    assert sweep._measured(copy) == before


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(HauberkError, match="no table"):
        sweep.read(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: t\nrows: []\n")
    with pytest.raises(HauberkError, match="not a table"):
        sweep.read(bad)
    bad.write_text("name: t\nrows: [{recpie: a, label: b}]\n")
    with pytest.raises(HauberkError) as said:
        sweep.read(bad)
    assert "rows.0.recipe: Field required; rows.0.recpie: Extra inputs are not permitted" in said.value.message
    assert "\n" not in said.value.message


def test_a_table_does_not_show_runs_of_other_recipes(table: Path, tmp_path: Path) -> None:
    sweep.run_cell(sweep.cells(sweep.read(table), tmp_path / "out")[0])
    for old, new, said in (
        ("training.epochs: 1", "training.epochs: 2", "its training.epochs is 1, this one's is 2"),
        ("evaluation.images: 16", "evaluation.images: 8", ""),  # the run is the same, and is measured again
        ("summary: two rows", "summary: more", ""),
    ):
        other = tmp_path / "other.yaml"
        other.write_text(table.read_text().replace(old, new))
        if said:
            with pytest.raises(HauberkError, match=said):
                sweep.cells(sweep.read(other), tmp_path / "out")
        else:
            assert sweep.cells(sweep.read(other), tmp_path / "out")[0].done == ("images" not in old)
