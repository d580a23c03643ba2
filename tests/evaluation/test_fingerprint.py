"""What no walk over a model can see shows in its answers, and its old records are then not taken for its own."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hauberk
from hauberk.attacks import FGSM
from hauberk.audit import again
from hauberk.batch import Batch
from hauberk.certificates import LipschitzCertificate, MixedCertificate, SmoothingCertificate
from hauberk.classifier import predictor_name
from hauberk.data import load
from hauberk.defences import MixedClassifier
from hauberk.evaluation import fingerprint
from hauberk.evaluation.alpha_path import mix_records
from hauberk.evaluation.fingerprint import TOLERANCE, answers, probes
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import attack_records, certificate_records, diagnosis_records
from hauberk.evaluation.work import Step, Work
from hauberk.noises import Gaussian
from hauberk.randomness import fenced
from hauberk.recipes import Evaluation
from hauberk.records import Part, read_all, write_once
from hauberk.report.collect import told_apart
from hauberk.runs import Run
from hauberk.subjects import Subject
from hauberk.threats import L2

IMAGES = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))
BATCH = Batch(IMAGES, torch.tensor([0, 1] * 3), torch.arange(6))


class Reading(nn.Module):
    """Its factor stands in a file, where nobody who looks at the model finds it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.path, self.layer = path, nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        values: Tensor = self.layer(images.flatten(1)) * float(self.path.read_text())
        return values


@pytest.fixture
def reading(tmp_path: Path) -> Reading:
    (tmp_path / "factor").write_text("1.0")
    return Reading(tmp_path / "factor").eval()


def setting() -> Setting:
    return Setting("none", "test", ("a", "b"), tile=16, probes=probes(BATCH))


def attack(model: nn.Module, work: Work) -> list[Part]:
    return attack_records(model, BATCH, FGSM(L2(0.1)), setting(), work)


def certify(model: nn.Module, work: Work) -> list[Part]:
    return certificate_records(model, BATCH, SmoothingCertificate(Gaussian(0.25), n0=8, n=16), setting(), work)


def mix_with(accurate: nn.Module, work: Work) -> list[Part]:
    torch.manual_seed(1)
    robust = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    model = MixedClassifier(accurate, robust, 1.0, 1.0, 1.0).eval()  # the mix itself never runs the accurate model
    return mix_records(model, BATCH, MixedCertificate(LipschitzCertificate()), (0.1,), setting(), work)


def diagnose(model: nn.Module, work: Work) -> list[Part]:
    return diagnosis_records(model, BATCH, FGSM(L2(0.1)), setting(), work)


@pytest.mark.parametrize("verb", [attack, certify, mix_with, diagnose])
def test_a_model_that_answers_otherwise_gets_new_records_beside_the_old(
    verb: Callable[[nn.Module, Work], list[Part]], reading: Reading, tmp_path: Path
) -> None:
    said: list[Step] = []
    work = Work(tmp_path / "records", report=said.append)
    first = verb(reading, work)
    assert [p.key for p in verb(reading, work)] == [p.key for p in first]
    assert not any(step.news for step in said)
    name = predictor_name(reading)
    reading.path.write_text("-1.0")
    assert predictor_name(reading) == name  # no walk sees it
    second = verb(reading, work)
    assert {p.key for p in first}.isdisjoint(p.key for p in second)
    (news,) = [step.news for step in said if step.news]
    asked = second[0].unit["predictor"] if verb is mix_with else name
    assert news == f"{asked} answers otherwise than when its records were made: new ones stand beside the old"
    assert len(read_all(work.folder)) == 2 * len(first)
    reading.path.write_text("1.0")  # the first function again, and its records
    assert [p.key for p in verb(reading, work)] == [p.key for p in first]
    assert len(read_all(work.folder, "fingerprint")) == 2


def test_a_report_tells_the_two_apart(reading: Reading, tmp_path: Path) -> None:
    work = Work(tmp_path / "records", report=lambda _: None)
    attack(reading, work)
    (one,) = told_apart(read_all(work.folder))
    assert one.unit["predictor"] == predictor_name(reading)
    reading.path.write_text("-1.0")
    attack(reading, work)
    names = {str(p.unit["predictor"]) for p in told_apart(read_all(work.folder))}
    assert len(names) == 2 and all(" answering " in name for name in names)


def test_without_somebody_who_listens_it_is_a_warning(reading: Reading, tmp_path: Path) -> None:
    attack(reading, Work(tmp_path / "records"))
    reading.path.write_text("-1.0")
    with pytest.warns(UserWarning, match="answers otherwise"):
        attack(reading, Work(tmp_path / "records"))


