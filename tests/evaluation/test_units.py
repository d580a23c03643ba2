"""Units of work: resumed after a kill, sharded, and the alpha path of a mix."""

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import hauberk
from hauberk import verify
from hauberk.attacks import APGD, FAB, Attack, AutoAttack, Query, Square
from hauberk.batch import Batch
from hauberk.certificates import SmoothingCertificate
from hauberk.classifier import Normalize
from hauberk.conformance import LinearOracle
from hauberk.defences import MixedClassifier
from hauberk.evaluation.alpha_path import mix_records
from hauberk.evaluation.alpha_steps import right_intervals
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import attack_records, certificate_records
from hauberk.evaluation.work import Work
from hauberk.noises import Gaussian
from hauberk.recipes import Evaluation
from hauberk.records import Part, group, part, read_all
from hauberk.subjects import Subject
from hauberk.threats import L2
from hauberk.verbs import mix as mixing


def tables(folder: Path) -> dict[str, Part]:
    return {part.key: part for part in read_all(folder)}


def start(target: Subject, out: Path) -> int:
    """The number of a fork that attacks and certifies."""
    child = os.fork()
    if child:
        return child
    batch = hauberk.evaluation_batch(target.dataset, "test", 48)
    setting = Setting("digits", "test", target.dataset.classes, tile=8, gallery=4)
    attack_records(target.model, batch, APGD(L2(0.5), steps=20), setting, Work(out))
    certificate_records(target.model, batch, SmoothingCertificate(Gaussian(0.25), n0=16, n=64), setting, Work(out))
    os._exit(0)


def test_killed_evaluations_resume_to_the_same_records(tiny_run: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    target, whole, killed = hauberk.subject(tiny_run), tmp_path / "whole", tmp_path / "killed"
    assert os.waitpid(start(target, whole), 0)[1] == 0
    expected = tables(whole)
    assert {p.kind for p in expected.values()} == {"attack", "certificate"}
    for parts in (2, 4, 8):  # the last one falls among the certificates
        child = start(target, killed)
        while os.waitpid(child, os.WNOHANG)[0] == 0:
            if len(list(killed.glob("*.parquet"))) >= parts:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.002)
        assert len(tables(killed)) <= len(expected)
    assert os.waitpid(start(target, killed), 0)[1] == 0
    found = tables(killed)
    assert found.keys() == expected.keys()
    assert all(found[key].table.equals(expected[key].table) for key in expected)
    assert all(found[key].facts == expected[key].facts for key in expected)


def test_a_unit_that_is_there_is_not_done_again(tiny_run: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (tiny_run / "records").iterdir()}
    subject = hauberk.subject(tiny_run)
    seen = []
    hauberk.evaluate(subject.run, report=seen.append)
    assert {p: p.stat().st_mtime_ns for p in (tiny_run / "records").iterdir()} == before
    assert seen[-1].done == seen[-1].total == 3


def probabilities() -> st.SearchStrategy[np.ndarray]:
    return st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4).map(lambda v: np.array(v) / np.sum(v))


@given(probabilities(), probabilities(), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_the_interval_where_a_mix_is_right_agrees_with_a_scan(g: np.ndarray, h: np.ndarray, label: int) -> None:
    low, high = (float(end[0]) for end in right_intervals(g[None], h[None], [label]))
    for alpha in np.linspace(0.0, 1.0, 101):
        mix = (1 - alpha) * g + alpha * h
        lead = mix[label] - np.delete(mix, label).max()
        if abs(lead) > 1e-9:
            assert (low < alpha < high) == (lead > 0)


def test_the_alpha_path_agrees_with_certificates_at_each_alpha(tiny_run: Path, tmp_path: Path) -> None:
    subject, certified_rows = hauberk.subject(tiny_run), 0
    for alpha in (0.8, 0.95, 1.0):
        how = mixing.Mixture(alpha, robust_scale=10.0)
        run = mixing.mix(subject, subject, how, tmp_path / f"{alpha}", Evaluation(images=24))
        mixed = hauberk.subject(run.path)
        certificate = hauberk.default_certificate(mixed)
        assert certificate is not None
        hauberk.certify(mixed, [certificate], Evaluation(images=24))
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


def test_a_path_without_a_certificate_counts_the_mixs_own_decisions(tmp_path: Path) -> None:
    first, second = (LinearOracle.random((1, 3, 3), num_classes=4, seed=s) for s in (1, 2))
    batch = LinearOracle.random((1, 3, 3), num_classes=4, seed=3).batch(40)
    model = MixedClassifier(first, second, 0.5, 2.0, 3.0).eval()
    mix_records(model, batch, None, (0.5,), Setting("toy", "test", tuple("abcd"), tile=16), Work(tmp_path))
    (path,) = group(read_all(tmp_path, "mix"))
    assert path.facts["eps"] == []
    assert path.facts["proof"] == "none"
    low, high = path.column("alpha_low"), path.column("alpha_high")
    for alpha in (0.0, 0.2, 0.45, 0.8, 1.0):
        with torch.no_grad():
            right = MixedClassifier(first, second, alpha, 2.0, 3.0).eval()(batch.images).argmax(1) == batch.labels
        assert np.array_equal((low < alpha) & (alpha < high), right.numpy())
    assert verify.verify_mix(path, []).problems == ()
    columns = {name: path.table.column(name).to_pylist() for name in path.table.column_names}
    moved = [None if a is None else min(a + 0.3, 0.99) for a in columns["alpha_low"]]
    assert verify.verify_mix(part("mix", path.unit, path.facts, columns | {"alpha_low": moved}), []).problems
    # an interval that reaches too far to one side is found for every image that is right on a part of [0, 1] alone
    for end, limit, step in (("alpha_low", -1.0, -2e-3), ("alpha_high", 2.0, 2e-3)):
        bounded = [a is not None and a == a and a != limit for a in columns[end]]
        wide = [a + step if b else a for a, b in zip(columns[end], bounded, strict=True)]
        problems = verify.verify_mix(part("mix", path.unit, path.facts, columns | {end: wide}), []).problems
        assert sum(bounded) > 2
        for name, b in zip(columns["id"], bounded, strict=True):
            assert any(f"sample {name}:" in p for p in problems) == b


# --- AutoAttack, killed inside each of its attacks ------------------------------------------------------------------

THREAT = L2(0.25)
STAGES: tuple[Attack, ...] = (
    APGD(THREAT, steps=5), APGD(THREAT, steps=5, loss="dlr", targets=3), FAB(THREAT, steps=3, targets=3),
    Square(THREAT, queries=20),
)  # fmt: skip
SUITE = AutoAttack(THREAT, version="custom", attacks=STAGES)


@pytest.fixture(scope="module")
def task() -> tuple[nn.Module, Batch]:
    """A small net with images at all distances from its boundaries."""
    torch.manual_seed(5)
    layers = [nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)]
    network = nn.Sequential(Normalize([0.5], [0.1]), *layers).eval().requires_grad_(False)
    images = torch.rand(40, 1, 6, 6)
    return network, Batch(images, network(images).argmax(1), torch.arange(40))


