"""Damaged and nonsensical bundles: sentences, never an exception."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hauberk import audit
from hauberk.records import read
from hauberk.verify import verify_once, verify_run


def record(path: Path) -> Path:
    return next(path.glob("records/certificate-*.parquet"))


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """A record whose head is another, under its old name."""
    table = pq.read_table(path)
    head = json.loads(table.schema.metadata[b"hauberk"])
    change(head)
    pq.write_table(table.replace_schema_metadata({b"hauberk": json.dumps(head).encode()}), path)


def edited(name: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        content = json.loads((run / name).read_text())
        change(content)
        (run / name).write_text(json.dumps(content))

    return damage


def forged(change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> Callable[[Path, Any], None]:
    return lambda run, forger: forger(run).change("certificate", "lipschitz", head=change)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "a record cut short": lambda run: record(run).write_bytes(record(run).read_bytes()[:300]),
    "an empty record": lambda run: record(run).write_bytes(b""),
    "a record of noise": lambda run: record(run).write_bytes(b"PAR1" + bytes(range(256)) + b"PAR1"),
    "a record of another table": lambda run: pq.write_table(pa.table({"x": [1]}), record(run)),
    "no kind": lambda run: rewritten(record(run), lambda head: head.pop("kind")),
    "an unknown kind": lambda run: rewritten(record(run), lambda head: head.update(kind="rumour")),
    "a unit that is a list": lambda run: rewritten(record(run), lambda head: head.update(unit=[])),
    "facts that are text": lambda run: rewritten(record(run), lambda head: head.update(facts="trust me")),
    "recipe.yaml gone": lambda run: (run / "recipe.yaml").unlink(),
    "recipe.yaml no YAML": lambda run: (run / "recipe.yaml").write_text("a: [b\n: c"),
    "recipe.yaml a list": lambda run: (run / "recipe.yaml").write_text("- a\n- b\n"),
    "recipe.yaml no text": lambda run: (run / "recipe.yaml").write_bytes(b"\xff\xfe\x00"),
    "evaluation a number": lambda run: (run / "recipe.yaml").write_text("data: {name: digits}\nevaluation: 3\n"),
    "data nested": lambda run: (run / "recipe.yaml").write_text("data: {name: digits, root: {name: own}}\n"),
    "run.json gone": lambda run: (run / "run.json").unlink(),
    "run.json no JSON": lambda run: (run / "run.json").write_text("{"),
    "run.json a list": lambda run: (run / "run.json").write_text("[]"),
    "hashes a list": edited("run.json", lambda info: info.update(hashes=[])),
    "hashes of records a number": edited("run.json", lambda info: info["hashes"].update(records=3)),
    "plans a number": edited("run.json", lambda info: info.update(plans=3)),
    "plans without end": edited(
        "run.json", lambda info: info.update(plans={key: [[0, 10**15]] for key in info["plans"]})
    ),
    "plans that end before they begin": edited(
        "run.json", lambda info: info.update(plans={key: [[10**15, 0], [0, 10**15]] for key in info["plans"]})
    ),
    "a plan beyond any data": edited(
        "run.json", lambda info: info.update(plans={key: [[0, 10**7]] for key in info["plans"]})
    ),
    "a budget with a long exponent": lambda run: (run / "recipe.yaml").write_text(
        "data: {name: digits}\nevaluation: {attacks: [{name: apgd, threat: {name: l2, eps: '1e999999999'}}]}\n"
    ),
    "plans of text": edited("run.json", lambda info: info.update(plans=dict.fromkeys(info["plans"], "all"))),
    "config.json no JSON": lambda run: (run / "checkpoints" / "config.json").write_text("{"),
    "spec a number": edited("checkpoints/config.json", lambda config: config.update(spec=3)),
}
NONSENSE: dict[str, Callable[[dict[str, Any], dict[str, Any]], Any]] = {
    "no predictor": lambda unit, facts: unit.pop("predictor"),
    "a predictor of slashes": lambda unit, facts: unit.update(predictor="mixed(alpha=1, scales=" + 10**5 * "/"),
    "a predictor of letters": lambda unit, facts: unit.update(predictor="small_cnn(" + 10**5 * "a"),
    "method is text": lambda unit, facts: unit.update(method="lipschitz"),
    "no classes": lambda unit, facts: facts.pop("classes"),
    "classes is a number": lambda unit, facts: facts.update(classes=10),
    "shape is text": lambda unit, facts: facts.update(shape="8x8"),
    "no shared evidence": lambda unit, facts: facts.pop("shared"),
    "shared evidence is a list": lambda unit, facts: facts.update(shared=[]),
    "constants are ragged": lambda unit, facts: facts["shared"].update(pairwise=[[1.0], [2.0, 3.0]]),
    "constants are text": lambda unit, facts: facts["shared"].update(pairwise="small"),
    "failure probability is text": lambda unit, facts: facts.update(failure_probability="none"),
    "seed is text": lambda unit, facts: unit.update(seed="lucky"),
    "tile is zero": lambda unit, facts: unit.update(tile=0),
    "dtype is unknown": lambda unit, facts: unit.update(dtype="float128"),
    "norm is a list": lambda unit, facts: facts.update(norm=["l2"]),
}  # fmt: skip
EVIDENCE = ["", "[]", "null", "{", '{"logits": null}', '{"logits": ["a"]}', '{"logits": [1, 2]}', '{"logits": [1e400]}']


def all_of(run: Path) -> list[str]:
    return [p for found in (verify_run(run), audit.audit(run)) for v in found for p in v.problems]


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_told(name: str, rich_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(rich_run, tmp_path / "run"))
    DAMAGE[name](run)
    found = all_of(run)
    assert found
    assert all("\n" not in problem and len(problem) < 600 for problem in found)


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_told(name: str, rich_run: Path, forger: Any, tmp_path: Path) -> None:
    run = Path(shutil.copytree(rich_run, tmp_path / "run"))
    for path in (run / "records").glob("certificate-*.parquet"):
        item = read(path)
        if item.unit["method"]["name"] == "lipschitz":
            rewritten(path, lambda head: NONSENSE[name](head["unit"], head["facts"]))
            path.rename(path.with_name(f"certificate-{_key(path)}.parquet"))
    forger(run).sign()
    assert all_of(run)


def _key(path: Path) -> str:
    """The key that belongs to a record's content, whatever it is called."""
    from hauberk.records import unit_key

    head = json.loads(pq.read_schema(path).metadata[b"hauberk"])
    return unit_key(head["kind"], head["unit"])