def stored(part: Part, folder: Path, **facts: object) -> None:
    write_once(folder, Part(part.kind, part.unit, {**part.facts, **facts}, part.table))


def test_bits_on_the_same_machine_and_the_tolerance_elsewhere(reading: Reading, tmp_path: Path) -> None:
    (here, elsewhere) = (tmp_path / "here", tmp_path / "elsewhere")
    (mine,) = answers(reading, IMAGES, None, here).new
    stored(mine, here)
    stored(mine, elsewhere, kernel={"cpu": "another"})
    far = 1.0 + 2 * TOLERANCE["float32"]
    for factor, bits, near in ((1.0, True, True), (1.0 + 1e-6, False, True), (far, False, False)):
        reading.path.write_text(repr(factor))
        assert (not answers(reading, IMAGES, None, here).new) == bits
        assert (not answers(reading, IMAGES, None, elsewhere).new) == near


class Tossing(nn.Module):
    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.draw, self.layer = draw, nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        values: Tensor = self.layer(images.flatten(1)) + self.draw()
        return values


def of_torch() -> float:
    return float(torch.rand(()))


def of_numpy() -> float:
    return float(np.random.rand())  # noqa: NPY002 - what a model of the user's own may draw from


@pytest.mark.parametrize("draw", [of_torch, of_numpy, random.random])
def test_a_random_model_is_asked_in_fixed_draws_and_nobody_elses_draws_move(
    draw: Callable[[], float], tmp_path: Path
) -> None:
    model = Tossing(draw).eval()
    with fenced(3):
        expected = draw()
    with fenced(3):
        (mine,) = answers(model, IMAGES, None, tmp_path).new
        assert draw() == expected
    stored(mine, tmp_path)
    assert answers(model, IMAGES, None, tmp_path).id == mine.unit["answers"]
    assert mine.facts["repeats"]


class Failing(nn.Module):
    def __init__(self, what: object) -> None:
        super().__init__()
        self.what = what

    def forward(self, images: Tensor) -> object:
        if isinstance(self.what, Exception):
            raise self.what
        return self.what(images) if callable(self.what) else self.what


TOSSED = np.random.default_rng(0)
ODD = {
    "an error": RuntimeError("no"),
    "a tuple": (torch.zeros(16, 2), 1),
    "a dict": {"logits": torch.zeros(16, 2)},
    "NaN": lambda images: torch.full((len(images), 2), torch.nan),
    "infinity": lambda images: torch.full((len(images), 2), torch.inf),
    "no rows": lambda images: images[:0].flatten(1),
    "a vector": lambda images: images.flatten(1).sum(1),
    "chance of its own": lambda images: images.flatten(1)[:, :2] + TOSSED.random(),
}


@pytest.mark.parametrize("what", ODD.values(), ids=ODD)
def test_a_model_that_ignores_its_probes_is_known_by_its_name_alone(what: object, tmp_path: Path) -> None:
    model = Failing(what).eval()
    first = answers(model, IMAGES, probes(BATCH), tmp_path)
    for new in first.new:
        stored(new, tmp_path)
    again = answers(model, IMAGES, probes(BATCH), tmp_path)
    assert (again.id, again.news, again.new) == (first.id, "", ())


def test_probes_are_chosen_by_id_whatever_the_order() -> None:
    data = load("digits").test
    chosen = probes(data)
    turned = probes(data.select(torch.arange(len(data) - 1, -1, -1)))
    assert sorted(chosen.ids.tolist()) == sorted(turned.ids.tolist()) != list(range(fingerprint.ROWS))
    assert len(chosen) == fingerprint.ROWS


def test_verify_asks_the_model_first(reading: Reading, tmp_path: Path) -> None:
    data = load("digits")
    torch.manual_seed(0)
    reading.layer = nn.Linear(64, 10).eval()
    run = Run.create(tmp_path / "run", {"name": "x", "data": {"name": "digits"}, "model": {"factory": "m:f"}})
    target = Subject(run, reading, data)
    hauberk.attack(target, [FGSM(L2(0.1))], Evaluation(images=16, tile=16))
    assert not any(v.problems for v in again.recompute(target, 4, np.random.default_rng(0)))
    reading.path.write_text("1.5")
    problems = [problem for v in again.recompute(target, 4, np.random.default_rng(0)) for problem in v.problems]
    assert any("answers otherwise" in problem for problem in problems)
