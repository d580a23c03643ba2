"""A stranger's folder shows and replaces nothing outside it, and what is written goes where it was meant to."""

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from hauberk.errors import HauberkError
from hauberk.runs import Run
from hauberk.storage import append, atomic_write

Typed = Callable[..., tuple[int, str]]

SECRET = "a private line"
PLACES = ["recipe.yaml", "run.json", "metrics.jsonl", "records", "checkpoints", "checkpoints/config.json",
          "checkpoints/model.safetensors", "RECORD"]  # fmt: skip


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


@pytest.mark.parametrize("place", PLACES)
def test_links_in_a_run_are_not_followed(place: str, run: Path, tmp_path: Path, typed: Typed) -> None:
    target = next((run / "records").glob("*.parquet")) if place == "RECORD" else run / place
    moved = tmp_path / "private"
    shutil.move(target, moved)
    if place == "recipe.yaml":
        moved.write_text(f"{moved.read_text()}summary: {SECRET}\n")
    target.symlink_to(moved)
    before = moved.read_bytes() if moved.is_file() else sorted(moved.iterdir())
    page = tmp_path / "page.html"
    said = [typed("report", run, "-o", page), typed("verify", run, "--weights"),
            typed("attack", run, "--attack", "fgsm", "--threat", "linf:0.1", "--images", 4),
            typed("bundle", run, "-o", tmp_path / "bundle")]  # fmt: skip
    assert any(code == 1 and "is a link" in text for code, text in said)
    assert not any("Traceback" in text or SECRET in text for _, text in said)
    assert not page.exists() or SECRET not in page.read_text()
    assert (moved.read_bytes() if moved.is_file() else sorted(moved.iterdir())) == before  # nor written through


def irregular(folder: Path, kind: str) -> Path:
    path = folder / "there"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(folder / "elsewhere")
    elif kind == "link to a device":
        path.symlink_to("/dev/null")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))
    else:
        return Path("/dev/null")
    return path


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "link to a device", "socket", "device"])
def test_nothing_but_a_file_is_replaced(
    kind: str, run: Path, tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = irregular(tmp_path, kind)
    before = path.lstat()
    code, text = typed("report", run, "-o", path)
    assert code == 1
    assert "no file may replace" in text or (kind == "folder" and "expects an HTML file" in text)
    for write in (atomic_write, append):
        with pytest.raises(HauberkError, match="no file may replace"):
            write(path, b"x")
    assert (path.lstat().st_mode, path.lstat().st_ino) == (before.st_mode, before.st_ino)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/hauberk-escaped", "a\\..\\b", "..", "", "a\nb", "\x1b[2J"])
def test_a_recipe_is_not_trained_outside_its_folder(
    name: str, tiny_recipe: Path, tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "deep" / "here"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    content = yaml.safe_load(tiny_recipe.read_text())
    (here / "r.yaml").write_text(yaml.safe_dump(content | {"name": name}))
    rows = [{"recipe": str(tiny_recipe), "label": name}]
    (here / "t.yaml").write_text(yaml.safe_dump({"name": name, "rows": [{"recipe": str(tiny_recipe)}]}))
    (here / "l.yaml").write_text(yaml.safe_dump({"name": "table", "rows": rows}))
    for command in (["train", "r.yaml"], ["sweep", "t.yaml", "--dry-run"], ["sweep", "l.yaml", "--dry-run"]):
        code, text = typed(*command)
        assert code == 1, text
        assert "name" in text
    assert sorted(p.name for p in here.iterdir()) == ["l.yaml", "r.yaml", "t.yaml"]
    assert [p.name for p in tmp_path.iterdir()] == ["deep"]


def test_a_pipe_in_a_run_is_not_waited_for(run: Path) -> None:
    for name in ("run.json", "recipe.yaml", "checkpoints/config.json", "checkpoints/model.safetensors"):
        path = run / name
        kept = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(HauberkError, match="is a pipe"):
            Run.open(run).recipe  # noqa: B018
            Run(run).load_model()
        path.unlink()
        path.write_bytes(kept)
    assert isinstance(Run.open(run).load_model(), torch.nn.Module)


def test_a_bundle_cannot_break_out_of_the_page(run: Path, tmp_path: Path, typed: Typed) -> None:
    planted = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    info = json.loads((run / "run.json").read_text())
    info["environment"]["cpu"] = planted
    (run / "run.json").write_text(json.dumps(info))
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"summary": planted}))
    code, text = typed("report", run, "-o", tmp_path / "page.html")
    assert code == 0, text
    page = (tmp_path / "page.html").read_text()
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert "<img src=x" not in page
