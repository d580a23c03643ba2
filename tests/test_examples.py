"""Every example runs as a newcomer would run it, and shows what it promises."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NUMBER = r"-?\d+\.\d+"


def run(name: str, folder: Path) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    found = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / name)],
        capture_output=True, text=True, timeout=300, cwd=folder, env=environment,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert not found.stderr, "an example speaks on stdout alone"
    return found.stdout


def test_each_example_has_a_test() -> None:
    assert [p.name for p in EXAMPLES] == ["add_objective.py", "formula_walk.py", "own_model.py", "two_modalities.py"]


def test_own_model_brackets_the_truth(tmp_path: Path) -> None:
    found = run("own_model.py", tmp_path)
    shares = {line[:48].strip(): float(re.search(NUMBER, line[48:])[0]) for line in found.splitlines() if "%" in line}
    clean = shares["clean accuracy"]
    assert clean > 90
    assert shares["at most, Linf 0.1, APGD on the margin"] <= shares["at most, Linf 0.1, PGD"] + 2 < clean
    # the proof at L2 0.1 and the attack at L2 0.25 are about one predictor: more survives the smaller budget
    assert 0 < shares["at least, L2 0.1, Lipschitz (deterministic)"] <= clean


def test_the_formula_walk_agrees_with_the_library(tmp_path: Path) -> None:
    found = run("formula_walk.py", tmp_path)
    pairs = re.findall(rf"  ({NUMBER}) +({NUMBER})$", found, flags=re.MULTILINE)
    assert len(pairs) == 9
    assert all(float(a) == pytest.approx(float(b), abs=1e-4) for a, b in pairs)
    assert "of 0.999 R succeeds: False;   of 1.5 R: True" in found


def test_add_objective_trains_and_reports(tmp_path: Path) -> None:
    found = run("add_objective.py", tmp_path)
    assert "every rule holds" in found
    assert Path(re.search(r"report: (.*)", found)[1]).stat().st_size > 100_000


def test_two_modalities_certify_less_for_more_edits(tmp_path: Path) -> None:
    found = run("two_modalities.py", tmp_path)
    shares = [float(re.search(NUMBER, line[46:])[0]) for line in found.splitlines() if "%" in line]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 60 and shares[1] > 10 and shares[-1] == 0.0


@pytest.mark.parametrize("page", ["README.md", "docs/evaluate.md"])
def test_python_in_the_docs_runs_as_it_stands(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One block after another, as a reader types them."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)
    space: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), space)
    assert blocks and re.search("attacked +linf 2/255 +at most", capsys.readouterr().out)
    assert list(tmp_path.iterdir()) == []