def evaluate(task: tuple[nn.Module, Batch], out: Path, calls: list[float] | None = None, last: int = -1) -> None:
    """The whole suite; notes every model call, and dies at the ``last`` one."""
    setting = Setting("noise", "test", tuple("abcd"), tile=4, gallery=0)
    plain = Query._once

    def watched(query: Query, *arguments: Any) -> Any:
        if calls is not None:
            calls.append(0.0)
            if len(calls) == last:
                os.kill(os.getpid(), signal.SIGKILL)
        return plain(query, *arguments)

    Query._once = watched  # type: ignore[method-assign]
    try:
        attack_records(*task, SUITE, setting, Work(out))
    finally:
        Query._once = plain  # type: ignore[method-assign]


def test_autoattack_killed_at_ten_units_resumes_to_the_same_records(task, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    calls: list[float] = []
    evaluate(task, tmp_path / "whole", calls)
    expected = tables(tmp_path / "whole")
    assert {part.unit["stage"] for part in expected.values()} == {0, 1, 2, 3}
    inside = []
    for number, moment in enumerate(random.Random(3).sample(range(2, len(calls) + 1), 10)):
        folder = tmp_path / str(number)
        child = os.fork()
        if child == 0:
            evaluate(task, folder, [], moment)
            os._exit(0)  # not reached: it is killed on the way
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
        done = tables(folder)
        inside.append(unfinished(done, expected))
        evaluate(task, folder)
        found = tables(folder)
        assert found.keys() == expected.keys()
        assert all(found[key].table.equals(expected[key].table) for key in expected)
    assert {stage for _, stage in inside} == {0, 1, 2, 3}
    assert len(set(inside)) >= 5  # of the 12 units


def unfinished(done: dict[str, Part], expected: dict[str, Part]) -> tuple[int, int]:
    """Images and stage of the unit in which an evaluation was killed: the first missing one."""
    return min((int(p.column("id")[0]) // 16, p.unit["stage"]) for p in expected.values() if p.key not in done)


def test_stages_see_survivors_alone(task, tmp_path: Path) -> None:
    evaluate(task, tmp_path)
    stages = {p.unit["stage"]: p for p in group(read_all(tmp_path))}
    assert {p.unit["suite"]["version"] for p in stages.values()} == {"custom"}
    for number in (1, 2, 3):
        before = stages[number - 1]
        assert set(stages[number].column("id")) == set(before.column("id")[~before.column("success").astype(bool)])
    network, batch = task
    together = SUITE(network, batch, 0, 4)
    assert set(batch.ids[~together.success].tolist()) == set(
        stages[3].column("id")[~stages[3].column("success").astype(bool)]
    )


def test_an_extended_evaluation_supersedes_its_last_unit(tiny_run: Path, tmp_path: Path) -> None:
    target = hauberk.subject(tiny_run)
    setting = Setting("digits", "test", target.dataset.classes, tile=4, gallery=0)
    for images in (20, 30):
        batch = hauberk.evaluation_batch(target.dataset, "test", images)
        attack_records(target.model, batch, APGD(L2(0.5), steps=4), setting, Work(tmp_path))
    (joined,) = group(read_all(tmp_path))
    assert len(joined.column("id")) == 30
