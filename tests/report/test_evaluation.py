"""What a report says of the evaluation itself: its judgement, stages, nearest errors, and draws of a random model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hauberk import records
from hauberk.attacks import APGD, DDN, FGSM, PGD, AutoAttack
from hauberk.batch import Batch
from hauberk.classifier import Normalize, Traits
from hauberk.evaluation import metrics
from hauberk.evaluation.keys import Setting
from hauberk.evaluation.units import attack_records, diagnosis_records
from hauberk.evaluation.work import Work
from hauberk.records import Part
from hauberk.report.collect import RunFacts, judgements, subjects
from hauberk.report.page import render
from hauberk.threats import L2, Linf

SETTING = Setting("noise", "test", ("a", "b", "c"), tile=8, gallery=0)


class Noisy(nn.Module):
    """Adds noise to the logits of another net."""

    traits = Traits(stochastic=True)

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        logits = self.net(images)
        return logits + 0.3 * torch.randn_like(logits)


@pytest.fixture
def task() -> tuple[nn.Module, Batch]:
    torch.manual_seed(2)
    net = nn.Sequential(Normalize([0.5], [0.2]), nn.Conv2d(1, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(64, 3))
    images = torch.rand(20, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    net.eval().requires_grad_(False)
    return net, Batch(images, net(images).argmax(1), torch.arange(20))


def page(parts: list[Part]) -> str:
    return render([RunFacts("run", {"name": "run"}, {}, tuple(parts))])


def test_the_judgement_stands_beside_the_number(task, tmp_path: Path) -> None:
    net, batch = task
    attack = PGD(Linf(0.05), steps=5)
    parts = attack_records(net, batch, attack, SETTING, Work(tmp_path))
    assert "was not checked" in page(parts)
    parts += diagnosis_records(net, batch, attack, SETTING, Work(tmp_path))
    (judged,) = judgements(parts)
    (subject,) = subjects(parts)
    assert subject.judgements == (judged,)
    assert (judged.attack, judged.norm, judged.eps) == ("pgd", "linf", 0.05)
    order = ["broken", "questionable", "sound"]
    assert [order.index(f.verdict) for f in judged.findings] == sorted(order.index(f.verdict) for f in judged.findings)
    assert judged.verdict == judged.findings[0].verdict
    text = page(parts)
    assert f"Evaluation: {judged.verdict}." in text
    assert "was not checked" not in text
    assert subjects([p for p in parts if p.kind == "diagnosis"]) == []
    assert [p.key for p in diagnosis_records(net, batch, attack, SETTING, Work(tmp_path))] == [parts[-1].key]


def test_a_nearer_error_counts_at_every_larger_budget(task, tmp_path: Path) -> None:
    net, batch = task
    strong = attack_records(net, batch, APGD(Linf(0.04), steps=30), SETTING, Work(tmp_path))
    feeble = PGD(Linf(0.05), steps=1, step_size=0.01, random_start=False)
    weak = attack_records(net, batch, feeble, SETTING, Work(tmp_path))
    small, large = subjects(strong + weak)[0].attacked
    assert (small.eps, large.eps) == (0.04, 0.05)
    assert large.accuracy.value <= small.accuracy.value
    alone = subjects(weak)[0].attacked[0]
    assert large.accuracy.value < alone.accuracy.value
    # but a method's own row says what it found itself
    assert large.methods[0].accuracy == alone.methods[0].accuracy


def test_stages_of_autoattack_are_shown_in_order_with_what_they_saw(task, tmp_path: Path) -> None:
    net, batch = task
    threat = Linf(0.03)
    suite = AutoAttack(threat, version="custom", attacks=(FGSM(threat), APGD(threat, steps=20), PGD(threat, steps=5)))
    parts = attack_records(net, batch, suite, SETTING, Work(tmp_path))
    (attacked,) = subjects(parts)[0].attacked
    assert [(m.suite, m.stage, m.name) for m in attacked.methods] == [
        ("autoattack custom", 0, "fgsm"), ("autoattack custom", 1, "apgd"), ("autoattack custom", 2, "pgd"),
    ]  # fmt: skip
    seen = [m.accuracy.n for m in attacked.methods]
    left = [round(m.accuracy.value * m.accuracy.n) for m in attacked.methods]
    assert seen[0] == 20
    assert seen[1:] == left[:-1]
    assert attacked.accuracy.n == 20
    assert round(attacked.accuracy.value * 20) == left[-1]
    assert "stage 2 of autoattack custom" in page(parts)


def test_a_minimum_norm_attack_reports_its_median(task, tmp_path: Path) -> None:
    net, batch = task
    parts = attack_records(net, batch, DDN(L2(0.5), steps=40), SETTING, Work(tmp_path))
    (attacked,) = subjects(parts)[0].attacked
    nearest = np.concatenate([p.column("nearest") for p in parts])
    assert attacked.methods[0].nearest == metrics.median_distance(np.ones(20, bool), nearest)
    assert "to the nearest error" in page(parts)


def test_draws_of_a_random_model_are_reported_with_their_control(task, tmp_path: Path) -> None:
    net, batch = task
    model = Noisy(net).eval()
    attack = PGD(Linf(0.1), steps=5, eot=4)  # strong enough that 80 draws show it
    parts = attack_records(model, batch, attack, SETTING, Work(tmp_path))
    (joined,) = records.group(parts)
    drawn = np.array(joined.table.column("draws").to_pylist())
    assert drawn.shape == (20, 4)
    (attacked,) = subjects(parts)[0].attacked
    clean, after = attacked.random
    assert after.mean.value == pytest.approx(float((drawn == joined.column("label")[:, None]).mean()))
    assert clean.all_right.value <= clean.mean.value
    assert after.mean.value < clean.mean.value
    assert "every draw" in page(parts).lower()
    again = attack_records(model, batch, attack, SETTING, Work(tmp_path / "again"))
    assert all(a.table.equals(b.table) for a, b in zip(parts, again, strict=True))
    (plain,) = subjects(attack_records(net, batch, FGSM(Linf(0.03)), SETTING, Work(tmp_path)))[0].attacked
    assert plain.random is None
