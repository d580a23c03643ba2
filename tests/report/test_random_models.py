"""A random model on the page: the curve of a sweep, points sent again, transfer between draws, what was not tried."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from hauberk.attacks import EOT, PGD, AutoAttack, EOTSweep
from hauberk.batch import Batch
from hauberk.cli.results import _random_lines
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.repeated import repeated_accuracy
from hauberk.evaluation.units import attack_records
from hauberk.evaluation.work import Work
from hauberk.layers import NoiseInjection
from hauberk.noises import Gaussian
from hauberk.records import Part, group
from hauberk.report import words
from hauberk.report.collect import RunFacts, subjects
from hauberk.report.page import render
from hauberk.report.random_models import missed
from hauberk.report.subject import Finding, Judgement
from hauberk.report.words import not_tested
from hauberk.threats import Linf

SETTING = Setting("noise", "test", ("a", "b", "c"), tile=8, gallery=0)
BALL = Linf(0.12)
SWEEP = EOTSweep(BALL, draws=(1, 2, 3), steps=(2, 3, 3), least=2, votes=5, tries=12)


@pytest.fixture(scope="module")
def task() -> tuple[nn.Module, Batch]:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        layers = [nn.Flatten(), nn.Linear(12, 8), NoiseInjection(Gaussian(0.1)), nn.Tanh(), nn.Linear(8, 3)]
        model = nn.Sequential(*layers).eval().requires_grad_(False)
        images = torch.rand(30, 3, 2, 2)
        labels = model(images).argmax(1)
    labels[:3] = (labels[:3] + 1) % 3
    return model, Batch(images, labels, torch.arange(30))


@pytest.fixture(scope="module")
def parts(task: tuple[nn.Module, Batch], tmp_path_factory: pytest.TempPathFactory) -> list[Part]:
    folder = Work(tmp_path_factory.mktemp("records"))
    attacks = [
        SWEEP, EOT(BALL, attack=PGD(BALL, steps=3), draws=1, mean="logits", fixed=True, votes=5),
        EOT(BALL, attack=PGD(BALL, steps=3), draws=4, mean="logits", fixed=True, votes=5),
    ]  # fmt: skip
    return [p for a in attacks for p in attack_records(*task, a, SETTING, folder)]


def test_the_curve_counts_what_stands_after_each_stage(parts: list[Part]) -> None:
    (attacked,) = subjects(parts)[0].attacked
    sweep = attacked.draws.sweep
    assert sweep is not None
    stages = {int(p.unit["stage"]): p for p in group(parts) if "suite" in p.unit}
    standing = set(range(30))
    for number, stage in enumerate(sweep.stages):
        part = stages[number]
        wrong = part.column("success") | (part.column("clean_prediction") != part.column("label"))
        standing -= set(part.column("id")[wrong].tolist())
        assert stage.accuracy.value == pytest.approx(len(standing) / 30)
        assert stage.accuracy.n == 30
    assert [s.draws for s in sweep.stages] == [1, 1, 2, 2, 3, 3][: len(stages)]
    right = int((stages[0].column("clean_prediction") == stages[0].column("label")).sum())
    assert sum(s.fallen for s in sweep.stages) == right - len(standing)
    assert sweep.settled == SWEEP.settled([s.fallen for s in sweep.stages])


def test_repeated_queries_are_those_of_the_last_points(parts: list[Part]) -> None:
    (attacked,) = subjects(parts)[0].attacked
    rows: dict[int, dict] = {}
    for part in sorted((p for p in group(parts) if "suite" in p.unit), key=lambda p: p.unit["stage"]):
        rows |= {row["id"]: row for row in part.table.to_pylist()}
    labels = [row["label"] for row in rows.values()]
    for one in attacked.draws.repeated:
        assert one.attacked.value == repeated_accuracy([r["draws"] for r in rows.values()], labels, one.tries).value
        assert one.clean.value == repeated_accuracy([r["clean_draws"] for r in rows.values()], labels, one.tries).value
    assert [one.tries for one in attacked.draws.repeated] == [1, 10]  # of 12 draws nothing can be said of 100
    assert attacked.draws.repeated[0].attacked.value > attacked.draws.repeated[1].attacked.value


def test_transfer_stands_apart_from_what_is_reported(parts: list[Part]) -> None:
    (attacked,) = subjects(parts)[0].attacked
    one, four = attacked.draws.transferred
    assert (one.draws, four.draws) == (1, 4)
    fixed = next(p for p in group(parts) if p.unit["method"].get("fixed") and p.unit["method"]["draws"] == 1)
    right = fixed.column("clean_prediction") == fixed.column("label")
    assert one.own.value == pytest.approx((fixed.column("logit_margin")[right] < 0).mean())
    assert one.carried.value == pytest.approx(fixed.column("success")[right].mean())
    drawn = np.array(fixed.table.column("draws").to_pylist())[right] != fixed.column("label")[right][:, None]
    assert one.single.value == pytest.approx(drawn.mean())


def test_the_page_and_the_terminal_say_it(parts: list[Part]) -> None:
    found = render([RunFacts("run", {"name": "run"}, {}, tuple(parts))])
    for text in ("a point that is sent again and again", "accuracy with ever more draws and steps", "a diagnostic"):
        assert text in found
    subject = subjects(parts)[0]
    lines = list(_random_lines(subject.attacked[0]))
    assert any("after each stage (draws x steps)" in line for line in lines)
    assert any("right in all of 10 tries" in line for line in lines)
    assert sum("transfer between draws, a diagnostic" in line for line in lines) == 2
    assert not any("eot_sweep" in said for said in not_tested(subject))


def test_how_much_the_noise_does_is_said(parts: list[Part]) -> None:
    reason = "The noise moves 1.2% of the output: the model is deterministic in all but name."
    judged = Judgement("apgd", "linf", 0.12, "sound", (Finding("noise_share", 0.012, 1.0, "sound", reason),), 30)
    subject = subjects(parts)[0]
    assert reason in words.tested(replace(subject, judgements=(judged,)))
    assert reason not in words.tested(subject)


def test_a_suite_for_deterministic_models_is_called_out(task: tuple[nn.Module, Batch], tmp_path: Path) -> None:
    fast = attack_records(*task, AutoAttack(BALL, early_stop=False, eot=2), SETTING, Work(tmp_path))
    said = " ".join(not_tested(subjects(fast)[0]))
    assert "AutoAttack fast is made for others" in said
    assert "eot_sweep" in said
    both = [*fast, *attack_records(*task, AutoAttack(BALL, version="rand", eot=2), SETTING, Work(tmp_path))]
    assert "made for others" not in " ".join(not_tested(subjects(both)[0]))


def test_a_sweep_that_ends_while_images_fall_says_so(task: tuple[nn.Module, Batch], tmp_path: Path) -> None:
    once = EOTSweep(BALL, draws=(1,), steps=(2,), least=1, votes=5, tries=0)
    subject = subjects(attack_records(*task, once, SETTING, Work(tmp_path)))[0]
    sweep = subject.attacked[0].draws.sweep
    assert sweep is not None
    assert not sweep.settled
    assert any("had not stopped falling" in said for said in not_tested(subject))


def test_autoattack_must_not_fall_behind_the_sweep(
    task: tuple[nn.Module, Batch], parts: list[Part], tmp_path: Path
) -> None:
    """One step of one draw stands for AutoAttack here: what it misses and the sweep finds is counted image by image."""
    suite = AutoAttack(BALL, version="rand", eot=2)
    rand = attack_records(*task, suite, SETTING, Work(tmp_path))
    swept = [p for p in parts if (p.unit.get("suite") or {}).get("name") == "eot_sweep"]
    broken = {i for p in swept for i, s in zip(p.column("id"), p.column("success"), strict=True) if s}
    stands = set(range(30)) - {i for p in rand for i, s in zip(p.column("id"), p.column("success"), strict=True) if s}
    found = missed(rand, swept)
    assert found is not None
    assert found.value == pytest.approx(len(stands & broken) / 30)
    assert missed(rand, []) is None
    (attacked,) = subjects([*parts, *rand])[0].attacked
    assert attacked.draws.missed == found
    idle = [p for p in swept if p.unit["stage"] == 0]
    none = missed([replace(p, table=_spared(p)) for p in idle], swept)
    assert none is not None
    assert none.value == pytest.approx(len(broken - _wrong(idle)) / 30)


def _wrong(parts: list[Part]) -> set[int]:
    return {i for p in parts for i, c, y in zip(*map(p.column, ("id", "clean_prediction", "label")), strict=True)
            if c != y}  # fmt: skip


def _spared(part: Part) -> pa.Table:
    """A table in which nothing fell."""
    at = part.table.schema.get_field_index("success")
    return part.table.set_column(at, part.table.schema.field("success"), pa.array([False] * part.table.num_rows))
