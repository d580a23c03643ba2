"""Wheel and sdist: what is inside, what they ask for, and that the wheel works in a clean environment."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import hauberk

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INSIDE = ("src", "recipes", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", ".gitignore")


def run(*words: object, cwd: Path) -> str:
    """What a command writes, once it has succeeded; without what this environment adds to Python's path."""
    plain = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    done = subprocess.run([*map(str, words)], cwd=cwd, env=plain, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist, and a wheel that was made from it alone."""
    pytest.importorskip("hatchling")
    copy, dist = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    for name in INSIDE:
        place = ROOT / name
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(place, copy / name, ignore=ignored) if place.is_dir() else shutil.copy(place, copy)
    (copy / "results").mkdir()
    (copy / "results" / "large.parquet").touch()  # does not belong into an sdist
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", dist, cwd=copy)
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        archive.extractall(dist / "unpacked", filter="data")
    (source,) = (dist / "unpacked").iterdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", dist, cwd=source)
    return dist


@pytest.fixture(scope="module")
def clean(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel, which finds the libraries (and no Hauberk) where this one has them."""
    place = tmp_path_factory.mktemp("clean")
    venv.create(place, with_pip=False)
    there = Path(sysconfig.get_path("purelib", vars={"base": str(place)}))
    libraries = {str(Path(module.__file__).parents[1]) for module in (sys.modules["numpy"], sys.modules["torch"])}
    (there / "libraries.pth").write_text("\n".join(sorted(libraries)))  # a .pth file of theirs is not read
    python = place / "bin" / "python"
    wheel = next(built.glob("*.whl"))
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--quiet")
    run(*pip, "--no-deps", "--no-index", "--ignore-installed", wheel, cwd=place)
    return place


def test_the_wheel_holds_every_file_of_the_package_and_the_recipes(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if not name.split("/")[0].endswith(".dist-info")}
        licences = [name for name in wheel.namelist() if name.endswith("LICENSE")]
    package, recipes = ROOT / "src" / "hauberk", ROOT / "recipes"
    files = {f"hauberk/{p.relative_to(package)}" for p in package.rglob("*") if p.is_file() and p.suffix != ".pyc"}
    files |= {f"hauberk/_recipes/{p.relative_to(recipes)}" for p in recipes.rglob("*") if p.is_file()}
    assert names == files
    assert licences


def test_the_sdist_holds_what_the_wheel_is_made_of_and_no_results(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2].split("/")[0] for name in archive.getnames()}
    assert names >= {"src", "recipes", "README.md", "LICENSE", "pyproject.toml", "PKG-INFO"}
    assert "results" not in names and "tests" not in names
    assert next(built.glob("*.tar.gz")).stat().st_size < 1_500_000


def test_extras_resolve(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(wheel.read(name).decode())
    assert metadata["Name"] == "hauberk" and metadata["Version"] == hauberk.__version__
    assert set(metadata.get_all("Provides-Extra") or ()) == set(PROJECT["optional-dependencies"])
    asked = [Requirement(text) for text in metadata.get_all("Requires-Dist") or ()]
    assert len(asked) == len(PROJECT["dependencies"]) + sum(map(len, PROJECT["optional-dependencies"].values()))
    assert not [r for r in asked if r.url]
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    known = {name.lower(): Version(version) for name, version in pins.items()}
    refused = [str(r) for r in asked if r.name.lower() in known and known[r.name.lower()] not in r.specifier]
    assert not refused  # what it is tested with is what it asks for
    unpinned = {r.name for r in asked if r.name.lower() not in known and "extra == \"bench\"" not in str(r.marker or "")
                .replace("'", '"')}  # fmt: skip
    assert not unpinned


def test_the_wheel_works_in_a_clean_environment(clean: Path, tmp_path: Path) -> None:
    python, command = clean / "bin" / "python", clean / "bin" / "hauberk"
    script = "import hauberk, importlib.metadata as m; print(hauberk.__file__); print(m.version('hauberk'))"
    place, version = run(python, "-c", script, cwd=tmp_path).split()
    assert Path(place).is_relative_to(clean) and version == hauberk.__version__
    assert run(command, "--version", cwd=tmp_path) == f"hauberk {version}\n"
    listed = json.loads(run(command, "list", "recipes", "--json", cwd=tmp_path))["recipes"]
    assert {recipe["name"] for recipe in listed} >= {"demo_standard", "pgd_cifar10_small"}
    bundle = ROOT / "results" / "digits" / "lip_digits-seed0"
    run(command, "report", bundle, "-o", "page.html", cwd=tmp_path)  # template, style and script are inside
    assert (tmp_path / "page.html").stat().st_size > 50_000
