"""Where commands write and read: a run has a folder of its own, and ``~`` is the home folder."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hauberk.cli import options
from hauberk.runs import Run

Typed = Callable[..., tuple[int, str]]

DATA = "npz,file=few.npz,layout=NHW"
CERTIFY = f"certify my_nets:plain --data {DATA} --images 2"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    x, y = rng.random((40, 8, 8)), np.arange(40) % 10
    np.savez(tmp_path / "few.npz", x_train=x[:20], y_train=y[:20], x_val=x[20:30], y_val=y[20:30], x_test=x[30:],
             y_test=y[30:])  # fmt: skip
    shutil.copy(Path(__file__).with_name("my_nets.py"), tmp_path)
    for name, value in {"HAUBERK_DATA": str(tmp_path), "HOME": str(tmp_path / "home"), "COLUMNS": "200"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    return tmp_path


@pytest.fixture
def typed(typed: Typed) -> Typed:
    """Type a command as one line."""
    return lambda line: typed(*line.split())


@pytest.mark.parametrize("place", ["/", "//", ".", "..", "./", "../.."])
def test_a_run_is_in_no_folder_that_is_everybodys(place: str, here: Path, typed: Typed) -> None:
    code, said = typed(f"{CERTIFY} -o {place}")
    assert code == 1
    assert "--out expects a folder or file of its own" in said


@pytest.mark.parametrize("verb", ["certify", "train"])
def test_a_folder_that_holds_something_else_stays_as_it_is(
    verb: str, here: Path, tiny_recipe: Path, typed: Typed
) -> None:
    shutil.copy(tiny_recipe, here / "tiny.yaml")
    (here / "mine" / "photos").mkdir(parents=True)
    line = {"certify": CERTIFY, "train": "train tiny.yaml --set training.epochs=1"}[verb]
    code, said = typed(f"{line} -o mine")
    assert code == 1
    assert "mine holds 'photos' and no run" in said
    assert "--out mine/run" in said
    assert [path.name for path in (here / "mine").iterdir()] == ["photos"]


def test_what_a_kill_left_of_a_run_is_gone_on_with(here: Path, typed: Typed) -> None:
    assert typed(f"{CERTIFY} -o run")[0] == 0
    (here / "run" / "run.json").unlink()
    (here / "run" / ".part-1").touch()
    assert typed(f"{CERTIFY} -o run")[0] == 0


def test_a_tilde_is_the_home_folder(here: Path, typed: Typed) -> None:
    (here / "home").mkdir()
    shutil.move(here / "few.npz", here / "home")
    code, said = typed(f"{CERTIFY.replace('few', '~/few')} --out=~/run")
    assert code == 0, said
    assert Run.open(here / "home" / "run").recipe["data"]["file"] == str(here / "home" / "few.npz")
    assert not (here / "~").exists()
    assert typed(f"{CERTIFY} --out=~nobody-of-this-name/run")[0] == 1  # its data is not there, and it is said


def test_a_wish_that_fails_leaves_no_run_and_a_mix_says_what_its_data_is(here: Path, typed: Typed) -> None:
    pair = f"mix --accurate my_nets:good --robust my_nets:plain --data {DATA}"
    code, said = typed(f"{pair} --clean 100% --threat linf:0.001")
    assert code == 1, said
    seen = [path.name for path in (here / "runs").iterdir() if not path.name.startswith(".")]
    assert not seen  # what report runs/* would take: the logits are kept where a shell's star does not look
    code, said = typed(f"{pair} --alpha 0.5 --images 2")
    assert code == 0, said
    assert "note: " in said
    assert Run.open(here / "runs" / "mix-0.5").info["notes"]


@pytest.mark.parametrize(
    "value",
    ["a,b", "2024", "1e3", "true", "null", "a b", "a: b", "#x", "[x", "x]", "{", '"q"', 'a"b,c', "a\\,b", 'a,\\"', "",
     "é,ü", "-", "a=b", "'", "plain", "C:\\x", 8, 0.5, [1, 2], {"a": "b,c"}, None, True],
)  # fmt: skip
def test_a_next_line_says_a_setting_as_it_was(value: object) -> None:
    text = f"image_folder,folder={options._text(value)},size=8"
    assert options.described(text) == {"name": "image_folder", "folder": value, "size": 8}
