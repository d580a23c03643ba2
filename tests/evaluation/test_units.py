"""Units of work: resumed after a kill, sharded, and the alpha path of a mix."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauberk import api
from hauberk.evaluation.units import right_interval
from hauberk.recipes import Evaluation
from hauberk.records import Part, group, read_all

SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from pathlib import Path
from hauberk import api, registry
from hauberk.evaluation.units import Setting, Work, attack_records, certificate_records
run, out = map(Path, sys.argv[1:])
target = api.subject(run)
batch = api.evaluation_batch(target.dataset, "test", 48)
setting = Setting("digits", "test", target.dataset.classes, tile=8, gallery=4)
attack = registry.build({"name": "apgd", "threat": "l2:0.5", "steps": 40})
smoothing = registry.build({"name": "smoothing", "sigma": 0.25, "n": 400})
attack_records(target.model, batch, attack, setting, Work(out))
certificate_records(target.model, batch, smoothing, setting, Work(out))
"""


def tables(folder: Path) -> dict[str, Part]:
    return {part.key: part for part in read_all(folder)}


def start(run: Path, out: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", SCRIPT, str(run), str(out)]
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_killed_evaluations_resume_to_the_same_records(tiny_run: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(tiny_run, whole).wait() == 0
    expected = tables(whole)
    assert {p.kind for p in expected.values()} == {"attack", "certificate"}
    for parts in (2, 4, 8):  # the last one falls among the certificates
        process = start(tiny_run, killed)
        while process.poll() is None and len(list(killed.glob("*.parquet"))) < parts:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(tables(killed)) <= len(expected)
    assert start(tiny_run, killed).wait() == 0
    found = tables(killed)
    assert found.keys() == expected.keys()
    assert all(found[key].table.equals(expected[key].table) for key in expected)
    assert all(found[key].facts == expected[key].facts for key in expected)


def test_a_unit_that_is_there_is_not_done_again(tiny_run: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (tiny_run / "records").iterdir()}
    subject = api.subject(tiny_run)
    seen = []
    api.evaluate(subject.run, report=seen.append)
    assert {p: p.stat().st_mtime_ns for p in (tiny_run / "records").iterdir()} == before
    assert seen[-1].done == seen[-1].total == 3


def probabilities() -> st.SearchStrategy[np.ndarray]:
    return st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4).map(lambda v: np.array(v) / np.sum(v))


@given(probabilities(), probabilities(), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_the_interval_where_a_mix_is_right_agrees_with_a_scan(g: np.ndarray, h: np.ndarray, label: int) -> None:
    low, high = right_interval(g, h, label)
    for alpha in np.linspace(0.0, 1.0, 101):
        mix = (1 - alpha) * g + alpha * h
        lead = mix[label] - np.delete(mix, label).max()
        if abs(lead) > 1e-9:
            assert (low < alpha < high) == (lead > 0)


def test_the_alpha_path_agrees_with_certificates_at_each_alpha(tiny_run: Path, tmp_path: Path) -> None:
    subject, certified_rows = api.subject(tiny_run), 0
    for alpha in (0.8, 0.95, 1.0):
        how = api.Mixture(alpha, robust_scale=10.0)
        run = api.mix(subject, subject, how, tmp_path / f"{alpha}", Evaluation(images=24))
        mixed = api.subject(run.path)
        certificate = api.default_certificate(mixed)
        assert certificate is not None
        api.certify(mixed, [certificate], Evaluation(images=24))
        (path,) = group(read_all(run.records, "mix"))
        (certified,) = group(read_all(run.records, "certificate"))
        eps = np.array(path.facts["eps"])
        needed = path.table.column("certified_alpha").to_pylist()
        from_path = np.array([[a is not None and a <= alpha for a in row] for row in needed])
        right = certified.column("prediction") == certified.column("label")
        radius = certified.column("radius")
        direct = right[:, None] & (radius[:, None] > eps[None, :])
        assert np.array_equal(from_path[:, 1:], direct[:, 1:])
        certified_rows += int(direct.sum())
    assert certified_rows > 0