@pytest.mark.parametrize("text", EVIDENCE)
def test_evidence_that_is_none_is_told(text: str, rich_run: Path, forger: Any, tmp_path: Path) -> None:
    run = Path(shutil.copytree(rich_run, tmp_path / "run"))

    def spoil(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["evidence"] = text

    forger(run).change("certificate", "lipschitz", rows=spoil)
    assert all_of(run)


def test_a_report_verifies_a_run_once_and_again_after_any_change(
    rich_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hauberk.verify import run as module

    run, asked = Path(shutil.copytree(rich_run, tmp_path / "run")), list[Path]()
    monkeypatch.setattr(module, "verify_files", lambda found: [asked.append(found.path)])
    assert verify_once(run) == verify_once(run)
    assert len(asked) == 1
    files = [record(run), *(run / name for name in ("recipe.yaml", "run.json", "checkpoints/config.json"))]
    for number, file in enumerate(files):
        times, content = file.stat().st_mtime_ns, file.read_bytes()
        file.write_bytes(content[:-1] + b"?")  # as long as before, and as old
        os.utime(file, ns=(times, times))
        verify_once(run)
        assert len(asked) == 2 + number
        file.write_bytes(content)
        verify_once(run)
        assert len(asked) == 2 + number
    shutil.copy(record(run), run / "records" / "another.parquet")
    verify_once(run)
    assert len(asked) == 6
