"""Start-up: nothing of the current folder is run, and nothing of it stands in for a library."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hauberk.cli import is_current_folder, leave_current_folder
from hauberk.cli.plugins import load_plugins

LIBRARIES = ("__future__", "typing", "random", "yaml", "torch", "rich", "numpy", "csv", "pydantic", "click", "sitelike")


def plant(folder: Path, marker: Path, ending: str = "dist-info") -> None:
    """A package that was never installed, with an entry point whose import leaves a mark."""
    (folder / "planted.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n")
    info = folder / f"x-1.0.{ending}"
    info.mkdir()
    metadata = info / ("METADATA" if ending == "dist-info" else "PKG-INFO")
    metadata.write_text("Metadata-Version: 2.1\nName: x\nVersion: 1\n")
    groups = ("hauberk", "pydantic", "torch.backends")  # the libraries load plugins too
    (info / "entry_points.txt").write_text("".join(f"[{group}]\nx = planted\n" for group in groups))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    sys.modules.pop("planted", None)
    return folder


@pytest.mark.parametrize("place", ["", ".", "ABSOLUTE", "../link", "sub/..", "../here/"])
@pytest.mark.parametrize("ending", ["dist-info", "egg-info"])
def test_no_plugin_of_the_current_folder(
    place: str, ending: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(here, tmp_path / "marker", ending=ending)
    place = place.replace("ABSOLUTE", str(here))
    monkeypatch.setattr(sys, "path", [place, *sys.path, place])
    load_plugins()
    assert not (tmp_path / "marker").exists()
    assert is_current_folder(place)


def test_an_installed_plugin_is_loaded(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "installed"
    installed.mkdir()
    plant(installed, tmp_path / "marker")
    monkeypatch.setattr(sys, "path", [*sys.path, str(installed)])
    load_plugins()
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("place", ["", ".", "ABSOLUTE", "../link", "sub/.."])
def test_the_current_folder_leaves_the_front_of_the_path(
    place: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list(sys.path)
    monkeypatch.setattr(sys, "path", [place.replace("ABSOLUTE", str(here)), str(tmp_path), *before])
    leave_current_folder()
    assert sys.path == [str(tmp_path), *before]


@pytest.mark.parametrize("command", [["-m", "hauberk"], ["SCRIPT"]], ids=["module", "script"])
def test_the_program_itself(command: list[str], here: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    plant(here, marker)
    for name in LIBRARIES:
        (here / f"{name}.py").write_text((here / "planted.py").read_text())
    script = Path(sys.executable).with_name("hauberk")
    arguments = [str(script) if part == "SCRIPT" else part for part in command]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    if command == ["SCRIPT"]:
        environment["PYTHONPATH"] = str(here / "sub") + os.pathsep  # a trailing separator means the current folder
    line = [sys.executable, *arguments, "--version"]
    found = subprocess.run(line, cwd=here, env=environment, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    assert "hauberk 0" in found.stdout
    assert not marker.exists()


@pytest.mark.parametrize(("words", "most"), [(["--version"], 0.4), (["list", "attacks"], 0.6)], ids=["version", "list"])
def test_versions_and_lists_take_little_processor_time(words: list[str], most: float) -> None:
    def seconds() -> float:
        child = subprocess.Popen([sys.executable, "-c", "from hauberk.cli import main; main()", *words],
                                 stdout=subprocess.DEVNULL)  # fmt: skip
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0
        return used.ru_utime + used.ru_stime

    assert any(seconds() <= most for _ in range(4))  # other processes slow it down: the least counts


def test_help_versions_and_lists_load_neither_torch_nor_numpy() -> None:
    """They take a fraction of a second; torch alone takes three."""
    script = """
import sys
from hauberk import registry
from hauberk.cli import main
from hauberk.cli.app import VERBS
helps = [[name, "--help"] for name in VERBS]
for line in [["--version"], ["--help"], *helps, *(["list", f] for f in [*registry.kinds(), "losses", "lecture"])]:
    sys.argv = ["hauberk", *line]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, line
    assert not {"torch", "numpy", "scipy", "altair"} & set(sys.modules), line
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
