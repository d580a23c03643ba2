"""Run directories: created once, resumed, refused when broken."""

from pathlib import Path

import pytest
import torch

from hauberk import registry
from hauberk.errors import HauberkError
from hauberk.runs import Run

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
    with pytest.raises(HauberkError, match="does not fit"):
        run.load_model()
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
