"""The demo's promise: nothing is found inside a certified radius, and something is found a little outside."""

from pathlib import Path

import pytest
import torch

import hauberk
from hauberk import recipes
from hauberk.attacks import APGD
from hauberk.batch import Batch
from hauberk.certificates import Certificate, LipschitzCertificate, SmoothingCertificate
from hauberk.classifier import decide
from hauberk.noises import Gaussian
from hauberk.report import summary
from hauberk.subjects import Subject
from hauberk.threats import L2
from hauberk.verbs import demo
from hauberk.verify import verify_folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's certified nets."""
    out = tmp_path_factory.mktemp("demo")
    for name in ("demo_lipschitz", "demo_smoothed"):
        hauberk.train(recipes.read(name), out / name)
    return out


def flipped(subject: Subject, batch: Batch, certificate: Certificate, scale: float) -> int:
    """How many predictions APGD flips within ``scale`` times each image's own certified radius.

    An abstention is no flip: the certificate speaks of the class, and a vote may be too close to call.
    """
    certs, count = certificate(subject.model, batch), 0
    own = Batch(batch.images, certs.prediction, batch.ids)  # attack the certified class, right or wrong
    for row in torch.nonzero(certs.radius > 0.05).flatten().tolist():
        one = own.select(slice(row, row + 1))
        result = APGD(L2(scale * float(certs.radius[row])), steps=20)(subject.model, one, tile=16)
        again = decide(subject.model, Batch(result.adversarial, one.labels, one.ids), seed=1, tile=16)
        count += int(again) not in (-1, int(one.labels))
    return count


@pytest.mark.slow
def test_l2_attacks_inside_every_certified_radius_find_nothing_and_outside_some(runs: Path) -> None:
    lipschitz = hauberk.subject(runs / "demo_lipschitz")
    batch = hauberk.evaluation_batch(lipschitz.dataset, "test", 100)
    assert flipped(lipschitz, batch, LipschitzCertificate(), 0.999) == 0
    assert flipped(lipschitz, batch.select(slice(0, 30)), LipschitzCertificate(), 1.5) > 0


@pytest.mark.slow
def test_the_smoothed_net_keeps_its_radius_too(runs: Path) -> None:
    smoothed = hauberk.subject(runs / "demo_smoothed")
    batch = hauberk.evaluation_batch(smoothed.dataset, "test", 6)
    certificate = SmoothingCertificate(Gaussian(0.25), n=1000)
    assert flipped(smoothed, batch, certificate, 0.999) == 0
    assert flipped(smoothed, batch, certificate, 2.5) > 0


@pytest.mark.slow
def test_the_demo_leaves_a_report_and_verified_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {name: recipes.read(name, ["training.epochs=2", "evaluation.images=32", "evaluation.tile=32"])
             for name in demo.RECIPES}  # fmt: skip
    for name, recipe in small.items():
        plan = recipe.evaluation
        cheap = plan.model_copy(update={"attacks": plan.attacks[:1], "certificates": tuple(
            c | ({"n": 200} if c["name"] == "smoothing" else {}) for c in plan.certificates)})  # fmt: skip
        small[name] = recipe.model_copy(update={"evaluation": cheap})
    monkeypatch.setattr(recipes, "read", small.__getitem__)
    monkeypatch.setattr(demo, "ALPHAS", (0.9,))
    said: list[str] = []
    result = demo.run_demo(tmp_path / "demo", said.append, lambda _: None, lambda _: None)
    assert result.report.stat().st_size > 100_000
    assert len(result.runs) == len(demo.RECIPES) + 1
    assert len(said) == len(demo.RECIPES) + 2
    assert all(not v.problems for run in result.runs for v in verify_folder(run / "records"))
    assert summary(list(result.runs))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "demo").rglob("*.parquet")}
    demo.run_demo(tmp_path / "demo", said.append, lambda _: None, lambda _: None)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "demo").rglob("*.parquet")} == before
