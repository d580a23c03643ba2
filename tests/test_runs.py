"""Run directories: created once, resumed, refused when broken."""

import json
import os
import time
from pathlib import Path

import pytest
import torch

from hauberk import registry, runs, storage
from hauberk.errors import HauberkError
from hauberk.evaluation.signing import sign
from hauberk.runs import SCHEMA_VERSION, Run

RECIPE = {"name": "r", "data": {"name": "digits"}}
MODEL = {
    "name": "small_cnn", "input_shape": [1, 8, 8], "num_classes": 10, "mean": [0.3], "std": [0.4],
    "widths": [4], "strides": [1],
}  # fmt: skip


def saved(path: Path) -> Run:
    run = Run.create(path, RECIPE)
    run.save_model(registry.build(MODEL).eval(), {"classes": ["a"]})
    return run


def test_a_model_loads_back_bit_for_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = registry.build(MODEL).eval()
    run = Run.create(tmp_path / "r", RECIPE)
    assert not run.has_model
    run.save_model(model, {})
    again = Run.open(tmp_path / "r").load_model()
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(model(images), again(images))
    assert not again.training
    assert registry.spec(again) == registry.spec(model)


def test_the_same_recipe_resumes_and_another_is_refused(tmp_path: Path) -> None:
    Run.create(tmp_path / "r", RECIPE).update(note=1)
    assert Run.create(tmp_path / "r", RECIPE).info["note"] == 1
    with pytest.raises(HauberkError, match="another recipe"):
        Run.create(tmp_path / "r", RECIPE | {"seed": 2})


def test_what_is_not_a_run_or_of_another_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HauberkError, match="not a run directory"):
        Run.open(tmp_path)
    run = Run.create(tmp_path / "r", RECIPE)
    run.update(schema_version=99)
    with pytest.raises(HauberkError, match="schema version 99"):
        Run.open(tmp_path / "r")


def test_a_missing_truncated_foreign_or_changed_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HauberkError, match="no finished model"):
        Run.create(tmp_path / "empty", RECIPE).load_model()
    run = saved(tmp_path / "r")
    weights = run.checkpoints / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HauberkError, match="truncated"):
        run.load_model()
    weights.write_bytes(b"import os; os.system('true')")
    with pytest.raises(HauberkError, match="not a safetensors file"):
        run.load_model()
    other = Run.create(tmp_path / "other", RECIPE)
    other.save_model(registry.build(MODEL | {"widths": [6]}), {})
    weights.write_bytes((other.checkpoints / "model.safetensors").read_bytes())
    with pytest.raises(HauberkError, match="has changed"):
        run.load_model()
    config = run.checkpoints / "config.json"
    honest = config.read_text()
    config.write_text(json.dumps(json.loads(honest) | {"weights": other.model_config["weights"]}))
    with pytest.raises(HauberkError, match="does not fit"):
        run.load_model()
    config.write_text(honest)
    changed = bytearray(whole)
    changed[-1] ^= 1
    weights.write_bytes(bytes(changed))
    with pytest.raises(HauberkError, match="has changed"):
        run.load_model()


def test_a_last_line_cut_by_a_kill_is_left_out_of_the_metrics(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "r", RECIPE)
    assert run.metrics() == []
    run.log({"epoch": 0})
    run.log({"epoch": 1})
    with (run.path / "metrics.jsonl").open("a") as handle:
        handle.write('{"epoch": 2, "lo')
    assert run.metrics() == [{"epoch": 0}, {"epoch": 1}]
    run.keep_metrics(run.metrics()[:1])
    assert run.metrics() == [{"epoch": 0}]


@pytest.mark.parametrize("left", ["nothing", "recipe", "run"])
def test_a_kill_while_a_run_is_made_leaves_what_starts_again(tmp_path: Path, left: str) -> None:
    path = tmp_path / "r"
    Run.create(path, RECIPE)
    if left != "run":
        (path / "run.json").unlink()
    if left == "nothing":
        (path / "recipe.yaml").unlink()
    assert not Run(path).has_model
    if left != "run":
        with pytest.raises(HauberkError, match="not a run directory"):
            Run.open(path)
        other = Run.create(path, RECIPE | {"seed": 2})  # nothing was made of the first recipe
        assert other.recipe["seed"] == 2
        (path / "run.json").unlink()
    assert Run.create(path, RECIPE).info["schema_version"] == SCHEMA_VERSION
    assert Run.open(path).recipe == RECIPE


