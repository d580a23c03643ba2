"""Ways in which a library of this kind can be made to claim what is false; each was found once and must stay shut."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hauberk
from hauberk import audit, verify
from hauberk.attacks import FGSM, PGD, Attack
from hauberk.attacks.base import Query
from hauberk.batch import Batch
from hauberk.certificates import ABSTAIN, LipschitzCertificate, SmoothingCertificate
from hauberk.classifier import check_classifier, decide, predictor_name, traits
from hauberk.conformance import LinearOracle
from hauberk.errors import HauberkError
from hauberk.evaluation.alpha_steps import right_where_finite
from hauberk.layers import AOLLinear
from hauberk.noises import Gaussian
from hauberk.randomness import Randomness
from hauberk.recipes import Evaluation
from hauberk.records import group, part, read_all
from hauberk.runs import Run
from hauberk.threats import L2, Linf
from hauberk.verbs import mix as mixing


def rows(count: int, labels: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 1, 2, 2, generator=generator)
    return Batch(images, torch.full((count,), labels), torch.arange(count))


def net(activation: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 8), activation, nn.Linear(8, 2)).eval()


class Wrapper(nn.Module):
    """Has children that are known, and does something else."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images + 0.1 * torch.randn_like(images))
        return logits


def test_the_same_weights_in_another_architecture_are_another_predictor() -> None:
    assert predictor_name(net(nn.ReLU())) != predictor_name(net(nn.Sigmoid()))
    assert predictor_name(net(nn.ReLU())) == predictor_name(net(nn.ReLU()))


def test_nan_is_never_right() -> None:
    class Late(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            first = images.flatten(1)[:, :2]
            return torch.where(images[:, 0, 0, :1] > 0.5, torch.nan, first)

    batch = rows(64)
    broken = batch.images[:, 0, 0, 0] > 0.5
    decisions = decide(Late().eval(), batch)
    assert (decisions[broken] == ABSTAIN).all()
    assert (decisions[~broken] >= 0).all()
    good, bad = np.array([[0.7, 0.3]]), np.array([[np.nan, np.nan]])
    assert all(np.isnan(right_where_finite(*pair, np.zeros(1, int))).all() for pair in ((good, bad), (bad, good)))


def test_a_wrapper_with_its_own_forward_is_undeclared() -> None:
    assert not traits(Wrapper(net(nn.ReLU()))).declared
    assert traits(net(nn.ReLU())).declared


def test_a_subclass_that_changes_forward_does_not_inherit_the_bound() -> None:
    class Loud(AOLLinear):
        def forward(self, features: Tensor) -> Tensor:
            return 100.0 * super().forward(features)

    loud = nn.Sequential(nn.Flatten(), Loud(4, 4), nn.Linear(4, 2)).eval()
    with pytest.raises(HauberkError, match="inherits the bound"):
        LipschitzCertificate()(loud, rows(2))
    assert LipschitzCertificate()(nn.Sequential(nn.Flatten(), AOLLinear(4, 4), nn.Linear(4, 2)).eval(), rows(2))


def test_a_model_that_mixes_its_batch_is_refused() -> None:
    class Mean(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :2] + 5.0 * images.mean()

    class Average(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            mean = images.flatten(1).mean(0, keepdim=True)
            return mean[:, :2].expand(len(images), 2)

    for model in (Mean(), Average()):
        with pytest.raises(HauberkError, match="other images of the batch"):
            check_classifier(model.eval(), rows(8))
        with pytest.raises(HauberkError, match="other images of the batch"):
            SmoothingCertificate(Gaussian(0.1), n0=10, n=20)(model.eval(), rows(8))


def test_a_search_may_walk_outside_but_only_points_of_the_threat_count() -> None:
    class Wanderer(Attack):
        def search(self, query: Query, randomness: Randomness) -> Tensor:
            query.value(query.images - 0.9)  # misclassified, and far outside
            query.value(self.threat.project(query.images - 0.2, query.images))  # misclassified, and inside
            return query.images

    oracle = LinearOracle.random((1, 2, 2), 2, seed=1)
    batch = oracle.batch(32)
    reference = FGSM(Linf(0.05))(oracle, batch)
    found = Wanderer(Linf(0.05))(oracle, batch)
    assert bool((found.distance <= 0.05 + 1e-6).all())
    assert bool((found.logit_margin >= reference.logit_margin - 1e-5).all())


def test_a_gradient_that_is_nan_is_an_error_and_not_a_robust_model() -> None:
    class Blind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net(nn.ReLU())

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.inner(images) + torch.sqrt(0.0 * images.flatten(1)[:, :2])
            return logits

    with pytest.raises(HauberkError, match="gradient is NaN"):
        PGD(L2(0.5))(Blind().eval(), rows(4))


def test_where_float32_disagrees_with_float64_nothing_is_certified() -> None:
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0, 0, 0], [1.0, 1, 1, 1]]))
        layer.bias.fill_(1e8)  # float32 cannot hold the difference
    found = LipschitzCertificate()(nn.Sequential(nn.Flatten(), layer).eval(), rows(4))
    assert found.prediction.tolist() == [ABSTAIN] * 4
    assert found.radius.tolist() == [0.0] * 4


@pytest.fixture
def mixture(tiny_run: Path, tmp_path: Path) -> Run:
    subject = hauberk.subject(tiny_run)
    how = mixing.Mixture(0.9, robust_scale=10.0)
    return mixing.mix(subject, subject, how, tmp_path / "mix", Evaluation(images=16))


def test_a_forged_alpha_path_is_found_without_any_certificate(mixture: Run) -> None:
    (honest,) = group(read_all(mixture.records, "mix"))
    verdict = verify.verify_mix(honest, [])
    assert (verdict.rows, verdict.problems) == (16, ())
    columns = honest.table.to_pydict() | {"certified_alpha": [[0.5] * len(honest.facts["eps"])] * 16}
    forged = part("mix", honest.unit, honest.facts, columns)
    assert len(verify.verify_mix(forged, []).problems) > 100


def test_a_forged_label_is_found_with_the_data(tiny_run: Path, tmp_path: Path) -> None:
    import shutil

    from hauberk import records

    copied = Path(shutil.copytree(tiny_run, tmp_path / "forged"))
    for item in read_all(copied / "records", "certificate"):
        wrong = [(v + 1) % 10 for v in item.table.column("label").to_pylist()]
        forged = records.part("certificate", item.unit, item.facts, item.table.to_pydict() | {"label": wrong})
        (copied / "records" / f"certificate-{item.key}.parquet").unlink()
        records.write(copied / "records", forged)
    verdicts = audit.audit(copied)
    assert any("the data has another label" in problem for v in verdicts for problem in v.problems)


def test_a_mix_of_another_alpha_is_found(mixture: Run) -> None:
    subject = hauberk.subject(mixture.path)
    certificate = hauberk.default_certificate(subject)
    assert certificate is not None
    hauberk.certify(subject, [certificate], Evaluation(images=16))
    (honest,) = group(read_all(mixture.records, "certificate"))
    assert not verify.verify_part(honest).problems
    facts = json.loads(json.dumps(dict(honest.facts)))
    facts["shared"]["mix_alpha"] = 1.0
    assert any("alpha" in p for p in verify.verify_part(dataclasses.replace(honest, facts=facts)).problems)
