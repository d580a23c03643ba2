"""What the reproductions of papers say follows from their records: each page is written again from its JSON."""

import importlib
import json
from pathlib import Path

import pytest

from hauberk import verify

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(path for folder in ("reproductions", "benchmarks") for path in (ROOT / folder).glob("*.py"))
PAPER = ROOT / "results" / "adaptive_smoothing" / "paper"
PREDICTORS = [p.parent for name in ("hycas", "generated_data") for p in (ROOT / "results" / name).glob("*/table.json")]


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "reproductions"))


@pytest.mark.parametrize("number", [2, 3, 6, 7])
def test_tables_of_mixing_networks(number: int) -> None:
    text, store = importlib.import_module("mixing_tables_text"), importlib.import_module("store")
    kept = store.Store(PAPER / f"table_{number}.json")
    page, summary = text.RENDERED[number](kept.data)
    assert page + "\n" == (PAPER / f"table_{number}.md").read_text()
    assert summary == kept.data["summary"]


@pytest.mark.parametrize("name", ["table_1", *(f"figure_{k}" for k in (1, 2, 4, 5, 8)), "local_lipschitz"])
def test_curves_of_adaptive_smoothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    curves = importlib.import_module("mixing_curves")
    store, result = curves.Curve(name), curves.RESULTS[name]
    result.summarise(store)
    assert "\n".join(result.page(store)).rstrip() + "\n" == (PAPER / f"{name}.md").read_text()


@pytest.mark.parametrize("number", [6, 7])
def test_certified_curves_and_one_row_of_them(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    certified = importlib.import_module("mixing_curves_certified")
    store, votes = (certified.Curve(f"figure_{n}") for n in (number, 6))
    assert "\n".join(certified.page(store)).rstrip() + "\n" == (PAPER / f"figure_{number}.md").read_text()
    row = store.data["summary"]["grid"][-1]
    again = certified._row(certified.Votes(votes, "test"), row["alpha"], row["sigma"], certified.BOUNDS[store.name])
    assert json.loads(json.dumps(again)) == row


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_finds_what_it_imports(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(script.parent))
    assert importlib.import_module(script.stem).__doc__


def test_trainings_for_a_radius() -> None:
    training = importlib.import_module("smoothing_training")
    folder = ROOT / "results" / "smoothing"
    found = training.measured(folder)
    assert json.loads((folder / "training.json").read_text()) == json.loads(json.dumps(found))
    assert (folder / "tradeoff.md").read_text() == training.page(found)


@pytest.mark.parametrize("folder", sorted(PREDICTORS), ids=lambda path: path.name)
def test_tables_of_predictors_follow_from_their_bundles(folder: Path) -> None:
    made = importlib.import_module("predictor_table").files(folder)
    assert made == {name: (folder / name).read_text() for name in made}


def test_attacks_on_random_nets_follow_from_their_bundles() -> None:
    folder = ROOT / "results" / "hycas_attacks"
    made = importlib.import_module("random_attacks").files(folder)
    assert made == {name: (folder / name).read_text() for name in made}


def test_the_table_of_training_methods_follows_from_its_bundles() -> None:
    folder = ROOT / "results" / "training"
    made = importlib.import_module("training_table").files(folder, ROOT / "results" / "training_cost.json")
    assert made == {name: (folder / name).read_text() for name in made}


def test_naive_defences_follow_from_their_bundles() -> None:
    naive, folder = importlib.import_module("naive_defences"), ROOT / "results" / "naive_defences"
    rows = json.loads((folder / "table.json").read_text())
    assert json.loads(json.dumps([naive.row(row["defence"], folder / row["run"]) for row in rows])) == rows
    assert (folder / "tradeoff.md").read_text() == naive.page(rows, "linf:4/255")


def test_the_claims_of_the_householder_paper() -> None:
    householder, store = importlib.import_module("householder"), importlib.import_module("store")
    folder = ROOT / "results" / "householder"
    content = store.Store(folder / "householder.json").data
    assert householder.text(content) == (folder / "householder.md").read_text()


def test_mixes_of_published_nets_follow_from_their_bundles() -> None:
    mixes = importlib.import_module("published_mixes")
    found = mixes.measured()
    assert json.loads((mixes.FOLDER / "mixes.json").read_text()) == json.loads(json.dumps(found))
    assert (mixes.FOLDER / "tradeoff.md").read_text() == mixes.page(found)
    held = verify.claims.HELD_BACK  # nothing that is reported was chosen on
    assert all(any(held in v.checked for v in verify.verify_once(mixes.FOLDER / name)) for name in found)