def test_a_recipe_of_somebody_else_is_not_written_over(tmp_path: Path) -> None:
    for text in ("name: r  # mine\n", "data: {name: digits}\n", "name: [unclosed\n", '"name": r\n'):
        (tmp_path / "recipe.yaml").write_text(text)
        with pytest.raises(HauberkError, match="but no run"):
            Run.create(tmp_path, RECIPE)
        assert (tmp_path / "recipe.yaml").read_text() == text
        assert sorted(p.name for p in tmp_path.iterdir()) == ["recipe.yaml"]


def test_a_model_is_finished_when_run_json_says_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    run = saved(tmp_path / "r")
    assert run.has_model
    whole = run.info
    assert whole["predictor"]
    assert whole["hashes"]["weights"] == run.model_config["weights"]
    partly = {key: value for key, value in whole.items() if key not in ("predictor", "hashes")}
    (run.path / "run.json").write_text(json.dumps(partly))
    assert not run.has_model
    with pytest.raises(HauberkError, match="no finished model"):
        run.load_model()
    torch.manual_seed(0)
    saved(tmp_path / "r")
    assert Run.open(run.path).info == whole


def test_the_model_and_all_that_is_said_of_it_appear_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, states = Run.create(tmp_path / "r", RECIPE), []

    def note(path: Path, content: bytes) -> None:
        states.append(run.has_model)
        storage.atomic_write(path, content)

    monkeypatch.setattr(runs, "atomic_write", note)
    run.save_model(registry.build(MODEL).eval(), {}, seed=5)
    assert states == [False] * 3
    assert run.has_model and run.info["seed"] == 5


def test_processes_that_write_facts_at_the_same_time_lose_none(tmp_path: Path) -> None:
    run, children = Run.create(tmp_path / "r", RECIPE), []
    for index in range(4):
        child = os.fork()
        if not child:
            for fact in range(10):
                run.update(**{f"fact {index} {fact}": 1})
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert sum(key.startswith("fact") for key in run.info) == 40
    assert sorted(p.name for p in run.path.iterdir()) == ["recipe.yaml", "run.json"]


def test_runs_of_two_recipes_made_at_the_same_time_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(path: Path, content: bytes) -> None:
        storage.atomic_write(path, content)
        os.sched_yield()

    monkeypatch.setattr(runs, "atomic_write", slow)
    for attempt in range(5):
        children = []
        for seed in range(3):
            child = os.fork()
            if not child:
                try:
                    Run.create(tmp_path / str(attempt), RECIPE | {"seed": seed})
                except HauberkError:
                    os._exit(1)
                os._exit(0)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert sorted(codes) == [0, 1, 1]
        assert Run.open(tmp_path / str(attempt)).recipe["seed"] == codes.index(0)


def test_a_run_that_is_there_is_opened_without_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Run.create(tmp_path / "r", RECIPE)

    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("hauberk.storage._lock", read_only)
    monkeypatch.setattr("hauberk.storage._temporary", read_only)
    assert Run.create(tmp_path / "r", RECIPE).info["schema_version"] == SCHEMA_VERSION


def test_opening_a_run_for_writing_removes_what_kills_left(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "r", RECIPE)
    for folder in (run.path, run.records, run.checkpoints):
        folder.mkdir(exist_ok=True)
        (folder / ".part-abc").write_text("half")
    Run.create(tmp_path / "r", RECIPE)
    assert not list(run.path.rglob(".part-*"))


def test_metrics_survive_a_cut_a_foreign_and_an_unreadable_line(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "r", RECIPE)
    for tail in (b'{"epoch": 1, "lo', b"\0\0\0\0", b"\xff\xfe", b"7\n"):
        (run.path / "metrics.jsonl").write_bytes(b'{"epoch": 0}\n' + tail)
        assert run.metrics() == [{"epoch": 0}]


def test_shards_that_sign_at_the_same_time_lose_no_line_of_the_list(tmp_path: Path) -> None:
    run, children = Run.create(tmp_path / "r", RECIPE), []
    for shard in range(4):
        child = os.fork()
        if not child:
            for unit in range(5):
                storage.atomic_write(run.records / f"attack-{shard}{unit}.parquet", b"rows")
                sign(run, f"attack_{shard}_seconds", time.monotonic())
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert len(run.info["hashes"]["records"]) == 20
    assert len(run.info["timings"]) == len(run.info["environments"]) == 4
