"""The repository itself: documents that tell the truth, small files, short functions, nothing that does not belong."""

import ast
import importlib
import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from hauberk import recipes, registry
from hauberk.cli.app import build
from hauberk.report.bundle import write_bundle
from hauberk.report.collect import load, subjects
from hauberk.runs import Run

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src" / "hauberk").rglob("*.py"))
EXAMPLE = re.compile(r"\n +Example:\n(?:(?! *\"\"\").*\n)*")  # of a docstring: no code of the file
PAGES = sorted([*ROOT.glob("*.md"), *(p for d in ("", "how-to", "papers") for p in (ROOT / "docs" / d).glob("*.md"))])
WRITTEN = tuple(ROOT / "docs" / name for name in ("reference", "lecture"))  # by a build of the site
FOLDERS = ("src", "tests", "docs", "examples", "benchmarks", "reproductions", "recipes", "results", ".ci")
MEBIBYTE = 2**20
# what must not be written down: places of one machine, and hosts of package registries
FORBIDDEN = re.compile(
    "|".join(["/(?:home|root|Users)/[a-z]", "--(?:extra-)?index-" + "url", "py" + r"pi\.org", "python" + "hosted"])
)


def tracked() -> list[Path]:
    """Files under version control, or that would be at the next commit."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if found.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in found.stdout.split("\0") if name and (ROOT / name).is_file()]


def generator() -> ModuleType:
    description = importlib.util.spec_from_file_location("readme_tables", ROOT / "benchmarks" / "readme.py")
    module = importlib.util.module_from_spec(description)
    description.loader.exec_module(module)
    return module


# --- documents tell the truth -----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_docs_name_only_what_exists(page: Path) -> None:
    # the example methods of CONTRIBUTING are made up on purpose; another test makes them real
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = [m for m in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in m]
    paths = re.findall(rf"`((?:{'|'.join(map(re.escape, FOLDERS))})/[^`\s*:{{]*)(?:::\w+)?`", text)
    reached = [(page.parent / m).resolve() for m in links]
    missing = [m for m in reached if not m.exists() and not any(m.is_relative_to(folder) for folder in WRITTEN)]
    assert not missing + [p for p in paths if not (ROOT / p).exists()]


def test_every_test_named_in_the_evidence_exists() -> None:
    text = (ROOT / "docs" / "evidence.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) > 50
    for path, test in named:
        functions = {n.name for n in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(n, ast.FunctionDef)}
        assert not test or test in functions, f"{path}::{test}"


def test_every_room_is_on_the_map() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {p.name + ("/" if p.is_dir() else "") for p in (ROOT / "src" / "hauberk").iterdir()}
    unnamed = {r for r in rooms if f"`{r}`" not in text} - {"__init__.py", "__pycache__/", "py.typed"}
    assert not unnamed


def test_every_verb_is_in_the_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert not [c.name for c in build().registered_commands if f"`{c.name}`" not in text]


def test_every_make_target_of_the_docs_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {t for page in PAGES for t in re.findall(r"`make ([a-z-]+)`", page.read_text())}
    assert named
    assert named <= targets


def test_the_citation_is_complete() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0"
    assert all(r["title"] and r["authors"] and r["type"] and r["year"] for r in cited["references"])
    assert importlib.import_module("hauberk").__version__ == cited["version"]


# --- generated tables -------------------------------------------------------------------------------------------


def test_generated_tables_are_fresh() -> None:
    tables = generator()
    assert tables.unproven(ROOT / "results") == []
    assert tables.stale(ROOT, ROOT / "results") == [], "run: make readme"


@pytest.fixture
def project(tiny_run: Path, tmp_path: Path) -> Path:
    """A small project whose page of results holds one row, made from records, and its README the same one."""
    for folder in ("docs", "results"):
        (tmp_path / folder).mkdir()
    for name in ("README.md", "results/README.md", "docs/methods.md", "docs/recipes.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    write_bundle(Run.open(tiny_run), tmp_path / "results" / "tiny")
    for path, text in generator().pages(tmp_path, tmp_path / "results").items():
        path.write_text(text)
    return tmp_path


def test_a_row_says_what_the_records_say(project: Path) -> None:
    tables = generator()
    assert tables.stale(project, project / "results") == tables.unproven(project / "results") == []
    page = (project / "results" / "README.md").read_text()
    row = next(line for line in page.splitlines() if "[tiny](tiny)" in line)
    for word in ("lip_convnet, standard", "digits", "l2 0.5", "apgd", "lipschitz (deterministic)", "| 48 |"):
        assert word in row


def test_a_number_without_a_record_is_found(project: Path) -> None:
    tables = generator()
    page = project / "results" / "README.md"
    page.write_text(re.sub(r"(\| digits \| )\d", r"\g<1>1", page.read_text()))
    assert len(tables.stale(project, project / "results")) == 1
    shutil.rmtree(project / "results" / "tiny")
    assert "No results" in tables.stale(project, project / "results")[0]


def test_the_readme_has_the_rows_that_are_chosen() -> None:
    tables = generator()
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| [")]
    wanted = [f"results/{run}" for _, run, _, _ in tables.CHOSEN]
    assert [re.search(r"\]\((.*?)\) \|", row)[1] for row in rows] == wanted
    everything = (ROOT / "results" / "README.md").read_text()
    for row in rows:
        assert row.split(" | ", 1)[1].rsplit(" | ", 1)[0] in everything  # the same numbers, in the same words


def test_a_changed_record_is_found(project: Path) -> None:
    record = next((project / "results" / "tiny" / "records").glob("attack-*.parquet"))
    record.write_bytes(record.read_bytes() + b"\0")
    assert ["has changed" in problem for problem in generator().unproven(project / "results")] == [True]
    record.unlink()
    assert ["is missing" in problem for problem in generator().unproven(project / "results")] == [True]


def test_a_number_in_prose_that_no_named_file_gives_is_found(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "speed.json").write_text(json.dumps({"ratio": 1.2345, "right": "01" * 50, "seconds": {"a": 3, "b": 2}}))
    page = "**`speed.json`**: {} of the time, 50.0 % (40.4 to 59.6) right.\n\n**Other**: nothing is named, so {}."
    (results / "README.md").write_text(page.format("1.23 and 1.50", "12"))
    tables = generator()
    assert tables.untraced(results) == []
    (results / "README.md").write_text(page.format("1.25", "1.23"))
    assert [re.search(r"gives (\S+)", problem)[1] for problem in tables.untraced(results)] == ["1.25", "1.23"]


# --- size and shape ---------------------------------------------------------------------------------------------


def test_results_are_what_their_recipes_expect() -> None:
    """A recipe's ``expected`` block holds for the run of that recipe that is recorded, at its first attack's threat."""
    compared = 0
    for path in sorted((ROOT / "results").rglob("run.json")):
        run = Run.open(path.parent)
        if run.recipe["name"] not in {p.stem for p in recipes.available()}:
            continue
        whole, plan = recipes.read(run.recipe["name"]), run.recipe["evaluation"]
        made, expected = recipes.parse({**run.recipe, "seed": whole.seed}), whole.expected
        changed = any(getattr(made, part) != getattr(whole, part) for part in ("model", "objective", "training"))
        if expected.clean is None or changed:  # of what a table makes of it, a recipe says nothing
            continue
        found = subjects(p for facts in load([path.parent]) for p in facts.parts)
        (subject,) = [s for s in found if s.attacked]
        threat = registry.build(plan["attacks"][0]["threat"], "threat")
        attacked = next(a for a in subject.attacked if (a.norm, a.eps) == (threat.norm, threat.eps))
        values = {"clean": subject.clean.value, "robust": attacked.accuracy.value}
        for curve in subject.certified:
            steps = [level.accuracy.value for level in curve.steps if level.eps >= (expected.radius or 0.0)]
            values["certified"] = steps[0] if steps else 0.0
        for name, value in values.items():
            low, high = getattr(expected, name)
            assert low <= value <= high, f"{run.path.name}: {name} {value}"
            compared += 1
    assert compared >= 6


def test_nothing_large_is_committed() -> None:
    large = {p.name: p.stat().st_size for p in tracked() if p.stat().st_size > MEBIBYTE}
    assert not large


def test_files_are_short() -> None:
    lengths = {p.relative_to(ROOT): len(EXAMPLE.sub("", p.read_text()).splitlines()) for p in SOURCES}
    assert not {p: n for p, n in lengths.items() if n > 400}
    assert sorted(lengths.values())[len(lengths) // 2] <= 150


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> int:
    """Lines of code: without the docstring, blank lines and comments."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not body:
        return 0
    own = lines[body[0].lineno - 1 : function.end_lineno]
    return sum(1 for line in own if line.strip() and not line.strip().startswith("#"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_functions_are_short(path: Path) -> None:
    lines = path.read_text().splitlines()
    functions = [n for n in ast.walk(ast.parse("\n".join(lines))) if isinstance(n, ast.FunctionDef)]
    assert not {f.name: n for f in functions if (n := code_lines(f, lines)) > 60}


def test_every_public_name_is_documented() -> None:
    silent = [e.name for e in registry.entries() if not inspect.getdoc(e.load())]
    silent += [str(c.name) for c in build().registered_commands if not inspect.getdoc(c.callback)]
    for path in (p for p in SOURCES if p.stem != "__main__"):  # to import that one is to run it
        parts = path.relative_to(ROOT / "src").with_suffix("").parts
        module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
        assert module.__doc__, path
        named = [getattr(module, name) for name in getattr(module, "__all__", ())]
        silent += [n.__name__ for n in named if callable(n) and not inspect.getdoc(n)]
    assert not silent


def test_nothing_is_written_that_belongs_to_one_machine() -> None:
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        assert not (found := FORBIDDEN.search(text)), f"{path.relative_to(ROOT)}: {found[0]}"


def test_torch_is_pinned_and_installed_first() -> None:
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert "torch==2.13.0" in pins
    steps = [line for line in (ROOT / "Makefile").read_text().splitlines() if "pip install" in line]
    assert [s.rsplit("constraints.txt ", 1)[1] for s in steps] == ["torch==2.13.0", "-e '.[dev,docs]'"]


# --- CONTRIBUTING.md works --------------------------------------------------------------------------------------


def test_contributing_works_by_its_own_steps(tmp_path: Path) -> None:
    """Copy the blocks out of the page into a copy of the project and run the tests that they bring along."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    blocks = re.findall(r"```python\n# ([^\n]*)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    for place, text in blocks:
        path = tmp_path / place.removeprefix("append to ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.read_text() + "\n" + text if place.startswith("append") else text)
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "tests"]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stdout
    assert re.search(r"\b9 passed", found.stdout)
    lint = [sys.executable, "-m", "ruff", "check", "--quiet", *(p.removeprefix("append to ") for p, _ in blocks)]
    assert subprocess.run(lint, cwd=tmp_path, capture_output=True).returncode == 0


def test_every_mutant_still_has_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A formula that has moved would leave its mutant untried."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "mutants"))
    mutants = importlib.import_module("mutants")
    assert mutants.problems(mutants.MUTANTS) == []
